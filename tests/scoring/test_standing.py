"""However a history is cut, hurried or delayed, the standing is what the purchases say."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.scoring.presets import DEFAULT_RULE_SET, LIFE_CYCLE
from services.scoring.rfm import Cuts, Figures, monthly_run
from services.scoring.rules import Rules
from services.scoring.standing import Change, Standing

CUTS = Cuts((31, 61, 91, 181), (2, 3, 5, 10), (500, 2000, 5000, 15000))
RULES = Rules.of(1, DEFAULT_RULE_SET, CUTS)
RUNS = Rules.of(1, LIFE_CYCLE.model_copy(update={"frequency_counts": "purchases"}), CUTS)
CLIENT = UUID(int=7)
NEW_YEAR = datetime(2025, 1, 1, 9, tzinfo=UTC)

Purchase = tuple[int, int, int]  # days after new year when heard, how many days ago, money
HISTORIES = st.lists(
    st.tuples(st.integers(0, 900), st.integers(0, 500), st.integers(0, 9000)),
    min_size=1,
    max_size=12,
).map(sorted)


def at(day: int) -> datetime:
    return NEW_YEAR + timedelta(days=day)


def heard(standing: Standing, history: list[Purchase], rules: Rules = RULES) -> list[Change]:
    changes = []
    for day, ago, money in history:
        changes += standing.buy(rules.day_of(at(day - ago)), money, at=at(day), rules=rules)
    return changes


def by_definition(history: list[Purchase], today: date) -> Figures:
    """The three figures computed as the words say it, without any state."""
    days = [(RULES.day_of(at(day - ago)), money) for day, ago, money in history]
    inside = [(day, money) for day, money in days if day > today - RULES.period]
    return Figures(
        (today - max(day for day, _ in days)).days,
        len({day for day, _ in inside}),
        sum(money for _, money in inside),
    )


@given(HISTORIES, st.integers(0, 800))
def test_the_fold_ends_where_the_definition_ends(history: list[Purchase], later: int) -> None:
    standing = Standing(CLIENT)
    heard(standing, history)
    today = RULES.day_of(at(history[-1][0] + later))

    standing.age(today, RULES)

    scores = CUTS.rate(by_definition(history, today))
    assert standing.scores == scores
    assert standing.segment == RULES.segments[scores]
    assert standing.due_on is None or standing.due_on > today


@given(HISTORIES, st.integers(0, 800))
def test_runs_of_months_and_counted_purchases_end_where_the_definition_ends(
    history: list[Purchase], later: int
) -> None:
    standing = Standing(CLIENT)
    heard(standing, history, RUNS)
    today = RUNS.day_of(at(history[-1][0] + later))

    standing.age(today, RUNS)

    days = [RUNS.day_of(at(day - ago)) for day, ago, _ in history]
    assert standing.figures is not None
    assert standing.figures.frequency == len(days)  # ten years: all are in the period
    assert standing.monthly_run == monthly_run(days, today)
    by_words = "monthly" if standing.monthly_run >= 3 else "one_time" if len(days) == 1 else None
    assert standing.segment == (by_words or "periodic")


@given(HISTORIES, st.lists(st.integers(0, 1500), max_size=15).map(sorted))
def test_when_timers_fire_makes_no_difference_to_the_history(
    history: list[Purchase], ticks: list[int]
) -> None:
    undisturbed, ticked = Standing(CLIENT), Standing(CLIENT)
    end = RULES.day_of(at(1500))

    plain = heard(undisturbed, history) + undisturbed.age(end, RULES)
    disturbed = []
    waiting = list(ticks)
    for purchase in history:
        while waiting and waiting[0] <= purchase[0]:
            disturbed += ticked.age(RULES.day_of(at(waiting.pop(0))), RULES)
        disturbed += heard(ticked, [purchase])
    disturbed += ticked.age(end, RULES)

    assert disturbed == plain


@given(HISTORIES)
def test_seq_has_no_gap_and_each_move_begins_where_the_last_ended(history: list[Purchase]) -> None:
    standing = Standing(CLIENT)

    changes = heard(standing, history) + standing.age(RULES.day_of(at(3000)), RULES)

    assert [change.seq for change in changes] == list(range(1, len(changes) + 1))
    segments = [None, *(change.new_segment for change in changes)]
    assert [change.old_segment for change in changes] == segments[:-1]
    assert all(change.old_segment != change.new_segment for change in changes)
    instants = [change.changed_at for change in changes]
    assert instants == sorted(instants)


@given(HISTORIES)
def test_giving_everything_back_leaves_no_segment(history: list[Purchase]) -> None:
    standing = Standing(CLIENT)
    heard(standing, history)

    for day, ago, money in history:
        standing.give_back(
            RULES.day_of(at(day - ago)), money, is_full=True, at=at(history[-1][0]), rules=RULES
        )

    assert standing.days == {}
    assert (standing.segment, standing.scores, standing.due_on) == (None, None, None)


def test_a_client_crosses_each_boundary_at_its_own_midnight() -> None:
    standing = Standing(CLIENT)
    standing.buy(RULES.day_of(at(0)), 100_000, at=at(0), rules=RULES)

    moves = standing.age(RULES.day_of(at(400)), RULES)

    assert [
        (m.new_segment, (m.changed_at - RULES.start_of(RULES.day_of(at(0)))).days) for m in moves
    ] == [("promising", 31), ("others", 91), ("lost", 181)]
    assert standing.due_on is None


def test_a_purchase_that_leaves_the_period_no_longer_counts_as_frequency() -> None:
    standing = Standing(CLIENT)
    for day in (0, 10, 200):
        standing.buy(RULES.day_of(at(day)), 1000, at=at(day), rules=RULES)
    assert standing.figures == Figures(0, 3, 3000)

    standing.age(RULES.day_of(at(364)), RULES)
    assert standing.figures is not None
    assert standing.figures.frequency == 3
    standing.age(RULES.day_of(at(365)), RULES)
    assert standing.figures.frequency == 2
    standing.age(RULES.day_of(at(375)), RULES)
    assert (standing.figures.frequency, standing.figures.monetary_minor) == (1, 1000)

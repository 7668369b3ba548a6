"""Why him? The answer in words and figures, and the proof that it is true."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from libs.shared.ids import new_id
from services.routing.choosing.rule_set import Conditions, Goal, Rule, RuleSet, Strategy
from services.routing.policy import MutedPeriod, MutingPolicy
from tests.apps import App, problem
from tests.routing.conftest import NOON, WINDOW, Routing


async def explained(api: App, lead: UUID) -> list[dict[str, Any]]:
    answer = await api.call("GET", f"/v1/leads/{lead}/explanation")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


async def test_a_decision_is_explained_with_everybody_who_was_passed_over(
    api: App, routing: Routing
) -> None:
    ann = await routing.manager(name="Анна")
    away = await routing.manager(name="Борис", on_shift=False)
    full = await routing.manager(name="Вера", capacity=0)
    turkish = await routing.manager(name="Мехмет", languages=["tr"])
    free = await routing.manager(name="Олег", weight=1)
    await routing.team("ural", ann, away, full, turkish, free)
    rule = Rule(
        name="Урал",
        conditions=Conditions(cities=("Пермь",), channels=("form",), utm={"source": ("yandex",)}),
        team="ural",
    )
    version = await routing.rules(RuleSet(rules=(rule,)))
    first, second = await routing.comes(2, city="Пермь", language="ru", utm={"source": "yandex"})

    (told,) = await explained(api, first)
    assert (told["rule"], told["rule_version"]) == ("Урал", version)
    assert told["conditions"] == ["город: Пермь", "канал: form", "метка source: yandex"]
    assert (told["manager_id"], told["load"], told["turn"]) == (str(ann), [0, 1], 1)
    assert told["stood"] == [0, 1_000_000]
    verdicts = {one["manager_id"]: one["verdict"] for one in told["candidates"]}
    assert verdicts == {
        str(ann): None,
        str(away): "o",
        str(full): "c",
        str(turkish): "l",
        str(free): ".",
    }
    assert told["words"].splitlines() == [
        f"Правила версии {version}: сработало «Урал» "
        "(город: Пермь; канал: form; метка source: yandex).",
        "Получает Анна: по очереди, ход 1; заявок в работе было 0, стало 1.",
        "— Борис (ural): не на смене; заявок в работе 0.",
        "— Вера (ural): заявок в работе столько, сколько он может вести; заявок в работе 0.",
        "— Мехмет (ural): не говорит на языке клиента; заявок в работе 0.",
        "— Олег (ural): свободен, но очередь не его; заявок в работе 0.",
    ]
    (next_one,) = await explained(api, second)
    assert next_one["manager_id"] == str(free)
    held = {one["manager_id"]: one["open_leads"] for one in next_one["candidates"]}
    assert held[str(ann)] == 1  # the decision before in the same sitting counts


async def test_every_decision_about_a_lead_is_told_in_order(api: App, routing: Routing) -> None:
    (lead,) = await routing.comes()
    ann = await routing.manager()
    await routing.database.pool.execute("UPDATE managers SET due_at = $1", NOON)
    await routing.attends(NOON)
    await routing.offers()
    await routing.sweeps(NOON + WINDOW)

    told = await explained(api, lead)
    assert [(each["manager_id"], each["why"]) for each in told] == [
        (None, "nobody is on shift"),
        (str(ann), "round robin, turn 1"),
        (None, "everybody on shift was asked or is full"),
    ]
    assert "никого нет на смене" in told[0]["words"]
    assert told[2]["candidates"][0]["words"] == "эту заявку ему в этом круге уже предлагали"


async def test_rules_that_changed_since_do_not_change_the_answer(
    api: App, routing: Routing
) -> None:
    ann = await routing.manager()
    (lead,) = await routing.comes()
    before = await explained(api, lead)
    await routing.team("t", ann)
    await routing.rules(RuleSet(rules=(Rule(name="другое", team="t"),)))
    await routing.manager()
    await routing.comes(3)
    assert await explained(api, lead) == before


async def test_a_share_and_a_muted_season_are_told(api: App, routing: Routing) -> None:
    await routing.manager()
    await routing.rules(RuleSet(otherwise=Goal(strategy=Strategy(kind="result"))))
    (lead,) = await routing.comes()
    assert (await explained(api, lead))[0]["share_percent"] == 100.0
    end = NOON + timedelta(minutes=5)
    period = MutedPeriod(segments=("none",), begins_at=NOON, ends_at=end)
    await routing.policy(MutingPolicy(periods=(period,)))
    (muted,) = await routing.comes()
    (told,) = await explained(api, muted)
    assert told["muted_until"] == end.isoformat().replace("+00:00", "Z")
    assert "придержан до 02.03.2026 12:05 UTC" in told["words"]


async def test_what_became_of_their_leads_is_in_the_record(api: App, routing: Routing) -> None:
    ann, ben = sorted([await routing.manager(), await routing.manager()])
    for manager, won in ((ann, 9), (ben, 3)):
        await routing.database.pool.execute(
            "INSERT INTO leads (lead_id, client_id, source, channel, received_at, manager_id,"
            " ended_at, state) SELECT uuidv7(), uuidv7(), 's', 'form', $1, $2, $1,"
            " CASE WHEN n <= $3 THEN 'converted' ELSE 'closed' END FROM generate_series(1, 12) n",
            *(NOON - timedelta(days=1), manager, won),
        )
    await routing.rules(RuleSet(otherwise=Goal(strategy=Strategy(kind="result"))))
    leads = await routing.comes(8)
    assert await routing.spread() == {ann: 6, ben: 2}
    shares = {(await explained(api, lead))[0]["share_percent"] for lead in leads}
    assert shares == {75.0, 25.0}

    time = {"since": NOON.isoformat(), "until": (NOON + timedelta(days=1)).isoformat()}
    done = (await api.call("POST", "/v1/decisions/replay", time)).json()
    assert (done["checked"], done["skipped"], done["differing"]) == (1, 0, [])


async def test_the_record_is_replayed_and_a_forged_one_is_found(api: App, routing: Routing) -> None:
    for _ in range(3):
        await routing.manager()
    await routing.comes(20)
    await routing.sweeps(NOON + WINDOW)
    time = {"since": NOON.isoformat(), "until": (NOON + timedelta(days=1)).isoformat()}

    fine = (await api.call("POST", "/v1/decisions/replay", time)).json()
    assert (fine["checked"], fine["skipped"], fine["differing"]) == (2, 0, [])

    forged = await routing.database.pool.fetchval(
        "UPDATE sittings SET outcomes = convert_to(replace(convert_from(outcomes, 'UTF8'),"
        " 'turn 1\"', 'turn 7\"'), 'UTF8') WHERE at = $1 RETURNING sitting_id",
        NOON,
    )
    found = (await api.call("POST", "/v1/decisions/replay", time)).json()
    assert found["differing"] == [str(forged)]
    backwards = {"since": time["until"], "until": time["since"]}
    refused = await api.call("POST", "/v1/decisions/replay", backwards)
    assert problem(refused) == (422, "time-impossible")


async def test_an_unknown_lead_has_no_explanation(api: App) -> None:
    answer = await api.call("GET", f"/v1/leads/{new_id()}/explanation")
    assert problem(answer) == (404, "lead-not-found")

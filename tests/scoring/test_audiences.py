"""Who fulfils a condition enters its audience, who ceases to leaves it, and both are told once."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter, ValidationError

from libs.shared.events import (
    ClientArchived,
    ClientCard,
    ClientCreated,
    InteractionRecorded,
    LeadReceived,
    MessageOpened,
    MessageSent,
    PageViewed,
)
from libs.shared.ids import new_id
from services.scoring.audiences.conditions import READY, AudienceRule
from services.scoring.audiences.membership import count_audience, turn_due_members
from tests.apps import App, problem
from tests.scoring.conftest import NEW_YEAR, Scoring, closed, reversed_

_rule = TypeAdapter(AudienceRule)
SILENT = {"kind": "days_since", "what": "purchase", "at_least": 91}


def on(day: int) -> datetime:
    return NEW_YEAR + timedelta(days=day)


def card(client: UUID, at: datetime = NEW_YEAR, **card: Any) -> ClientCreated:
    made = ClientCard(kind="person", full_name="A", status="active", **card)
    return ClientCreated(client_id=client, version=1, card=made, occurred_at=at)


class Watched:
    """Scoring with audiences, as its worker keeps them."""

    def __init__(self, scoring: Scoring) -> None:
        self.scoring = scoring

    async def begins(self, code: str, condition: Any, now: datetime = NEW_YEAR) -> None:
        rule = _rule.validate_python({"code": code, "label": code, "condition": condition})
        await self.scoring.database.pool.execute(
            "INSERT INTO audiences (code, body, due_at, changed_at, changed_by)"
            " VALUES ($1, $2, $3, $3, 'ann')",
            code,
            rule.model_dump(mode="json"),
            now,
        )
        await self.settles(now)

    async def hears(self, *events: Any, now: datetime = NEW_YEAR) -> None:
        await self.scoring.hears(*events)
        await self.settles(now)

    async def settles(self, now: datetime) -> None:
        await self.scoring.plans(now)
        for fire in (count_audience, turn_due_members):
            fired = 1
            while fired:
                async with self.scoring.database.transaction() as tx:
                    fired = await fire(tx, now)

    async def members(self, code: str) -> set[UUID]:
        rows = await self.scoring.database.pool.fetch(
            "SELECT client_id FROM audience_members JOIN audiences USING (audience_id)"
            " WHERE code = $1 AND is_in",
            code,
        )
        return {row["client_id"] for row in rows}

    async def told(self, client: UUID) -> list[tuple[str, str, int]]:
        rows = await self.scoring.database.pool.fetch(
            "SELECT type, convert_from(data, 'UTF8')::jsonb AS data FROM outbox"
            " WHERE topic = 'audiences' AND key = $1 ORDER BY id",
            str(client),
        )
        return [(r["type"].split(".")[2], r["data"]["audience"], r["data"]["seq"]) for r in rows]


@pytest.fixture
def watched(scoring: Scoring) -> Watched:
    return Watched(scoring)


async def test_a_client_enters_by_a_purchase_and_leaves_by_its_return(watched: Watched) -> None:
    client = new_id()
    deal = closed(client, money=900_000)
    await watched.begins("rich", {"kind": "money", "at_least": 500_000})

    await watched.hears(deal)
    assert await watched.members("rich") == {client}
    await watched.hears(deal, reversed_(deal))

    assert await watched.members("rich") == set()
    assert await watched.told(client) == [("entered", "rich", 1), ("left", "rich", 2)]


async def test_days_since_a_purchase_turn_by_themselves(watched: Watched) -> None:
    client = new_id()
    await watched.hears(closed(client))
    await watched.begins("silent", SILENT)
    midnight = on(91).replace(hour=0) - timedelta(hours=3)  # Moscow's

    await watched.settles(midnight - timedelta(microseconds=1))
    assert await watched.members("silent") == set()
    await watched.settles(midnight)
    assert await watched.members("silent") == {client}
    await watched.hears(closed(client, at=on(100)), now=on(100))

    assert await watched.members("silent") == set()
    assert await watched.told(client) == [("entered", "silent", 1), ("left", "silent", 2)]


async def test_card_touch_and_segment_are_joined_by_all_any_and_none(watched: Watched) -> None:
    here, there, spoken, gone = (new_id() for _ in range(4))
    await watched.begins(
        "call_them",
        {
            "kind": "all",
            "of": [
                {"kind": "segment", "any_of": ["new_customers"]},
                {
                    "kind": "any",
                    "of": [
                        {"kind": "city", "any_of": ["Казань"]},
                        {"kind": "tag", "any_of": ["vip", '1"2\\']},
                    ],
                },
                {
                    "kind": "none",
                    "of": [{"kind": "days_since", "what": "touch", "below": 30}],
                },
            ],
        },
    )
    await watched.hears(
        card(here, city="Казань"),
        card(there, city="Омск"),
        card(spoken, tags=['1"2\\']),
        card(gone, city="Казань"),
    )
    await watched.hears(*(closed(client) for client in (here, there, spoken, gone)))
    assert await watched.members("call_them") == {here, spoken, gone}

    await watched.hears(
        InteractionRecorded(
            interaction_id=new_id(),
            client_id=spoken,
            kind="call",
            direction="outgoing",
            happened_at=NEW_YEAR,
            occurred_at=NEW_YEAR,
        ),
        ClientArchived(client_id=gone, version=2, reason="x", occurred_at=NEW_YEAR),
    )
    assert await watched.members("call_them") == {here}
    await watched.settles(on(30))
    assert await watched.members("call_them") == {here, spoken}


def sent(client: UUID, at: datetime, message: UUID | None = None) -> MessageSent:
    return MessageSent(
        message_id=message or new_id(),
        client_id=client,
        channel="email",
        template="news",
        occurred_at=at,
    )


def opened(message: MessageSent, at: datetime) -> MessageOpened:
    told = message.model_dump(exclude={"event_id", "occurred_at"})
    return MessageOpened(**told, opened_at=at, occurred_at=at)


async def test_unopened_in_a_row_and_days_since_an_opening(watched: Watched) -> None:
    await watched.begins("unopened_6", {"kind": "unopened", "at_least": 6})
    await watched.begins("readers", {"kind": "opened", "at_least": 1})
    await watched.begins("lapsed", {"kind": "days_since", "what": "opening", "at_least": 30})
    client = new_id()
    letters = [sent(client, on(day)) for day in range(7)]
    await watched.hears(*letters[:5], now=on(5))
    assert await watched.members("unopened_6") == set()
    await watched.hears(letters[5], letters[5], now=on(6))  # the same twice is one
    assert await watched.members("unopened_6") == {client}

    await watched.hears(opened(letters[1], on(7)), now=on(7))  # late: four since then
    assert await watched.members("unopened_6") == set()
    assert await watched.members("readers") == {client}
    await watched.hears(opened(letters[1], on(9)), now=on(9))  # again: the first time stays
    await watched.settles(on(36))
    assert await watched.members("lapsed") == set()
    await watched.settles(on(37))
    assert await watched.members("lapsed") == {client}
    assert await watched.told(client) == [
        ("entered", "unopened_6", 1),
        ("left", "unopened_6", 2),
        ("entered", "readers", 1),
        ("entered", "lapsed", 1),
    ]


async def test_an_opening_that_is_heard_before_its_message_counts(watched: Watched) -> None:
    await watched.begins("unopened", {"kind": "unopened", "at_least": 2})
    client = new_id()
    letters = [sent(client, on(day)) for day in range(3)]
    await watched.hears(opened(letters[1], on(2)), letters[0], now=on(3))
    await watched.hears(letters[2], letters[1], now=on(3))
    assert await watched.members("unopened") == set()  # only the last one is unopened
    await watched.hears(sent(client, on(4)), now=on(4))
    assert await watched.members("unopened") == {client}


def viewed(client: UUID, page: str, at: datetime) -> PageViewed:
    site, _, path = page.partition("/")
    return PageViewed(client_id=client, site=site, page="/" + path, viewed_at=at, occurred_at=at)


async def test_pages_that_were_viewed_count_for_so_many_days(watched: Watched) -> None:
    price = {"kind": "viewed_page", "page": "shop.ru/price"}
    await watched.begins("ever", price)
    await watched.begins("lately", price | {"below": 10})
    await watched.begins("lost_sight", {"kind": "days_since", "what": "page", "at_least": 30})
    client, other = new_id(), new_id()
    await watched.hears(
        viewed(other, "shop.ru/prices", on(0)),  # another page
        viewed(other, "other.ru/price", on(0)),
        viewed(client, "shop.ru/price/crm", on(3)),
        viewed(client, "shop.ru/price", on(1)),  # late: the newest view counts
        now=on(3),
    )
    assert await watched.members("ever") == await watched.members("lately") == {client}

    await watched.settles(on(12))
    assert await watched.members("lately") == {client}
    await watched.settles(on(13))
    assert await watched.members("lately") == set()
    await watched.hears(*[viewed(client, "shop.ru/price", on(20))] * 2, now=on(20))
    await watched.settles(on(30))
    assert await watched.members("lost_sight") == {other}
    assert await watched.members("ever") == {client}
    assert await watched.told(client) == [
        ("entered", "ever", 1),
        ("entered", "lately", 1),
        ("left", "lately", 2),
        ("entered", "lately", 3),
        ("left", "lately", 4),
    ]


async def test_a_complaint_is_not_asking_for_anything(watched: Watched) -> None:
    await watched.begins("by_api", {"kind": "channel", "any_of": ["api"]})
    complaint = LeadReceived(
        lead_id=new_id(),
        client_id=new_id(),
        source="complaint",
        channel="api",
        is_returning=True,
        kind="complaint",
        occurred_at=NEW_YEAR,
    )
    asked = complaint.model_copy(
        update={"event_id": new_id(), "lead_id": new_id(), "kind": "handoff"}
    )
    await watched.hears(complaint)
    assert await watched.members("by_api") == set()
    await watched.hears(asked)
    assert await watched.members("by_api") == {asked.client_id}


async def test_channel_and_product_are_those_of_any_lead(watched: Watched) -> None:
    await watched.begins("callers", {"kind": "channel", "any_of": ["phone"]})
    await watched.begins("crm", {"kind": "product", "any_of": ["CRM", "erp"]})
    client, other = new_id(), new_id()

    def lead(client: UUID, channel: str, product: str | None = None) -> LeadReceived:
        return LeadReceived(
            lead_id=new_id(),
            client_id=client,
            source="site",
            channel=channel,
            product=product,
            is_returning=False,
            occurred_at=NEW_YEAR,
        )

    await watched.hears(lead(client, "form", "Crm"), lead(other, "phone"))
    assert await watched.members("callers") == {other}
    assert await watched.members("crm") == {client}
    await watched.hears(lead(client, "phone"), lead(client, "phone"))
    assert await watched.members("callers") == {client, other}
    assert await watched.told(client) == [("entered", "crm", 1), ("entered", "callers", 1)]


async def test_hearing_again_and_judging_again_tell_nothing_twice(watched: Watched) -> None:
    client = new_id()
    deal = closed(client)
    await watched.hears(deal)
    await watched.begins("buyers", {"kind": "frequency", "at_least": 1})

    for _ in range(3):
        await watched.hears(deal)
        await watched.scoring.database.pool.execute(
            "UPDATE audiences SET due_at = $1, after_client_id = NULL", NEW_YEAR
        )
        await watched.settles(NEW_YEAR)

    assert await watched.told(client) == [("entered", "buyers", 1)]


async def test_a_check_is_compared_with_the_average_of_the_base(watched: Watched) -> None:
    low, high = new_id(), new_id()
    await watched.hears(closed(low, money=10_000), closed(high, money=30_000))

    await watched.begins("generous", {"kind": "check_above_average"})

    assert await watched.members("generous") == {high}
    due = await watched.scoring.database.pool.fetchval("SELECT due_at FROM audiences")
    assert due == on(1).replace(hour=0) - timedelta(hours=3)  # the average is taken anew daily


async def test_ready_audiences_are_those_of_their_labels(watched: Watched) -> None:
    fresh, old, silent = new_id(), new_id(), new_id()
    await watched.hears(card(fresh, on(-30)), card(old, on(-31)), closed(silent, ago=91))
    for rule in READY:
        await watched.begins(rule.code, rule.condition.model_dump())

    assert await watched.members("new_subscribers") == {fresh}
    assert await watched.members("inactive_90_days") == {silent}


async def test_audiences_are_kept_muted_and_ended_by_api(api: App, watched: Watched) -> None:
    now = datetime.now(UTC)
    client = new_id()
    await watched.hears(closed(client, ago=2, at=now), now=now)
    body = {
        "code": "buyers",
        "label": "Купившие",
        "condition": {"kind": "frequency", "at_least": 1},
    }

    made = await api.call("POST", "/v1/audiences", body, role="marketer")
    twice = await api.call("POST", "/v1/audiences", body, role="marketer")
    await watched.settles(datetime.now(UTC))
    shown = (await api.call("GET", "/v1/audiences/buyers", role="manager")).json()
    members = (await api.call("GET", "/v1/audiences/buyers/members", role="manager")).json()
    of_client = (await api.call("GET", f"/v1/clients/{client}/audiences", role="manager")).json()

    assert (made.status_code, made.json()["is_counted"]) == (201, False)
    assert problem(twice) == (409, "audience-exists")
    assert (shown["members"], shown["is_counted"]) == (1, True)
    assert [member["client_id"] for member in members["items"]] == [str(client)]
    assert of_client == ["buyers"]
    first, last = ((now + timedelta(days=days)).date().isoformat() for days in (-1, 5))
    season = {"mute": {"first_day": first, "last_day": last}}
    await api.call("PUT", "/v1/audiences/buyers/mute", season, role="marketer")
    await watched.settles(datetime.now(UTC))
    assert await watched.members("buyers") == set()
    await watched.settles(datetime.now(UTC) + timedelta(days=7))  # the season is over
    assert await watched.members("buyers") == {client}
    await api.call("DELETE", "/v1/audiences/buyers", role="marketer")
    await watched.settles(datetime.now(UTC))
    assert [kind for kind, _, _ in await watched.told(client)] == ["entered", "left"] * 2
    unknown = await api.call("GET", "/v1/audiences/none")
    assert problem(unknown) == (404, "audience-not-found")
    ready = (await api.call("GET", "/v1/audiences/ready", role="marketer")).json()
    assert [rule["code"] for rule in ready] == [rule.code for rule in READY]


@pytest.mark.parametrize(
    "condition",
    [
        {"kind": "days_since", "what": "purchase"},
        {"kind": "money"},
        {"kind": "all", "of": []},
        {"kind": "sql", "text": "true"},
        {"kind": "tag", "any_of": []},
    ],
)
def test_conditions_that_ask_nothing_are_refused(condition: Any) -> None:
    with pytest.raises(ValidationError):
        _rule.validate_python({"code": "x", "label": "x", "condition": condition})

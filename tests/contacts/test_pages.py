"""Pages that clients have looked at."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from libs.shared.errors import Invalid
from libs.shared.ids import new_id
from services.contacts.pages.forgetting import forget_views
from services.contacts.pages.viewing import page_of
from tests.contacts.conftest import Contacts


def view(**changes: Any) -> dict[str, Any]:
    return {
        "url": "https://www.Shop.ru/Price/?utm_source=x&mail=a@b.ru#top",
        "viewed_at": "2025-03-02T15:00:00+03:00",
        "external_id": new_id().hex,
        **changes,
    }


async def tell(contacts: Contacts, *items: dict[str, Any]) -> Any:
    return await contacts.made("/v1/page-views/batch", {"source": "site", "items": list(items)})


async def test_a_view_is_told_without_what_may_be_personal(contacts: Contacts) -> None:
    anna = await contacts.add_client()
    told = await tell(contacts, view(client_id=anna["id"]))

    assert (told["created"], told["refused"]) == (1, 0)
    (event,) = await contacts.said("page.viewed")
    assert (event["client_id"], event["site"], event["page"], event["viewed_at"]) == (
        anna["id"],
        "shop.ru",
        "/Price",
        "2025-03-02T12:00:00Z",
    )
    assert "mail" not in str(event)


async def test_a_client_is_known_by_the_sites_own_id(contacts: Contacts) -> None:
    cards = {"source": "site", "items": [{"external_id": "u-1", "name": "Анна"}]}
    (anna,) = (await contacts.made("/v1/clients/batch", cards))["items"]
    await contacts.made("/v1/clients/batch", {**cards, "source": "other"})

    told = await tell(contacts, view(client_external_id="u-1"), view(client_external_id="u-2"))

    assert (told["created"], told["refused"]) == (1, 1)
    problem = told["items"][1]["problem"]
    assert (problem["code"], problem["pointer"]) == (
        "client-not-found",
        "/items/1/client_external_id",
    )
    assert [event["client_id"] for event in await contacts.said("page.viewed")] == [anna["id"]]


async def test_a_view_told_twice_together_counts_once(contacts: Contacts) -> None:
    anna = await contacts.add_client()
    items = [view(client_id=anna["id"]) for _ in range(5)]
    answers = await asyncio.gather(*(tell(contacts, *items, items[0]) for _ in range(4)))

    assert sum(answer["created"] for answer in answers) == 5
    assert len(await contacts.said("page.viewed")) == await contacts.count("page_views") == 5


async def test_what_is_wrong_with_a_view_is_told_and_loses_no_other(contacts: Contacts) -> None:
    anna = await contacts.add_client()
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    told = await tell(
        contacts,
        view(client_id=anna["id"], url="/price"),
        view(client_id=anna["id"], viewed_at=later),
        view(client_id=anna["id"], client_external_id="u"),
        view(client_id=str(new_id())),
        view(client_id=anna["id"]),
    )
    codes = [item.get("problem", {}).get("code") for item in told["items"]]
    assert codes == [
        "page-address-invalid",
        "viewed-in-future",
        "request-invalid",
        "client-not-found",
        None,
    ]
    assert told["items"][0]["problem"]["pointer"] == "/items/0/url"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("shop.ru", ("shop.ru", "/")),
        ("http://shop.ru:8080/a/b/", ("shop.ru", "/a/b")),
        ("//магазин.рф/цены?x", ("магазин.рф", "/цены")),
    ],
)
def test_a_page_is_site_and_path(url: str, place: tuple[str, str]) -> None:
    assert page_of(url) == place


@pytest.mark.parametrize("url", ["/price", "http://", "http://[", "a b"])
def test_an_address_without_a_domain_is_none(url: str) -> None:
    with pytest.raises(Invalid):
        page_of(url)


async def test_a_view_is_forgotten_when_the_policy_keeps_it_no_longer(contacts: Contacts) -> None:
    anna = await contacts.add_client()
    old, new = view(client_id=anna["id"]), view(client_id=anna["id"])
    await tell(contacts, old)
    pool = contacts.database.pool
    await pool.execute("UPDATE page_views SET received_at = received_at - interval '31 days'")
    await tell(contacts, new)
    now = datetime.now(UTC)

    async with pool.acquire() as connection:
        assert await forget_views(connection, now) == 0
        changed = await contacts.http.put(
            "/v1/policies/page_views", json={"body": {"kept_days": 30}}, headers={"If-Match": '"0"'}
        )
        assert changed.status_code == 200, changed.text
        assert await forget_views(connection, now) == 1
        assert await forget_views(connection, now) == 0

    assert (await tell(contacts, new))["created"] == 0
    assert (await tell(contacts, old))["created"] == 1

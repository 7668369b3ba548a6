"""Pages go on where the last one ended, and a cursor cannot be bent."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.shared.ids import new_id
from libs.shared.pagination import Cursor, CursorInvalid
from tests.conftest import PLUMBING, FreshDatabase
from tests.shared.demo_api import Demo, running
from tests.shared.issuer import Issuer


@pytest.fixture
async def demo(fresh_database: FreshDatabase) -> AsyncIterator[Demo]:
    async with (
        Issuer().serving() as issuer,
        running(await fresh_database(PLUMBING), issuer) as made,
    ):
        yield made


async def add(demo: Demo, *titles: str) -> None:
    for title in titles:
        answer = await demo.http.post("/v1/notes", json={"title": title})
        assert answer.status_code == 201


async def all_titles(demo: Demo, **query: str | int) -> list[list[str]]:
    pages, cursor = [], None
    while True:
        asked = query | ({"cursor": cursor} if cursor else {})
        page = (await demo.http.get("/v1/notes", params=asked)).json()
        pages.append([item["title"] for item in page["items"]])
        cursor = page["next_cursor"]
        if cursor is None:
            return pages


async def test_pages_cover_the_list_once(demo: Demo) -> None:
    await add(demo, "d", "a", "c", "e", "b")

    assert await all_titles(demo, limit=2) == [["a", "b"], ["c", "d"], ["e"]]
    assert await all_titles(demo, limit=5) == [["a", "b", "c", "d", "e"]]
    assert await all_titles(demo, starts="x") == [[]]


async def test_what_is_added_before_does_not_shift_the_next_page(demo: Demo) -> None:
    await add(demo, "b", "c", "d")
    first = (await demo.http.get("/v1/notes?limit=2")).json()
    await add(demo, "a")
    rest = await demo.http.get("/v1/notes", params={"limit": 2, "cursor": first["next_cursor"]})

    assert [item["title"] for item in rest.json()["items"]] == ["d"]


async def test_a_cursor_of_other_filters_is_refused(demo: Demo) -> None:
    await add(demo, "a", "b")
    cursor = (await demo.http.get("/v1/notes?limit=1")).json()["next_cursor"]
    answer = await demo.http.get("/v1/notes", params={"starts": "a", "cursor": cursor})

    assert (answer.status_code, answer.json()["code"]) == (400, "cursor-invalid")


@pytest.mark.parametrize("bad", ["x", "AAAA", "====", "наугад", "a" * 1999, "%00"])
async def test_an_invented_cursor_is_refused(demo: Demo, bad: str) -> None:
    answer = await demo.http.get("/v1/notes", params={"cursor": bad})

    assert (answer.status_code, answer.json()["code"]) == (400, "cursor-invalid")


@given(moment=st.datetimes(timezones=st.just(UTC)), identity=st.uuids(), title=st.text())
def test_a_cursor_gives_back_what_was_put_in(moment: datetime, identity: UUID, title: str) -> None:
    try:
        title.encode()
    except UnicodeEncodeError:
        return  # PostgreSQL has no such text
    made = Cursor.encode((moment, title, identity), {"a": 1})

    assert Cursor.decode(made, tuple[datetime, str, UUID], {"a": 1}) == (moment, title, identity)


@given(place=st.integers(min_value=0), char=st.sampled_from("ABCxyz019-_"))
def test_a_changed_cursor_is_refused(place: int, char: str) -> None:
    good = Cursor.encode(("milk", new_id()), {})
    place %= len(good)
    changed = good[:place] + char + good[place + 1 :]
    if changed == good:
        return

    try:
        decoded = Cursor.decode(changed, tuple[str, UUID], {})
    except CursorInvalid:
        return
    # The last character has bits that mean nothing.
    assert (place, decoded) == (len(good) - 1, Cursor.decode(good, tuple[str, UUID], {}))

"""The directory of staff and the alerts they were sent."""

from typing import Any

import pytest

from libs.shared.ids import new_id
from tests.notifications.conftest import MONDAY, Api, Notifications
from tests.notifications.test_staff_alerts import person, unanswered


async def test_staff_are_entered_and_changed_from_the_version_that_was_read(api: Api) -> None:
    path = f"/v1/staff/{new_id()}"
    oleg = {"name": "Олег", "email": "oleg@example.test", "second_channel": "+79215551234"}

    none = await api.http.get(path)
    made = await api.http.put(path, json=oleg, headers={"If-Match": "*"})
    changed = await api.http.put(
        path, json=oleg | {"is_supervisor": True}, headers={"If-Match": made.headers["ETag"]}
    )
    stale = await api.http.put(path, json=oleg, headers={"If-Match": made.headers["ETag"]})
    shown = await api.http.get(path)
    listed = await api.http.get("/v1/staff")

    assert (none.status_code, none.json()["code"]) == (404, "staff-not-found")
    assert (made.status_code, changed.status_code, stale.status_code) == (200, 200, 412)
    assert (shown.json()["is_supervisor"], shown.json()["version"]) == (True, 2)
    assert listed.json()["items"] == [shown.json()]


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "nobody"},
        {"email": "a@example.test, b@example.test"},
        {"name": " "},
        {"phone": "+79215551234"},
        {"is_supervisor": "yes"},
    ],
)
async def test_staff_that_could_not_be_reached_are_refused(api: Api, wrong: dict[str, Any]) -> None:
    path = f"/v1/staff/{new_id()}"

    answer = await api.http.put(path, json={"name": "Олег"} | wrong, headers={"If-Match": "*"})

    assert answer.status_code == 422
    assert (await api.http.get(path)).status_code == 404


async def test_only_who_may_enters_staff(api: Api) -> None:
    answer = await api.http.put(
        f"/v1/staff/{new_id()}",
        json={"name": "Олег"},
        headers={"If-Match": "*"} | api.issuer.bearer("manager"),
    )

    assert answer.status_code == 403


async def test_alerts_are_listed_with_the_message_that_tells_them(
    api: Api, notifications: Notifications
) -> None:
    oleg, lead = await person(notifications), new_id()
    await notifications.hears(unanswered(lead, oleg), unanswered(new_id(), oleg))
    await notifications.sends(MONDAY)

    both = await api.http.get("/v1/alerts", params={"staff_id": str(oleg), "limit": 1})
    rest = await api.http.get(
        "/v1/alerts", params={"staff_id": str(oleg), "cursor": both.json()["next_cursor"]}
    )
    one = await api.http.get("/v1/alerts", params={"subject_id": str(lead), "state": "sent"})
    ledger = await api.http.get("/v1/deliveries", params={"staff_id": str(oleg)})

    [delivery] = ledger.json()["items"]
    told = both.json()["items"] + rest.json()["items"]
    assert [item["message_id"] for item in told] == [delivery["message_id"]] * 2
    assert [item["subject_id"] for item in one.json()["items"]] == [str(lead)]
    assert (delivery["client_id"], delivery["reminder_id"]) == (None, None)

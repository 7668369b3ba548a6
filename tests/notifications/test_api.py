"""The API of notifications: reminders, the ledger, retries, templates, policies."""

from datetime import timedelta
from typing import Any

from libs.shared.ids import new_id
from services.notifications.default_templates import SHIPPED
from tests.notifications.conftest import (
    DAY,
    MEETING,
    Api,
    Notifications,
    cancelled,
    client,
    moved,
    planned,
)

MAIL = "/v1/templates/meeting_reminder/email/ru"
TEXT = {"subject": "Ждём вас", "body": "{{ client_name }}, {{ starts_at }}"}


async def test_reminders_are_listed_by_client_and_state(
    api: Api, notifications: Notifications
) -> None:
    anna, ben, kept, shifted, dropped = (new_id() for _ in range(5))
    await notifications.hears(
        client(anna),
        *(planned(anna, meeting) for meeting in (kept, shifted, dropped)),
        planned(ben, new_id()),
        moved(anna, shifted, starts_at=MEETING + DAY),
        cancelled(anna, dropped),
    )

    counts = {}
    for state in ("planned", "cancelled", "sent"):
        found = await api.http.get("/v1/reminders", params={"client_id": str(anna), "state": state})
        counts[state] = len(found.json()["items"])
    one = await api.http.get("/v1/reminders", params={"interaction_id": str(kept)})

    assert counts == {"planned": 4, "cancelled": 4, "sent": 0}
    assert [item["stage"] for item in one.json()["items"]] == ["half_hour", "day_before"]


async def test_the_ledger_is_paged_and_shows_no_address(
    api: Api, notifications: Notifications
) -> None:
    anna = new_id()
    await notifications.hears(client(anna), *(planned(anna, new_id()) for _ in range(3)))
    await notifications.sends(MEETING - DAY)

    seen: list[dict[str, Any]] = []
    params: dict[str, str] = {"channel": "email", "limit": "2"}
    while True:
        page = (await api.http.get("/v1/deliveries", params=params)).json()
        seen += page["items"]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    detail = await api.http.get(f"/v1/deliveries/{seen[0]['message_id']}")

    assert len({item["message_id"] for item in seen}) == 3
    assert {item["state"] for item in seen} == {"sent"}
    assert "Анна Петрова" in detail.json()["body"]
    assert "anna@example.test" not in detail.text


async def test_a_failed_message_is_made_anew_and_goes_under_its_old_id(
    api: Api, notifications: Notifications
) -> None:
    anna = new_id()
    await notifications.hears(client(anna, email=None), planned(anna, new_id()))
    await notifications.sends(MEETING - DAY)
    [failed] = (await api.http.get("/v1/deliveries", params={"state": "failed"})).json()["items"]
    path = f"/v1/deliveries/{failed['message_id']}/retry"

    await notifications.hears(client(anna, version=2))
    now = MEETING - DAY + timedelta(minutes=1)
    await notifications.set_clock(now)
    await api.http.post("/v1/sandbox/clock/advance", json={"seconds": 0})  # it reads the clock
    again, twice = await api.http.post(path), await api.http.post(path)
    await notifications.sends(now + timedelta(seconds=30))

    assert again.status_code == 202
    assert (twice.status_code, twice.json()["code"]) == (409, "delivery-settled")
    [mail] = notifications.post.mails
    assert mail["Message-ID"] == f"<{failed['message_id']}@example.test>"
    sent = await api.http.get(f"/v1/deliveries/{failed['message_id']}")
    assert (sent.json()["state"], sent.json()["attempts"]) == ("sent", 1)
    audit = (await api.http.get("/v1/audit", params={"action": "delivery.retried"})).json()
    assert len(audit["items"]) == 1


async def test_a_message_for_a_meeting_that_was_moved_is_not_retried(
    api: Api, notifications: Notifications
) -> None:
    anna, meeting = new_id(), new_id()
    await notifications.hears(client(anna, email=None), planned(anna, meeting))
    await notifications.sends(MEETING - DAY)
    await notifications.hears(moved(anna, meeting, starts_at=MEETING + DAY))
    [row] = await notifications.deliveries()

    answer = await api.http.post(f"/v1/deliveries/{row['message_id']}/retry")

    assert (answer.status_code, answer.json()["code"]) == (409, "delivery-outdated")


async def test_what_is_not_there_is_not_found(api: Api) -> None:
    answers = [
        await api.http.get(f"/v1/deliveries/{new_id()}"),
        await api.http.post(f"/v1/deliveries/{new_id()}/retry"),
        await api.http.get("/v1/templates/nothing/email/ru"),
    ]

    assert [answer.status_code for answer in answers] == [404, 404, 404]


async def test_wrong_values_are_refused(api: Api) -> None:
    paths = [
        "/v1/reminders?state=never",
        "/v1/reminders?client_id=7",
        "/v1/deliveries?limit=0",
        "/v1/templates/meeting_reminder/pigeon/ru",
        "/v1/templates/Bad-Code/email/ru",
    ]

    assert {(await api.http.get(path)).status_code for path in paths} == {422}


async def test_a_cursor_of_another_list_is_refused(api: Api) -> None:
    answer = await api.http.get("/v1/deliveries", params={"cursor": "bm90aGluZw"})

    assert (answer.status_code, answer.json()["code"]) == (400, "cursor-invalid")


async def test_a_template_is_changed_by_whoever_saw_the_version_in_force(api: Api) -> None:
    shown = await api.http.get(MAIL)
    without = await api.http.put(MAIL, json=TEXT)
    changed = await api.http.put(MAIL, json=TEXT, headers={"If-Match": shown.headers["ETag"]})
    stale = await api.http.put(MAIL, json=TEXT, headers={"If-Match": shown.headers["ETag"]})

    assert (shown.headers["ETag"], shown.json()["version"]) == ('"1"', 1)
    assert (without.status_code, changed.status_code, stale.status_code) == (428, 200, 412)
    assert changed.json() | {"changed_at": None} == shown.json() | TEXT | {
        "version": 2,
        "changed_by": "user-1",
    }


async def test_a_new_template_is_written_and_listed(api: Api) -> None:
    path = "/v1/templates/call_reminder/second_channel/ru"
    made = await api.http.put(
        path, json={"body": "{{ client_name }}, созвон {{ starts_at }}"}, headers={"If-Match": "*"}
    )
    listed = await api.http.get("/v1/templates")

    assert made.status_code == 200
    assert "call_reminder" in {item["code"] for item in listed.json()}
    assert len(listed.json()) == len(SHIPPED) + 1


async def test_a_template_that_would_not_come_out_whole_is_not_kept(api: Api) -> None:
    for body in ("Здравствуйте, [Имя]!", "{{ name }}", "{% if %}"):
        text = {"subject": "Тема", "body": body}
        put = await api.http.put(MAIL, json=text, headers={"If-Match": "*"})
        shown = await api.http.post("/v1/templates/meeting_reminder/preview", json=text)

        assert (put.status_code, put.json()["code"]) == (422, "template-refused")
        assert put.json()["errors"][0]["pointer"] == "/body"
        assert (shown.status_code, shown.json()["code"]) == (422, "template-refused")

    assert (await api.http.get(MAIL)).json()["version"] == 1


async def test_a_preview_shows_what_a_client_would_get(api: Api) -> None:
    preview = "/v1/templates/meeting_reminder/preview"
    kept = await api.http.post(preview, json={"values": {"client_name": "Борис", "kind": "call"}})
    text = await api.http.post(preview, json={"channel": "second_channel", "body": "{{ topic }}!"})

    assert "Борис" in kept.json()["body"]
    assert "о звонке" in kept.json()["body"]
    assert text.json() == {"subject": "", "body": "Обсуждение договора!"}


async def test_who_may_do_what(api: Api) -> None:
    manager, support = api.issuer.bearer("manager"), api.issuer.bearer("support")
    nobody = {"Authorization": ""}
    answers = [
        await api.http.get("/v1/reminders", headers=nobody),
        await api.http.get("/v1/reminders", headers=manager),
        await api.http.put(MAIL, json=TEXT, headers=manager | {"If-Match": "*"}),
        await api.http.post(f"/v1/deliveries/{new_id()}/retry", headers=support),
    ]

    assert [answer.status_code for answer in answers] == [401, 200, 403, 403]


async def test_a_changed_policy_holds_for_what_is_planned_from_then_on(
    api: Api, notifications: Notifications
) -> None:
    anna = new_id()
    stage = {
        "code": "hour",
        "minutes_before": 60,
        "channel": "email",
        "template": "meeting_reminder",
    }
    await notifications.hears(client(anna), planned(anna, new_id()))
    put = await api.http.put(
        "/v1/policies/reminders", json={"body": {"stages": [stage]}}, headers={"If-Match": '"0"'}
    )

    await notifications.hears(planned(anna, new_id()))

    found = await api.http.get("/v1/reminders", params={"client_id": str(anna)})
    assert put.status_code == 200
    assert [(item["stage"], item["policy_version"]) for item in found.json()["items"]] == [
        ("hour", 1),
        ("half_hour", 0),
        ("day_before", 0),
    ]


async def test_a_policy_that_makes_no_sense_is_refused(api: Api) -> None:
    stage = {"code": "x", "minutes_before": 0, "channel": "email", "template": "t"}
    wrong: list[dict[str, Any]] = [
        {"stages": [stage]},
        {"zone": "Moscow"},
        {"second_channel_order": []},
    ]
    for changes in wrong:
        put = await api.http.put(
            "/v1/policies/reminders", json={"body": changes}, headers={"If-Match": '"0"'}
        )

        assert put.status_code == 422


async def test_a_template_for_staff_is_shown_with_its_own_example(api: Api) -> None:
    shown = await api.http.get("/v1/templates/staff_touches_due/email/ru")
    preview = await api.http.post(
        "/v1/templates/staff_touches_due/preview", json={"values": {"count": "7"}}
    )
    refused = await api.http.put(
        "/v1/templates/staff_touches_due/email/ru",
        json=TEXT,
        headers={"If-Match": shown.headers["ETag"]},
    )

    assert "recipient_name" in shown.json()["variables"]
    assert preview.json()["subject"] == "Касания на сегодня: 7"
    assert (refused.status_code, refused.json()["code"]) == (422, "template-refused")

"""Providers report that messages were opened."""

import asyncio
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from libs.shared.ids import new_id
from libs.shared.webhooks import sign
from tests.apps import problem
from tests.notifications.conftest import (
    DAY,
    MEETING,
    MONDAY,
    SECRET,
    Api,
    Notifications,
    client,
    planned,
)


async def report(api: Api, body: Any, source: str = "esp", secret: str = SECRET) -> httpx.Response:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = sign(secret, identity=str(new_id()), raw=raw, at=datetime.now(UTC))
    return await api.http.post(f"/v1/webhooks/messages/{source}", content=raw, headers=headers)


async def test_the_policy_says_which_reports_mean_an_opening(
    api: Api, notifications: Notifications
) -> None:
    anna = new_id()
    await notifications.hears(client(anna), planned(anna, new_id()))
    await notifications.sends(MEETING - DAY)
    (sent,) = [each for each in await notifications.deliveries() if each["channel"] == "email"]
    told = {"message_id": str(sent["message_id"]), "event": "OPENED", "at": MEETING - DAY}
    changed = await api.http.put(
        "/v1/policies/openings", json={"body": {"events": ["Seen"]}}, headers={"If-Match": '"0"'}
    )
    assert changed.status_code == 200

    assert (await report(api, told)).json() == {"is_new": False}
    assert (await report(api, told | {"event": "seen"})).json() == {"is_new": True}


async def test_an_opening_is_noted_once_whatever_a_provider_repeats(
    api: Api, notifications: Notifications
) -> None:
    anna, meeting = new_id(), new_id()
    await notifications.hears(client(anna), planned(anna, meeting))
    await notifications.sends(MEETING - DAY)
    (sent,) = [each for each in await notifications.deliveries() if each["channel"] == "email"]
    opened = {"message_id": str(sent["message_id"]), "event": "opened", "at": MEETING - DAY}

    assert (await report(api, opened | {"event": "delivered"})).json() == {"is_new": False}
    answers = await asyncio.gather(
        *(report(api, opened | {"event": event}) for event in ("opened", "Clicked", "open"))
    )
    assert sorted(answer.json()["is_new"] for answer in answers) == [False, False, True]
    later = await report(api, opened | {"at": MEETING})
    assert later.json() == {"is_new": False}

    said = await notifications.database.pool.fetch(
        "SELECT key, convert_from(data, 'UTF8')::jsonb AS data FROM outbox"
        " WHERE type = 'baza.message.opened.v1'"
    )
    assert [(row["key"], row["data"]["message_id"]) for row in said] == [
        (str(anna), str(sent["message_id"]))
    ]
    assert datetime.fromisoformat(said[0]["data"]["opened_at"]) == MEETING - DAY


@pytest.mark.parametrize(
    ("body", "source", "told"),
    [
        (
            {"message_id": str(new_id()), "event": "opened", "at": MONDAY},
            "esp",
            "message-not-found",
        ),
        ({"message_id": "7", "event": "opened", "at": MONDAY}, "esp", "report-unreadable"),
        ({"event": "opened", "at": MONDAY}, "esp", "report-unreadable"),
        (b"{", "esp", "report-unreadable"),
        (b"{}", "nobody", "webhook-source-unknown"),
    ],
)
async def test_a_report_that_cannot_be_used_is_refused(
    api: Api, body: Any, source: str, told: str
) -> None:
    assert problem(await report(api, body, source))[1] == told


async def test_a_report_must_be_signed(api: Api) -> None:
    other = "whsec_" + b64encode(b"another secret of thirty").decode()
    body = {"message_id": str(new_id()), "event": "opened", "at": MONDAY}
    assert problem(await report(api, body, secret=other)) == (401, "signature-invalid")

"""What is outside of Baza, as a real process: tokens, mail, the second channel, pages."""

import json
import os
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import httpx
import pytest
from joserfc import jwt
from joserfc.errors import ExpiredTokenError
from joserfc.jwk import KeySet

from deploy.local import outside_pages
from deploy.local.doors import issue_token
from deploy.local.ports import Ports
from deploy.local.processes import await_condition, free_ports
from deploy.local.supervision import PythonProcess

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "<script>alert('1 & 2')</script>"
SHOWN = "&lt;script&gt;alert(&#x27;1 &amp; 2&#x27;)&lt;/script&gt;"


class Outside:
    """The process and where it is."""

    def __init__(self, data: Path) -> None:
        self.data = data
        http, smtp = free_ports(2)
        self.url = f"http://127.0.0.1:{http}"
        self.smtp_port = smtp
        ports = asdict(Ports(outside=http, smtp=smtp))
        arguments = ["-m", "deploy.local.outside", "--data", str(data), "--ports"]
        self.process = PythonProcess(
            "outside",
            [sys.executable, *arguments, json.dumps(ports)],
            env=os.environ,
            log=data / "outside.log",
            cwd=ROOT,
        )

    def start(self) -> None:
        self.process.start()
        await_condition(
            self._answers,
            alive=self.process.is_running,
            what="outside",
            log=self.process.log,
            limit=30,
        )

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").is_success
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    outside = Outside(tmp_path_factory.mktemp("outside"))
    outside.start()
    yield outside
    outside.process.stop(10)


@pytest.fixture
async def http(outside: Outside) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=outside.url) as client:
        yield client


async def send_mail(outside: Outside, subject: str, text: str) -> None:
    message = EmailMessage()
    message["From"] = "baza@example.test"
    message["To"] = "Анна <anna@example.test>"
    message["Subject"] = subject
    message.set_content(text)
    await aiosmtplib.send(message, hostname="127.0.0.1", port=outside.smtp_port)


async def keys(http: httpx.AsyncClient) -> KeySet:
    return KeySet.import_key_set((await http.get("/.well-known/jwks.json")).json())


async def test_a_token_verifies_against_the_published_keys(
    outside: Outside, http: httpx.AsyncClient
) -> None:
    encoded = await issue_token(
        http, outside.url, "anna", ["manager"], manager_id="m-1", seconds=600
    )

    claims = jwt.decode(encoded, await keys(http), algorithms=["ES256"]).claims
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": outside.url}, aud={"essential": True, "value": "baza"}
    ).validate(claims)
    assert (claims["sub"], claims["roles"], claims["manager_id"]) == ("anna", ["manager"], "m-1")
    assert claims["exp"] - claims["iat"] == 600
    with pytest.raises(ExpiredTokenError):
        jwt.JWTClaimsRegistry(now=lambda: claims["exp"] + 1).validate(claims)


async def test_the_published_key_is_public_and_the_private_one_is_ours(
    outside: Outside, http: httpx.AsyncClient
) -> None:
    (published,) = (await http.get("/.well-known/jwks.json")).json()["keys"]
    file = outside.data / "token-key.json"

    assert "d" not in published
    assert "d" in json.loads(file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "request_",
    [{}, {"subject": "a", "roles": ["admin"], "seconds": 0}, {"subject": "a", "roles": [], "x": 1}],
    ids=["empty", "no time", "unknown field"],
)
async def test_a_malformed_token_request_is_refused(
    http: httpx.AsyncClient, request_: dict[str, object]
) -> None:
    assert (await http.post("/token", json=request_)).status_code == 422


async def test_a_mail_is_kept_and_shown_as_text(outside: Outside, http: httpx.AsyncClient) -> None:
    await send_mail(outside, f"Встреча {SCRIPT}", f"Завтра в 10:00 {SCRIPT}")

    mail = (await http.get("/mail.json")).json()[-1]
    listed = (await http.get("/mail")).text
    alone = await http.get(f"/mail/{mail['id']}")

    assert (mail["sender"], mail["recipients"]) == ("baza@example.test", ["anna@example.test"])
    assert (mail["subject"], mail["text"].strip()) == (
        f"Встреча {SCRIPT}",
        f"Завтра в 10:00 {SCRIPT}",
    )
    assert (outside.data / "mail" / f"{mail['id']}.eml").exists()
    for page in (listed, alone.text):
        assert SCRIPT not in page
        assert f"Встреча {SHOWN}" in page
    assert f"Завтра в 10:00 {SHOWN}" in alone.text
    assert "default-src 'none'" in alone.headers["Content-Security-Policy"]


@pytest.mark.parametrize("mail_id", ["nothing", "..%2Ftoken-key", "%2e%2e", "*"])
async def test_a_mail_that_is_not_there_is_not_found(http: httpx.AsyncClient, mail_id: str) -> None:
    answer = await http.get(f"/mail/{mail_id}")

    assert answer.status_code == 404


async def test_a_mail_that_cannot_be_read_is_still_listed(
    outside: Outside, http: httpx.AsyncClient
) -> None:
    broken = b"Subject: =?utf-9?B?////?=\r\nContent-Type: text/plain; charset=none-such\r\n\r\n\xff"
    smtp = aiosmtplib.SMTP(hostname="127.0.0.1", port=outside.smtp_port)
    async with smtp:
        await smtp.sendmail("a@example.test", ["b@example.test"], broken)

    assert (await http.get("/mail")).status_code == 200
    assert (await http.get("/mail.json")).json()[-1]["recipients"] == ["b@example.test"]


async def test_the_same_message_twice_is_one_message(http: httpx.AsyncClient) -> None:
    message = {"id": "twice", "to": "@anna", "text": SCRIPT}

    answers = [await http.post("/second-channel/messages", json=message) for _ in range(2)]
    other = await http.post("/second-channel/messages", json=message | {"text": "other"})

    assert answers[0].json() == answers[1].json()
    assert other.status_code == 409
    kept = (await http.get("/second-channel/messages.json")).json()
    assert [one["text"] for one in kept if one["id"] == "twice"] == [SCRIPT]
    page = (await http.get("/mail")).text
    assert SHOWN in page
    assert SCRIPT not in page


async def test_the_index_leads_to_every_service_and_loads_nothing(http: httpx.AsyncClient) -> None:
    page = (await http.get("/")).text

    for port in (8001, 8002, 8003, 8004):
        assert f'href="http://127.0.0.1:{port}/docs"' in page
    for path in ("/mail", "/asyncapi.json", "/.well-known/jwks.json"):
        assert f'href="{path}"' in page
    assert not [tag for tag in ("<script", "<link", "<img", "src=") if tag in page]


async def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    outside = Outside(tmp_path)
    outside.start()
    try:
        async with httpx.AsyncClient(base_url=outside.url) as http:
            token = await issue_token(http, outside.url, "anna", ["admin"])
            await send_mail(outside, "Письмо", "текст")
            message = {"id": "1", "to": "@anna", "text": "текст"}
            first = (await http.post("/second-channel/messages", json=message)).json()
            outside.process.kill()
            with (tmp_path / "second-channel.jsonl").open("a") as stream:
                stream.write('{"id": "torn", "to"')

            outside.start()

            assert len((await http.get("/mail.json")).json()) == 1
            assert (await http.post("/second-channel/messages", json=message)).json() == first
            assert len((await http.get("/second-channel/messages.json")).json()) == 1
            assert jwt.decode(token, await keys(http), algorithms=["ES256"]).claims["sub"] == "anna"
    finally:
        outside.process.stop(10)


def test_the_link_of_a_reminder_leads_to_a_page_that_escapes_it() -> None:
    page = outside_pages.reschedule_page("0192f0c4-6f8a-7c3e-9d2b-5a1e4c7d8f90")

    assert "0192f0c4-6f8a-7c3e-9d2b-5a1e4c7d8f90" in page
    assert "<script" not in outside_pages.reschedule_page("<script>")

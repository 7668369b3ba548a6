"""A notifications database with real ways out: an SMTP server and an HTTP receiver."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
import uvicorn
from aiosmtpd.smtp import SMTP
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from deploy.local import second_channel as receiver
from libs.shared.clock import Clock
from libs.shared.database import Database
from libs.shared.events import (
    ClientCard,
    ClientChanged,
    ClientCreated,
    Event,
    InteractionCancelled,
    InteractionHeld,
    InteractionMoved,
    InteractionPlanned,
)
from libs.shared.ids import new_id
from libs.shared.inbox import Inbox
from libs.shared.subscriptions import Dispatcher
from services.notifications.due_reminders import queue_due_reminders
from services.notifications.mail import Mail
from services.notifications.main import build
from services.notifications.second_channel import SecondChannel
from services.notifications.sending import Provider, SendingLoop
from services.notifications.settings import NotificationsSettings
from services.notifications.staff.due_alerts import queue_due_alerts
from services.notifications.subscriptions import SUBSCRIPTIONS
from tests.conftest import FreshDatabase, free_port
from tests.shared.issuer import AUDIENCE, Issuer
from tests.shared.streams import record_of

MONDAY = datetime(2026, 3, 2, 9, tzinfo=UTC)
MEETING = MONDAY + timedelta(days=2)
DAY = timedelta(hours=24)
HALF_HOUR = timedelta(minutes=30)
LEASE = timedelta(seconds=60)
TIMEOUT = timedelta(seconds=5)
SECRET = "whsec_" + b64encode(b"a secret of twenty-four!").decode()


@dataclass
class PostOffice:
    """An SMTP server that keeps what it takes, and refuses or breaks off when told to."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)  # by recipient: the answer to RCPT
    data_answers: list[str] = field(default_factory=list)  # of the next letters; "" breaks off
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self.port = self.port or free_port()
        self._server = await loop.create_server(
            lambda: SMTP(self, hostname="localhost", enable_SMTPUTF8=True, loop=loop),
            "127.0.0.1",
            self.port,
        )

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def handle_RCPT(  # noqa: N802  # the library's name
        self, _server: SMTP, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, _session: Any, envelope: Any) -> str:  # noqa: N802
        answer = self.data_answers.pop(0) if self.data_answers else "250 taken"
        if answer.startswith("250") or not answer:
            self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
            self.envelopes.append((envelope.mail_from, list(envelope.rcpt_tos)))
        if not answer:
            assert isinstance(server.transport, asyncio.WriteTransport)
            server.transport.abort()
        return answer or "421 never heard"


@dataclass
class Receiver:
    """The second channel's HTTP receiver of the local runner; `failures` are answered first."""

    url: str
    channel: receiver.SecondChannel
    failures: list[int] = field(default_factory=list)
    loses_answers: int = 0  # so many of the next messages are kept, and answered with 502

    @property
    def texts(self) -> list[tuple[str, str]]:
        return [(message.to, message.text) for message in self.channel.list()]


class Front:
    """The HTTP server of the run; each test puts its own receiver behind it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/second-channel/messages"
        self._app: ASGIApp = FastAPI()
        self._made: Receiver | None = None

    def put(self, channel: receiver.SecondChannel) -> Receiver:
        app = FastAPI()
        app.include_router(channel.router())
        self._app, self._made = app, Receiver(self.url, channel)
        return self._made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        made = self._made
        if made is not None and made.failures:
            await PlainTextResponse("no", made.failures.pop(0))(scope, receive, send)
        elif made is not None and made.loses_answers:
            made.loses_answers -= 1

            async def unheard(_message: Any) -> None:
                return None

            await self._app(scope, receive, unheard)
            await PlainTextResponse("lost", 502)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


@dataclass
class Notifications:
    """The service's rules on a database of their own, with both ways out."""

    database: Database
    inbox: Inbox
    clock: Clock
    post: PostOffice
    receiver: Receiver
    reschedule_url: str = "https://example.test/reschedule/{interaction_id}"

    async def hears(self, *events: Event) -> None:
        await self.inbox.apply([record_of(event) for event in events])

    def loop(self, channel: str, lease: timedelta = LEASE) -> SendingLoop:
        provider: Provider
        if channel == "email":
            provider = Mail(self.post.url, "Baza <baza@example.test>", TIMEOUT)
        else:
            provider = SecondChannel(self.receiver.url, "", TIMEOUT)
        self._providers.append(provider)
        return SendingLoop(self.database, self.clock, channel, provider, lease)

    _providers: list[Provider] = field(default_factory=list)

    async def set_clock(self, now: datetime) -> None:
        """Let the suite's clock be at `now`; it goes on from there."""
        await self.database.pool.execute(
            "INSERT INTO sandbox_clock (advance) VALUES ($1 - clock_timestamp()) ON CONFLICT"
            " (only_row) DO UPDATE SET advance = excluded.advance",
            now,
        )

    async def queues(self, now: datetime) -> None:
        fired = 1
        while fired:
            async with self.database.transaction() as tx:
                fired = await queue_due_reminders(tx, now, reschedule_url=self.reschedule_url)
                fired += await queue_due_alerts(tx, now)

    async def sends(self, now: datetime) -> None:
        """Everything that is due at `now` becomes messages, and they go out."""
        await self.queues(now)
        await self.set_clock(now)
        for channel in ("email", "second_channel"):
            loop = self.loop(channel)
            while await loop.send_due():
                pass
        await self.rest()

    async def rest(self) -> None:
        for provider in self._providers:
            await provider.rest()
        self._providers.clear()

    async def states(self) -> list[tuple[int, str, str]]:
        """Version, stage and state of every reminder."""
        rows = await self.database.pool.fetch(
            "SELECT interaction_version, stage, state FROM reminders ORDER BY 1, 2"
        )
        return [tuple(row) for row in rows]

    async def deliveries(self) -> list[asyncpg.Record]:
        return await self.database.pool.fetch("SELECT * FROM deliveries ORDER BY message_id")

    async def said(self, kind: str = "") -> list[str]:
        """Types of the events in the outbox, in the order of saying, without `baza.` and `.v1`."""
        rows = await self.database.pool.fetch("SELECT type FROM outbox ORDER BY id")
        names = [row["type"].removeprefix("baza.").removesuffix(".v1") for row in rows]
        return [name for name in names if name.startswith(kind)]


def card(**changes: Any) -> ClientCard:
    known: dict[str, Any] = {
        "kind": "person",
        "full_name": "Анна Петрова",
        "status": "active",
        "email": "anna@example.test",
        "phones": ["+79215551234"],
    }
    return ClientCard(**(known | changes))


def client(client_id: UUID | None = None, *, version: int = 1, **changes: Any) -> Event:
    made = client_id or new_id()
    if version == 1:
        return ClientCreated(client_id=made, version=1, card=card(**changes), occurred_at=MONDAY)
    return ClientChanged(
        client_id=made,
        version=version,
        card=card(**changes),
        changed=sorted(changes),
        occurred_at=MONDAY,
    )


def planned(
    client_id: UUID,
    interaction_id: UUID,
    *,
    starts_at: datetime = MEETING,
    topic: str = "Подписание договора",
    kind: str = "meeting",
    version: int = 1,
    at: datetime = MONDAY,
) -> InteractionPlanned:
    return InteractionPlanned(
        interaction_id=interaction_id,
        client_id=client_id,
        version=version,
        kind=kind,
        starts_at=starts_at,
        topic_text=topic,
        occurred_at=at,
    )


def moved(
    client_id: UUID,
    interaction_id: UUID,
    *,
    starts_at: datetime,
    version: int = 2,
    at: datetime = MONDAY,
) -> InteractionMoved:
    return InteractionMoved(
        interaction_id=interaction_id,
        client_id=client_id,
        version=version,
        kind="meeting",
        previous_starts_at=MEETING,
        starts_at=starts_at,
        topic_text="Подписание договора",
        occurred_at=at,
    )


def cancelled(
    client_id: UUID, interaction_id: UUID, *, version: int = 2, at: datetime = MONDAY
) -> InteractionCancelled:
    return InteractionCancelled(
        interaction_id=interaction_id,
        client_id=client_id,
        version=version,
        reason="клиент заболел",
        occurred_at=at,
    )


def held(client_id: UUID, interaction_id: UUID, *, version: int = 2) -> InteractionHeld:
    return InteractionHeld(
        interaction_id=interaction_id,
        client_id=client_id,
        version=version,
        kind="meeting",
        held_at=MEETING - timedelta(hours=2),
        occurred_at=MEETING - timedelta(hours=2),
    )


@pytest.fixture(scope="session")
async def front() -> AsyncIterator[Front]:
    port = free_port()
    made = Front(port)
    config = uvicorn.Config(made, host="127.0.0.1", port=port, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:
            await asyncio.sleep(0.01)
    yield made
    server.should_exit = True
    await task


@pytest.fixture
async def post() -> AsyncIterator[PostOffice]:
    office = PostOffice()
    await office.open()
    yield office
    await office.close()


@pytest.fixture
async def notifications(
    fresh_database: FreshDatabase, post: PostOffice, front: Front, tmp_path: Path
) -> AsyncIterator[Notifications]:
    texts = front.put(receiver.SecondChannel(tmp_path / "messages.jsonl"))
    url = await fresh_database("notifications")
    async with Database.open(url, name="test", pool_size=4) as database:
        made = Notifications(
            database,
            Inbox(database, Dispatcher(SUBSCRIPTIONS)),
            Clock(sandbox=True),
            post,
            texts,
        )
        yield made
        await made.rest()


@pytest.fixture
async def second_worker(notifications: Notifications) -> AsyncIterator[Notifications]:
    """Another worker of the same service on the same database."""
    async with Database.open(notifications.database.dsn, name="second", pool_size=4) as database:
        made = Notifications(
            database,
            Inbox(database, Dispatcher(SUBSCRIPTIONS)),
            Clock(sandbox=True),
            notifications.post,
            notifications.receiver,
        )
        yield made
        await made.rest()


@dataclass
class Api:
    http: httpx.AsyncClient
    issuer: Issuer


@pytest.fixture
async def api(notifications: Notifications) -> AsyncIterator[Api]:
    async with Issuer().serving() as issuer:
        settings = NotificationsSettings(
            database_url=notifications.database.dsn,
            jwks_url=issuer.jwks_url,
            jwt_issuer=issuer.name,
            jwt_audience=AUDIENCE,
            database_pool=4,
            sandbox=True,
            webhook_secrets={"esp": [SecretStr(SECRET)]},
        )
        app = build(settings)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app),
                base_url="http://notifications",
                headers=issuer.bearer("admin"),
            ) as http,
        ):
            yield Api(http, issuer)

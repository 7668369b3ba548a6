"""The local mail server's storage: every mail that came is a file, none is sent on."""

import asyncio
import itertools
import os
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

MAX_BYTES = 20 * 1024 * 1024
_SENDER, _RECIPIENTS = "X-Envelope-From", "X-Envelope-To"


@dataclass(frozen=True)
class Mail:
    """A mail as people see it. `text` is its plain part, or its HTML source if that is all."""

    id: str
    received_at: datetime
    sender: str
    recipients: list[str]
    subject: str
    message_id: str
    text: str

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"received_at": self.received_at.isoformat()}


class Mailbox:
    """A folder of `.eml` files whose names sort by arrival."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._arrivals = itertools.count()

    def store(self, content: bytes, *, sender: str, recipients: list[str]) -> str:
        """Keep a mail with its envelope; whole or not at all, whatever crashes.

        Returns:
            The mail's id.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        mail_id = f"{stamp}-{next(self._arrivals):06d}-{uuid.uuid4().hex[:8]}"
        envelope = f"{_SENDER}: {sender}\r\n{_RECIPIENTS}: {', '.join(recipients)}\r\n"
        unfinished = self._folder / f".{mail_id}"
        unfinished.write_bytes(envelope.encode() + content)
        os.replace(unfinished, self._folder / f"{mail_id}.eml")
        return mail_id

    def list(self) -> list[Mail]:
        """Every mail, in the order of arrival."""
        return [_read(path) for path in sorted(self._folder.glob("*.eml"))]

    def find(self, mail_id: str) -> Mail | None:
        """One mail; the id is only compared with names that exist, never used as a path."""
        paths = (path for path in self._folder.glob("*.eml") if path.stem == mail_id)
        return next((_read(path) for path in paths), None)

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Take mails by SMTP. A mail is acknowledged when it lies in the folder."""
        loop = asyncio.get_running_loop()
        receiver = _Receiver(self)
        return await loop.create_server(
            lambda: SMTP(receiver, hostname="localhost", enable_SMTPUTF8=True,
                         data_size_limit=MAX_BYTES, loop=loop),
            host,
            port,
        )  # fmt: skip


class _Receiver:
    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def handle_DATA(  # noqa: N802 - the library's name
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        content = envelope.content
        body = content.encode() if isinstance(content, str) else content or b""
        mail_id = await asyncio.to_thread(
            self._mailbox.store,
            body,
            sender=envelope.mail_from or "",
            recipients=[str(address) for address in envelope.rcpt_tos],
        )
        return f"250 2.0.0 kept as {mail_id}"


def _read(path: Path) -> Mail:
    message = message_from_bytes(path.read_bytes(), policy=policy.default)
    stamp = datetime.strptime(path.name.split("-")[0], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    return Mail(
        id=path.stem,
        received_at=stamp,
        sender=_header(message, _SENDER),
        recipients=[part for part in _header(message, _RECIPIENTS).split(", ") if part],
        subject=_header(message, "Subject"),
        message_id=_header(message, "Message-ID"),
        text=_text(message),
    )


def _header(message: EmailMessage, name: str) -> str:
    try:
        return str(message.get(name, ""))
    except (ValueError, IndexError, AttributeError):  # the parser gives up on some broken headers
        return "(заголовок не читается)"


def _text(message: EmailMessage) -> str:
    body = message.get_body(preferencelist=("plain", "html"))
    if body is None:
        return ""
    try:
        return str(body.get_content())
    except (LookupError, ValueError):  # an unknown charset or transfer encoding
        payload = body.get_payload(decode=True)
        return payload.decode(errors="replace") if isinstance(payload, bytes) else ""

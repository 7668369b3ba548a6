"""Mail by SMTP: one plain-text letter to one address.

The Message-ID is the delivery's id, the same at each attempt. A letter can have no further header
and no further recipient, whatever a name, a topic or an address holds.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta
from email import policy
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr
from urllib.parse import unquote, urlsplit

from aiosmtplib import SMTP
from aiosmtplib.errors import SMTPException, SMTPResponseException

from services.notifications.rendering import single_line
from services.notifications.sending import Outcome, Outgoing, without_address

_POLICY = policy.SMTP.clone(max_line_length=76)


def sender_of(text: str) -> Address:
    """The sender out of `name <address>` or a bare address.

    Raises:
        ValueError: It is not an address.
    """
    name, address = parseaddr(text)
    if "@" not in address:
        raise ValueError("must be an address, or a name and an address in <>")
    try:
        return Address(display_name=name, addr_spec=address)
    except (MessageError, IndexError) as error:
        raise ValueError("the address cannot be read") from error


def letter(message: Outgoing, sender: Address) -> EmailMessage:
    """The mail.

    Raises:
        ValueError: The recipient's address is none.
    """
    made = EmailMessage(policy=_POLICY)
    made["From"] = sender
    made["To"] = recipient_of(message.address)
    made["Subject"] = single_line(message.subject)
    made["Message-ID"] = f"<{message.message_id}@{sender.domain}>"
    made["Auto-Submitted"] = "auto-generated"  # so that holiday answers are not sent to us
    made.set_content(message.body, cte="quoted-printable")
    return made


def recipient_of(address: str) -> Address:
    """One address; a domain in other letters (`пример.рф`) in the form that all servers know.

    Raises:
        ValueError: It is none, several, or has other letters before the @.
    """
    local, _, domain = address.rpartition("@")
    try:
        made = Address(addr_spec=f"{local}@{domain.encode('idna').decode()}")
    except (MessageError, IndexError) as error:
        raise ValueError("not an address") from error
    if made.username != local:
        raise ValueError("not a bare address")
    return made


class Mail:
    """Sends by one SMTP server; connections are kept while there is something to send.

    Args:
        url: `smtp[s]://[user:password@]host[:port]`. With a password the line must be encrypted.
    """

    def __init__(self, url: str, sender: str, timeout: timedelta) -> None:
        self._url = urlsplit(url)
        self._sender = sender_of(sender)
        self._timeout = timeout.total_seconds()
        self._idle: list[SMTP] = []

    async def send(self, message: Outgoing) -> Outcome:
        """Hand a letter over; what went wrong decides whether it is tried again."""
        try:
            made = letter(message, self._sender)
        except ValueError:
            return Outcome("refused", "address_invalid")
        client = self._idle.pop() if self._idle else self._client()
        progress = _Progress()
        try:
            async with asyncio.timeout(self._timeout):
                said = await _hand_over(client, made, progress)
        except SMTPResponseException as error:
            await self._keep_after_refusal(client)
            return _refusal(error, message, progress)
        except (SMTPException, OSError, TimeoutError, ValueError) as error:
            client.close()
            reason = f"smtp_unreachable: {type(error).__name__}"
            return Outcome("later", reason, may_have_gone=progress.text_began)
        self._idle.append(client)
        return Outcome("sent", provider_id=without_address(said, message))

    async def rest(self) -> None:
        """Close the connections; servers do not like idle ones."""
        idle, self._idle = self._idle, []
        for client in idle:
            with suppress(SMTPException, OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await client.quit()
            client.close()

    def _client(self) -> SMTP:
        encrypted = self._url.scheme == "smtps"
        user = self._url.username
        start_tls = False if encrypted else True if user else None  # None: if the server offers it
        return SMTP(
            hostname=self._url.hostname,
            port=self._url.port or (465 if encrypted else 25),
            username=unquote(user) if user else None,
            password=unquote(self._url.password) if self._url.password else None,
            use_tls=encrypted,
            start_tls=start_tls,
            timeout=self._timeout,
        )

    async def _keep_after_refusal(self, client: SMTP) -> None:
        try:
            async with asyncio.timeout(2):
                await client.rset()
            self._idle.append(client)
        except (SMTPException, OSError, TimeoutError):
            client.close()


class _Progress:
    about_this_letter = False
    text_began = False


async def _hand_over(client: SMTP, made: EmailMessage, progress: _Progress) -> str:
    """Say everything that SMTP wants to hear; the server's last word."""
    if not client.is_connected:
        await client.connect()
    await client.mail(made["From"].addresses[0].addr_spec)
    progress.about_this_letter = True  # a refused sender or password is our own fault, to be mended
    await client.rcpt(made["To"].addresses[0].addr_spec)
    progress.text_began = True
    return (await client.data(made.as_bytes())).message


def _refusal(error: SMTPResponseException, message: Outgoing, progress: _Progress) -> Outcome:
    """5xx about this letter is for ever; about us (greeting, password) or 4xx is not."""
    reason = f"smtp_{error.code}: {without_address(error.message, message)}"
    if error.code >= 500 and progress.about_this_letter:
        return Outcome("refused", reason)
    return Outcome("later", reason)

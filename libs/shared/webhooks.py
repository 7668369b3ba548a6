"""Requests that outside systems push to us: verified, stored as they came, processed later.

Signatures follow Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`, in the headers
`webhook-id`, `webhook-timestamp`, `webhook-signature`. The timestamp is compared with real time,
never with the sandbox clock: the sender does not live in the sandbox.

Source: https://www.standardwebhooks.com
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook

from libs.shared import failpoints
from libs.shared.database import Connection
from libs.shared.errors import NotFound, Unauthenticated

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
MAX_SIGNATURES = 10  # several: that is how a sender rotates its secret
_STORED_HEADERS = (ID, TIMESTAMP, "content-type", "user-agent")
# base64 decoders skip what is not of the alphabet, and the last character has bits that mean
# nothing. Without one fixed form a changed signature could still be taken for a good one.
_ONE_SIGNATURE = re.compile(r"v1,[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
_TIMESTAMP = re.compile(r"[1-9][0-9]{9,10}")
# No full stop: it separates the signed parts, so that they could be cut differently.
_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,255}")

_STORE = """
INSERT INTO webhook_requests (source, external_id, headers, body, received_at, due_at)
VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (source, external_id) DO NOTHING RETURNING true
"""


class SignatureInvalid(Unauthenticated):
    """The webhook's signature is missing, wrong or too old."""

    code = "signature-invalid"
    ru = "Подпись вебхука отсутствует, неверна или устарела."


class WebhookSourceUnknown(NotFound):
    """There is no webhook source with this name."""

    code = "webhook-source-unknown"
    ru = "Такого источника вебхуков нет."


def secrets_of(known: Mapping[str, Sequence[SecretStr]], source: str) -> list[str]:
    """The secrets that a source may sign with.

    Raises:
        WebhookSourceUnknown: No such source is set up.
    """
    if source not in known:
        raise WebhookSourceUnknown
    return [secret.get_secret_value() for secret in known[source]]


def verify(headers: Mapping[str, str], raw: bytes, secrets: Sequence[str]) -> str:
    """Check that one of the secrets has signed exactly these bytes within the last 5 minutes.

    Args:
        headers: Of the request; names in any case.
        raw: The body as it came, never parsed and written again.
        secrets: `whsec_...`, the present one and those being rotated out.

    Returns:
        The sender's id of this message: the same in every repetition.

    Raises:
        SignatureInvalid: Anything is wrong. What exactly is not told.
    """
    parts = _signed_parts({name.lower(): value for name, value in headers.items()})
    for secret in secrets:
        try:
            Webhook(secret).verify(raw, parts, json_parse=False)
        except Exception:  # noqa: S112  # the package leaks ValueError, binascii.Error and others
            continue
        return parts[ID]
    raise SignatureInvalid


def _signed_parts(given: Mapping[str, str]) -> dict[str, str]:
    """The three headers in their one accepted form; signatures of other schemes are left out."""
    identity, timestamp = given.get(ID, ""), given.get(TIMESTAMP, "")
    signatures = given.get(SIGNATURE, "")
    if not _ID.fullmatch(identity) or not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureInvalid
    ours = [one for one in signatures.split(" ") if one.startswith("v1,")]
    if not 0 < len(ours) <= MAX_SIGNATURES or not all(map(_ONE_SIGNATURE.fullmatch, ours)):
        raise SignatureInvalid
    return {ID: identity, TIMESTAMP: timestamp, SIGNATURE: " ".join(ours)}


def sign(secret: str, *, identity: str, raw: bytes, at: datetime) -> dict[str, str]:
    """Headers that let a receiver verify what we send.

    Args:
        at: Real time, aware.
    """
    moment = at.astimezone(UTC)
    return {
        ID: identity,
        TIMESTAMP: str(int(moment.timestamp())),
        SIGNATURE: Webhook(secret).sign(identity, moment, raw.decode()),
    }


async def store(
    connection: Connection,
    *,
    source: str,
    external_id: str,
    headers: Mapping[str, str],
    raw: bytes,
    received_at: datetime,
) -> bool:
    """Keep a verified request, due for processing at once; its signature is not kept.

    Returns:
        False when this message of this source is here already: answer 2xx and do nothing.
    """
    kept = {name: headers[name] for name in _STORED_HEADERS if name in headers}
    stored = await connection.fetchval(_STORE, source, external_id, kept, raw, received_at)
    failpoints.reach("webhook.stored")
    return stored is True

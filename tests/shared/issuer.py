"""A token issuer for tests: real keys, real HTTP, and it can be away."""

import asyncio
import base64
import hmac
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey

AUDIENCE = "baza"


def ec_key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid})


def ed_key(kid: str) -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"kid": kid})


def rsa_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid})


class Issuer:
    """Publishes `keys` at `jwks_url` while it is serving; counts how often it was asked."""

    def __init__(self) -> None:
        self.keys: list[Key] = [ec_key("one")]
        self.asked = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def name(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def jwks_url(self) -> str:
        return f"{self.name}/jwks.json"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Issuer"]:
        await self.come_back()
        try:
            yield self
        finally:
            await self.go_away()

    async def come_back(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def go_away(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        body = orjson.dumps(KeySet(self.keys).as_dict(private=False))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims of a good token; a change to None leaves the claim out."""
        now = int(time.time())
        made = {
            "iss": self.name,
            "aud": AUDIENCE,
            "sub": "user-1",
            "iat": now,
            "exp": now + 300,
            "roles": ["admin"],
        }
        return {name: value for name, value in (made | changes).items() if value is not None}

    def token(
        self,
        *roles: str,
        key: Key | None = None,
        algorithm: str = "ES256",
        manager_id: UUID | None = None,
        **changes: Any,
    ) -> str:
        """A signed token."""
        signer = key or self.keys[0]
        if roles:
            changes["roles"] = list(roles)
        if manager_id is not None:
            changes["manager_id"] = str(manager_id)
        return self.signed(key=signer, algorithm=algorithm, **changes)

    def signed(self, *, key: Key | None = None, algorithm: str = "ES256", **changes: Any) -> str:
        """A token with any claims at all, properly signed."""
        signer = key or self.keys[0]
        header = {"alg": algorithm} | ({"kid": signer.kid} if signer.kid else {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # EdDSA is an old name, not a danger
            return jwt.encode(header, self.claims(**changes), signer, algorithms=[algorithm])

    def bearer(self, *roles: str, **changes: Any) -> dict[str, str]:
        """The Authorization header with a token."""
        return {"Authorization": f"Bearer {self.token(*roles, **changes)}"}


def signed_with_the_public_key(issuer: Issuer) -> str:
    """The classic forgery: HMAC with the published key's text for a secret."""
    public = issuer.keys[0]
    assert isinstance(public, ECKey)
    parts = [{"alg": "HS256", "kid": public.kid, "typ": "JWT"}, issuer.claims()]
    text = ".".join(
        base64.urlsafe_b64encode(orjson.dumps(part)).decode().rstrip("=") for part in parts
    )
    made = hmac.digest(public.as_pem(private=False), text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(made).decode().rstrip('=')}"

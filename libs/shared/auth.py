"""Who is asking: bearer tokens of an OpenID issuer, and what each role may do.

Tokens are verified against the issuer's published keys. Keys are fetched once and again when a
token names an unknown one; while the issuer is away the known keys go on working. Token times are
compared with real time, never with the sandbox clock: the issuer does not live in the sandbox.

A token's claims: `sub`, `iss`, `aud`, `exp`, `roles` (list of `Role` values; unknown ones are
ignored) and, for people who sell, `manager_id` (UUID).
"""

import asyncio
import base64
import time
import warnings
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

import httpx
import orjson
import structlog
from fastapi import Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError, SecurityWarning
from joserfc.jwk import Key, KeySet

from libs.shared.errors import DomainError, Forbidden, Unauthenticated

ALGORITHMS = ("ES256", "RS256", "Ed25519", "EdDSA")
LEEWAY_SECONDS = 30  # how far the issuer's clock and ours may differ
MAX_TOKEN_CHARS = 8192
CACHED_TOKENS = 4096
REFRESH_SECONDS = 10.0  # keys are fetched at most this often, whatever tokens come in
FIRST_RETRY_SECONDS = 1.0  # while there are no keys yet: the issuer may be starting
KEYS_LIFETIME_SECONDS = 600.0  # then they are fetched again, so that withdrawn keys go away
FETCH_TIMEOUT_SECONDS = 3.0

log = structlog.get_logger()


class Role(StrEnum):
    """What somebody does here; `admin` passes everywhere."""

    MANAGER = "manager"
    SUPERVISOR = "supervisor"
    ANALYST = "analyst"
    MARKETER = "marketer"
    SUPPORT = "support"
    INTEGRATION = "integration"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """The verified caller.

    Attributes:
        subject: The token's `sub`: stable, never a name.
        manager_id: Who this is among the sales managers; None for everybody else.
    """

    subject: str
    roles: frozenset[Role]
    manager_id: UUID | None = None

    def has(self, *roles: Role) -> bool:
        """Whether the caller may do what any of these roles may do."""
        return Role.ADMIN in self.roles or not self.roles.isdisjoint(roles)


class TokenMissing(Unauthenticated):
    """Send a bearer token in the Authorization header."""

    code = "token-missing"
    ru = "Передайте токен доступа в заголовке Authorization."


class TokenExpired(Unauthenticated):
    """The token has expired; get a new one."""

    code = "token-expired"
    ru = "Срок действия токена истёк; получите новый."


class TokenInvalid(Unauthenticated):
    """The token is not valid here."""

    code = "token-invalid"
    ru = "Токен недействителен."


class RoleMissing(Forbidden):
    """Your role does not allow this."""

    code = "role-missing"


class IssuerAway(DomainError):
    """Tokens cannot be verified now: the issuer's keys are out of reach; try again soon."""

    status = 503
    code = "token-issuer-away"
    ru = "Сейчас нельзя проверить токен: сервер авторизации недоступен; повторите позже."


class Tokens:
    """Verifies tokens of one issuer for one audience. Safe to share by every request."""

    def __init__(
        self, client: httpx.AsyncClient, *, jwks_url: str, issuer: str, audience: str
    ) -> None:
        self._client = client
        self._jwks_url = jwks_url
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
        )
        self._keys: list[Key] = []
        self._fetched_at: float | None = None  # monotonic, of the last attempt
        self._fetching = asyncio.Lock()
        self._verified: OrderedDict[str, tuple[Principal, float]] = OrderedDict()

    @classmethod
    @asynccontextmanager
    async def open(cls, *, jwks_url: str, issuer: str, audience: str) -> AsyncIterator["Tokens"]:
        """Verify tokens while the block runs. The issuer need not be up yet."""
        async with httpx.AsyncClient(timeout=FETCH_TIMEOUT_SECONDS) as client:
            yield cls(client, jwks_url=jwks_url, issuer=issuer, audience=audience)

    async def verify(self, token: str) -> Principal:
        """The caller that a token speaks for.

        A verified token is remembered until it expires: checking a signature costs more than
        everything else a request does.

        Raises:
            TokenExpired: Its time is over.
            TokenInvalid: Anything else is wrong with it.
            IssuerAway: It cannot be judged, for no key was ever received.
        """
        known = self._verified.get(token)
        if known is not None:
            if time.time() < known[1]:
                return known[0]
            del self._verified[token]
            raise TokenExpired
        if len(token) > MAX_TOKEN_CHARS:
            raise TokenInvalid
        key, algorithm = await self._key_for(token)
        try:
            claims = _decoded(token, key, algorithm)
            self._claims.validate(claims)
            principal = _principal(claims)
        except ExpiredTokenError:
            raise TokenExpired from None
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
            log.info("token_refused", reason=type(error).__name__)
            raise TokenInvalid from None
        self._verified[token] = (principal, float(claims["exp"]) + LEEWAY_SECONDS)
        if len(self._verified) > CACHED_TOKENS:
            self._verified.popitem(last=False)
        return principal

    async def _key_for(self, token: str) -> tuple[Key, str]:
        header = _header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        # Before any key is looked at: `none` and HMAC with a public key are the classic forgeries.
        if algorithm not in ALGORITHMS or not isinstance(kid, str | None):
            raise TokenInvalid
        if self._fetched_at is None or (
            time.monotonic() - self._fetched_at > KEYS_LIFETIME_SECONDS
        ):
            await self._refresh()
        key = self._find(kid)
        if key is None:
            await self._refresh()
            key = self._find(kid)
        if key is None:
            raise TokenInvalid if self._keys else IssuerAway()
        return key, str(algorithm)

    def _find(self, kid: str | None) -> Key | None:
        if kid is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.kid == kid), None)

    async def _refresh(self) -> None:
        async with self._fetching:
            now = time.monotonic()
            pause = REFRESH_SECONDS if self._keys else FIRST_RETRY_SECONDS
            if self._fetched_at is not None and now - self._fetched_at < pause:
                return
            try:
                answer = await self._client.get(self._jwks_url)
                answer.raise_for_status()
                keys = list(KeySet.import_key_set(answer.json()))
            except (httpx.HTTPError, JoseError, ValueError, TypeError, KeyError) as error:
                log.warning("issuer_keys_not_fetched", reason=type(error).__name__)
            else:
                if {key.kid for key in keys} != {key.kid for key in self._keys}:
                    self._verified.clear()  # a withdrawn key's tokens must not live on
                self._keys = keys
            self._fetched_at = now


def _decoded(token: str, key: Key, algorithm: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        # RFC 9864 renamed EdDSA to Ed25519; issuers that still say EdDSA are no less safe.
        warnings.simplefilter("ignore", SecurityWarning)
        return jwt.decode(token, key, algorithms=[algorithm]).claims


def _header(token: str) -> dict[str, Any]:
    encoded = token.partition(".")[0]
    try:
        header = orjson.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except ValueError:
        raise TokenInvalid from None
    if not isinstance(header, dict):
        raise TokenInvalid
    return header


def _principal(claims: dict[str, Any]) -> Principal:
    given = claims.get("roles", [])
    if not isinstance(given, list):
        raise TypeError("roles is a list")
    known = {role.value: role for role in Role}
    manager_id = claims.get("manager_id")
    return Principal(
        subject=claims["sub"],
        roles=frozenset(known[name] for name in given if isinstance(name, str) and name in known),
        manager_id=None if manager_id is None else UUID(manager_id),
    )


class Requirement(SecurityBase):
    """The dependency that lets only some roles pass; made by `require`."""

    def __init__(self, roles: tuple[Role, ...]) -> None:
        self.roles = roles
        self.model = HTTPBearer(bearerFormat="JWT")
        self.scheme_name = "bearer"

    async def __call__(self, request: Request) -> Principal:
        """The caller, verified at most once a request.

        Raises:
            Unauthenticated: There is no valid token.
            RoleMissing: The caller has none of the roles.
        """
        principal: Principal | None = getattr(request.state, "principal", None)
        if principal is None:
            principal = await authenticate(request)
            request.state.principal = principal
        if self.roles and not principal.has(*self.roles):
            raise RoleMissing(roles=sorted(self.roles))
        return principal


def require(*roles: Role) -> Requirement:
    """Let only these roles in; without roles everybody who has a valid token. Admins always pass.

    Use it as `caller: Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR))]`.
    """
    return Requirement(roles)


async def authenticate(request: Request) -> Principal:
    """Verify the request's bearer token.

    Raises:
        Unauthenticated: It is missing, expired or not valid.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise TokenMissing
    tokens: Tokens = request.app.state.tokens
    return await tokens.verify(token.strip())

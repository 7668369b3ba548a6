"""The development token issuer: hands a signed token to whoever asks. For one machine only."""

import json
import threading
import time
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from joserfc import jwt
from joserfc.jwk import ECKey
from pydantic import BaseModel, ConfigDict, Field

from deploy.local.processes import write_atomically

AUDIENCE = "baza"
ALGORITHM = "ES256"

Name = Annotated[str, Field(min_length=1, max_length=200)]


class TokenRequest(BaseModel):
    """Whose token it is and what they may do."""

    model_config = ConfigDict(extra="forbid")

    subject: Name
    roles: list[Name]
    manager_id: Name | None = None
    seconds: Annotated[int, Field(ge=1, le=30 * 86_400)] = 3600  # how long it is valid


class Token(BaseModel):
    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - a kind, not a secret
    expires_in: int  # seconds


class TokenIssuer:
    """Signs with one ES256 key, made once and kept in `key_file`, so tokens outlive a restart."""

    def __init__(self, key_file: Path, issuer: str) -> None:
        self._issuer = issuer
        self._key = _load_key(key_file)
        self._lock = threading.Lock()

    def jwks(self) -> dict[str, list[dict[str, object]]]:
        return {"keys": [dict(self._key.as_dict(private=False))]}

    def issue(self, request: TokenRequest) -> Token:
        """Sign a token in real time: its life does not depend on the sandbox clock."""
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": self._issuer,
            "aud": AUDIENCE,
            "sub": request.subject,
            "roles": request.roles,
            "iat": now,
            "nbf": now,
            "exp": now + request.seconds,
        }
        if request.manager_id is not None:
            claims["manager_id"] = request.manager_id
        header = {"alg": ALGORITHM, "kid": self._key.kid, "typ": "JWT"}
        with self._lock:
            encoded = jwt.encode(header, claims, self._key, algorithms=[ALGORITHM])
        return Token(access_token=encoded, expires_in=request.seconds)

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route("/.well-known/jwks.json", self.jwks, methods=["GET"])
        router.add_api_route("/token", self.issue, methods=["POST"], response_model=Token)
        return router


def _load_key(path: Path) -> ECKey:
    if path.exists():
        return ECKey.import_key(json.loads(path.read_text()))
    key = ECKey.generate_key("P-256", {"use": "sig", "alg": ALGORITHM}, auto_kid=True)
    write_atomically(path, json.dumps(key.as_dict(private=True)), mode=0o600)
    return key

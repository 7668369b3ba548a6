"""Many items in one request: each is judged for itself, all good ones are one transaction.

A batch is read in one go instead of through FastAPI's body machinery, which takes longer for
thousands of items than the database does. The Idempotency-Key's answer is written in the
transaction of the effect, so a repeat finds both or neither.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar
from uuid import UUID

import orjson
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.responses import Response

from libs.shared import failpoints, idempotency
from libs.shared.database import Connection, Database
from libs.shared.errors import DomainError
from libs.shared.problems import JsonMalformed, problem_of
from libs.shared.request_bodies import demand_json

Item = TypeVar("Item", bound=BaseModel)
Frame = TypeVar("Frame", bound=BaseModel)
Made = TypeVar("Made")
Outcome = Literal["created", "exists", "refused"]


class BatchRefused(DomainError):
    """Not every item is acceptable, and the request wants all or nothing; nothing was done."""

    status = 422
    code = "batch-refused"
    ru = "Не все элементы приняты, а запрошено «всё или ничего»; ничего не сделано."


class ProblemView(BaseModel):
    """Why an item was refused; `pointer` leads to the place in the request."""

    code: str
    status: int
    detail: str
    ru: str
    pointer: str
    errors: list[dict[str, str]]


class BatchItemView(BaseModel):
    """What became of an item: `id` is there unless it was refused, `problem` if it was."""

    index: int
    outcome: Outcome
    id: UUID | None = None
    problem: ProblemView | None = None


class BatchView(BaseModel):
    """What became of each item, in the order of the request."""

    items: list[BatchItemView]
    created: int
    exists: int
    refused: int


@dataclass(slots=True)
class Batch(Generic[Item]):
    """A batch on its way: `items` are those still good, by their place in the request."""

    size: int
    items: dict[int, Item]
    _told: dict[int, dict[str, Any]] = field(default_factory=dict)
    _counts: dict[str, int] = field(
        default_factory=lambda: {"created": 0, "exists": 0, "refused": 0}
    )

    def refuse(self, index: int, error: DomainError) -> None:
        """Take an item out for a reason."""
        self.items.pop(index, None)
        told = {"index": index, "outcome": "refused", "problem": problem_at(index, error)}
        self._told[index] = told
        self._counts["refused"] += 1

    def settle(self, index: int, outcome: Outcome, identity: UUID) -> None:
        """Note what became of a good item."""
        self._told[index] = {"index": index, "outcome": outcome, "id": str(identity)}
        self._counts[outcome] += 1

    def settle_inserted(self, made: "Mapping[int, _Stored]", present: "Present") -> set[int]:
        """Note which rows are new and which were there before; the places of the new ones."""
        for index, row in made.items():
            if row.id in present.inserted:
                self.settle(index, "created", row.id)
            else:
                self.settle(index, "exists", present.by_external[row.source, row.external_id])
        return {index for index, row in made.items() if row.id in present.inserted}

    def demand_whole(self) -> None:
        """Check that nothing was refused.

        Raises:
            BatchRefused: Something was; `errors` says what.
        """
        refused = [told["problem"] for told in self._told.values() if "problem" in told]
        if refused:
            errors = [one for problem in refused for one in problem["errors"]]
            raise BatchRefused(errors=errors[:50], errors_total=len(errors))

    def answer(self) -> bytes:
        """The answer's body."""
        return orjson.dumps(
            {"items": [self._told[index] for index in range(self.size)], **self._counts}
        )


class _Stored(Protocol):
    """What a row to be inserted is known by."""

    @property
    def id(self) -> UUID: ...
    @property
    def source(self) -> str | None: ...
    @property
    def external_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Present:
    """Which rows were inserted, and the ids of those that were there by (source, external id)."""

    inserted: frozenset[UUID]
    by_external: Mapping[tuple[str | None, str | None], UUID]


async def find_present(
    tx: Connection, table: str, inserted: Iterable[UUID], rows: Iterable[Any]
) -> Present:
    """Look up the rows whose insertion was skipped because their external id is known."""
    new = frozenset(inserted)
    missing = [row for row in rows if row.id not in new]
    if not missing:
        return Present(new, {})
    found = await tx.fetch(
        f"SELECT id, source, external_id FROM {table} WHERE (source, external_id) IN"
        " (SELECT * FROM unnest($1::text[], $2::text[]))",
        [row.source for row in missing],
        [row.external_id for row in missing],
    )
    return Present(new, {(row["source"], row["external_id"]): row["id"] for row in found})


async def read_json(request: HttpRequest) -> Any:
    """The body's JSON, read as strictly as everywhere.

    Raises:
        ContentTypeUnsupported: It does not say that it is JSON.
        JsonMalformed: It is not.
    """
    demand_json(request)
    try:
        return await request.json()
    except json.JSONDecodeError:
        raise JsonMalformed from None


def parse(model: type[Frame], value: Any) -> Frame:
    """A value as a model.

    Raises:
        RequestValidationError: It does not fit; answered like any bad body.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError(_located(error, ("body",))) from None


def judge(items: list[Any], adapter: TypeAdapter[list[Item]]) -> Batch[Item]:
    """Items of the right form, and a refusal for each of the others."""
    batch: Batch[Item] = Batch(len(items), {})
    try:
        batch.items = dict(enumerate(adapter.validate_python(items)))
    except ValidationError as error:
        errors: dict[int, list[Any]] = {}
        for one in _located(error, ("body", "items")):
            errors.setdefault(one["loc"][2], []).append(one)
        good = [index for index in range(len(items)) if index not in errors]
        parsed = adapter.validate_python([items[index] for index in good])
        batch.items = dict(zip(good, parsed, strict=True))
        for index, found in errors.items():
            batch.refuse(index, problem_of(RequestValidationError(found)))
    return batch


def _located(error: ValidationError, where: tuple[str, ...]) -> list[Any]:
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return [{**one, "loc": (*where, *one["loc"])} for one in found]


def problem_at(index: int, error: DomainError) -> dict[str, Any]:
    """A problem as an item of a batch carries it."""
    place = f"/items/{index}"
    errors = [
        {**one, "pointer": one["pointer"] if one.get("in") else place + one["pointer"]}
        for one in error.members.get("errors", ())
    ]
    if not errors:
        errors = [{"pointer": place, "detail": error.detail, "code": error.code}]
    return {
        "code": error.code,
        "status": error.status,
        "detail": error.detail,
        "ru": error.ru,
        "pointer": errors[0]["pointer"],
        "errors": errors,
    }


def at_client(error: type[DomainError], pointer: str = "/client_id") -> DomainError:
    """A problem with the client that an item names."""
    place = {"pointer": pointer, "detail": error.summary(), "code": error.code}
    return error(errors=[place])


async def answer_once(
    database: Database,
    claim: idempotency.Claim | None,
    work: Callable[[Connection], Awaitable[bytes]],
    *,
    status: int = 200,
) -> Response:
    """Do the work in one transaction and answer with what it gives back; a repeat does nothing.

    Two at once with the same key: both work, one commits, the other gives the first one's answer.
    """
    async with database.pool.acquire() as connection:
        if claim is not None and (stored := await _answered(connection, claim)) is not None:
            return stored.response()
        try:
            async with connection.transaction():
                response = Response(await work(connection), status, media_type="application/json")
                if claim is not None:
                    await _remember(connection, claim, response)
                    failpoints.reach("idempotency.settled")
        except _Repeated:
            if claim is None:  # unreachable: only a claim is repeated
                raise
            return (await idempotency.stored_answer(connection, claim)).response()
    failpoints.reach("request.committed")
    database.wake.ring()
    return response


class _Repeated(Exception):
    """The same command was carried out by another request meanwhile."""


async def _answered(
    connection: Connection, claim: idempotency.Claim
) -> idempotency.StoredAnswer | None:
    try:
        return await idempotency.stored_answer(connection, claim)
    except idempotency.RequestInFlight:  # there is none yet
        return None


async def _remember(connection: Connection, claim: idempotency.Claim, response: Response) -> None:
    ours = await connection.fetchval(
        idempotency.INSERT_ANSWERED,
        *(claim.principal, claim.route, claim.key, claim.fingerprint),
        *(response.status_code, bytes(response.body), idempotency.kept_headers(response)),
    )
    if not ours:
        raise _Repeated


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its body by itself."""
    schema = model.model_json_schema()
    whole = _whole(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": whole}}}}


def _whole(schema: Any, parts: Mapping[str, Any]) -> Any:
    """A schema with its references replaced by what they refer to; none of ours is circular."""
    if isinstance(schema, list):
        return [_whole(one, parts) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if (name := schema.get("$ref", "").removeprefix("#/$defs/")) in parts:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _whole(parts[name], parts) | rest
    return {key: _whole(value, parts) for key, value in schema.items()}

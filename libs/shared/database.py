"""Database sessions: one transaction each, committed before anybody is answered.

Two ways to the same PostgreSQL. `session()` gives SQLAlchemy's ORM for ordinary reads and writes;
`transaction()` gives a bare asyncpg connection for hot paths, where set-based SQL over thousands
of rows is ten times faster than a unit of work. Both ring the service's bells after the commit.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from uuid import UUID

import asyncpg
import orjson
import structlog
from prometheus_client import Gauge
from sqlalchemy import MetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import AsyncAdaptedQueuePool

from libs.shared import failpoints
from libs.shared.wake import Wake

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

SERVER_SETTINGS = {
    "timezone": "UTC",
    "jit": "off",  # plans are short; compiling them costs more than it gives
    "idle_in_transaction_session_timeout": "30s",
    "lock_timeout": "10s",
    "statement_timeout": "120s",
    # A vanished host must not keep its locks for the two hours of the default keep-alive.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

BY_KEYS = "set_config('enable_seqscan', 'off', true)"
"""Part of a statement after which its transaction reads no table from end to end.

A plan is made once and kept. Made while three rows stand in a table it reads all of it for each key
that it is given, until the next ANALYZE: 2,000 purchases took 3.7 s so after 30,000 had come in
since, and take 55 ms.
"""
# The same for a session, whose plans are made for any number of keys from the first time on.
_BY_KEYS = {"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan"}

IN_USE = Gauge("database_pool_in_use", "Connections at work, at most database_pool", ["pool"])
SIZE = Gauge("database_pool_limit", "Connections that each pool may hold")


class TransientError(Exception):
    """The same work can succeed if it is tried again."""


_TRANSIENT = (
    TransientError,
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InternalClientError,
    asyncpg.InvalidCachedStatementError,  # a migration has changed a table under us
)

# Bound by quotes: the stubs make these generic, the classes themselves are not.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
"""A bare asyncpg connection, from a pool or not."""


def is_transient(error: BaseException) -> bool:
    """Whether the same work can succeed if tried again: an outage, a lock, a lost race.

    asyncpg calls an argument of a wrong type an InterfaceError too; that one never gets better.
    """
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    return isinstance(error, _TRANSIENT) and not isinstance(error, ValueError)


class _PooledConnection(asyncpg.Connection):
    """Given back without a round trip: nobody here changes a session's settings or listens on it.

    An open transaction is rolled back by the pool all the same.
    """

    def get_reset_query(self) -> str:
        return ""


def _in_use(engine: AsyncEngine) -> Callable[[], float]:
    pool = cast(AsyncAdaptedQueuePool, engine.pool)
    return pool.checkedout


AWAIT_SECONDS = 0.5

log = structlog.get_logger()

_HAS_WRITTEN = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"


def new_metadata() -> MetaData:
    """Metadata for one service's models, with constraint names that migrations can rely on."""
    return MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def dumps(value: Any) -> str:
    """JSON text of a value; dates, UUIDs and dataclasses included."""
    return json_bytes(value).decode()


def json_bytes(value: Any) -> bytes:
    """The same, for a bytea column."""
    return orjson.dumps(value, default=_asyncpg_uuid)


def _asyncpg_uuid(value: Any) -> str:
    """UUIDs that come from asyncpg are of a class of its own, which orjson does not know."""
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


async def bare(session: AsyncSession) -> Connection:
    """The asyncpg connection of a session that has begun its transaction with a statement."""
    fairy = await (await session.connection()).get_raw_connection()
    connection: Connection | None = fairy.driver_connection
    assert connection is not None  # noqa: S101  # it has just been used
    return connection


async def prepare_connection(connection: asyncpg.Connection) -> None:
    """Make jsonb columns travel as Python values on a bare asyncpg connection."""
    await connection.set_type_codec(
        "jsonb", encoder=dumps, decoder=orjson.loads, schema="pg_catalog"
    )


async def _connected(new_pool: Callable[[], asyncpg.Pool]) -> asyncpg.Pool:
    """Wait for a database that is away: dying and starting again would take it no less long.

    Raises:
        Exception: A fault that waiting does not mend, such as a wrong password.
    """
    told = False
    while True:
        try:
            return await new_pool()  # one that failed once is closed for good
        except Exception as error:
            if not is_transient(error):
                raise
            if not told:
                log.warning("database_awaited", error=type(error).__name__)
            told = True
            await asyncio.sleep(AWAIT_SECONDS)


class Database:
    """The pools of one process to its service's database.

    Attributes:
        pool: Of bare connections.
        by_keys: The same, with plans as after `BY_KEYS`; empty in processes that do not use it.
        sessions: The `application_name` of its sessions.
    """

    def __init__(
        self,
        dsn: str,
        engine: AsyncEngine,
        pool: asyncpg.Pool,
        by_keys: asyncpg.Pool,
        wake: Wake,
        *,
        sessions: str = "",
    ) -> None:
        self.dsn = dsn
        self.sessions = sessions
        self.engine = engine
        self.pool = pool
        self.by_keys = by_keys
        self.wake = wake
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, name: str, pool_size: int = 8) -> AsyncIterator["Database"]:
        """Connect for as long as the block runs.

        Args:
            url: `postgresql://role:password@host:port/database`.
            name: Shown in pg_stat_activity, with this process's place.
            pool_size: Upper bound of each pool.
        """
        dsn = "postgresql://" + url.split("://", 1)[1]
        sessions = f"{name} {socket.gethostname()[:24]} {os.getpid()}"
        settings = SERVER_SETTINGS | {"application_name": sessions}
        engine = create_async_engine(
            "postgresql+asyncpg://" + url.split("://", 1)[1],
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,  # errors are logged; parameters are names and phones
            json_serializer=dumps,
            json_deserializer=orjson.loads,
            connect_args={"server_settings": settings, "command_timeout": 120},
        )
        new_pool = partial(
            asyncpg.create_pool,
            dsn,
            max_size=pool_size,
            init=prepare_connection,
            connection_class=_PooledConnection,
            command_timeout=120,
            max_inactive_connection_lifetime=60,
        )
        pool = await _connected(lambda: new_pool(min_size=1, server_settings=settings))
        by_keys = await new_pool(min_size=0, server_settings=settings | _BY_KEYS)
        SIZE.set(pool_size)
        IN_USE.labels("asyncpg").set_function(lambda: pool.get_size() - pool.get_idle_size())
        IN_USE.labels("by keys").set_function(lambda: by_keys.get_size() - by_keys.get_idle_size())
        IN_USE.labels("sqlalchemy").set_function(_in_use(engine))
        try:
            async with Wake(dsn).running() as wake:
                yield cls(dsn, engine, pool, by_keys, wake, sessions=sessions)
        finally:
            await engine.dispose()
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await by_keys.close()
                    await pool.close()
            by_keys.terminate()
            pool.terminate()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """An ORM session in one transaction; commits when the block ends, rolls back on an error.

        The commit happens inside: code after the block may tell the outside world.
        """
        async with self._sessions() as session, session.begin():
            yield session
        self.wake.ring()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """An ORM session that only looks: nothing is committed, nobody is woken."""
        async with self._sessions() as session:
            yield session

    @asynccontextmanager
    async def transaction(self, *, is_known_to_write: bool = False) -> AsyncIterator[Connection]:
        """A bare asyncpg connection in one transaction; commits when the block ends.

        Only a transaction that wrote something rings the bells: a loop that looks for work in
        here and finds none must not wake itself up again.

        Args:
            is_known_to_write: Spares asking the database whether it wrote, which is a round trip.
        """
        async with self.pool.acquire() as connection, connection.transaction():
            yield connection
            failpoints.reach("transaction.done")
            wrote = is_known_to_write or await connection.fetchval(_HAS_WRITTEN)
        failpoints.reach("transaction.committed")
        if wrote:
            self.wake.ring()

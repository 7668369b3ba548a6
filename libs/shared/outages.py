"""What a connection of our own fails with while PostgreSQL goes away: it is to be made anew."""

import asyncpg

# A server that is killed in the middle of an answer can leave asyncpg with an error that is no
# InterfaceError: "cannot switch to state 12; another operation is in progress".
UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

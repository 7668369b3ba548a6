"""A load generator for one machine: keep-alive connections, no HTTP client in between.

An HTTP client of Python's costs more than what is measured here; both sides of a comparison are
driven by this one.
"""

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable

NewRequest = Callable[[], bytes]


def request(method: str, path: str, body: bytes, *headers: str) -> bytes:
    """The bytes of a request."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: bench",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Line:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> "Line":
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, limit=2**24
        )
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def send(self, raw: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._writer.write(raw)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return int(head[9:12]), await self._reader.readexactly(length)


async def rate(
    port: int, make: NewRequest, *, seconds: float, connections: int = 16, expected: int = 201
) -> float:
    """Answers a second of the expected status.

    Raises:
        RuntimeError: Another status came.
    """
    done = 0
    ends_at = time.perf_counter() + seconds

    async def drive() -> None:
        nonlocal done
        async with Line(port) as line:
            while time.perf_counter() < ends_at:
                status, body = await line.send(make())
                if status != expected:
                    raise RuntimeError(f"{status}: {body[:300]!r}")
                done += 1

    started = time.perf_counter()
    await asyncio.gather(*(drive() for _ in range(connections)))
    return done / (time.perf_counter() - started)


async def answers_at(
    port: int,
    path: str,
    process: "subprocess.Popen[bytes]",
    *,
    status: int | None = None,
    limit: float = 30,
) -> None:
    """Wait until a server answers, or answers with a certain status.

    Raises:
        RuntimeError: Its process has ended.
        TimeoutError: It does not answer in time.
    """

    async def poll() -> None:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}")
            try:
                async with Line(port) as line:
                    got, _ = await line.send(f"GET {path} HTTP/1.1\r\nhost: b\r\n\r\n".encode())
                if status in (None, got):
                    return
            except OSError:
                pass
            await asyncio.sleep(0.05)

    waiting: Awaitable[None] = poll()
    await asyncio.wait_for(waiting, limit)

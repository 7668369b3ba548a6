"""Settings that every service has. Each comes from the environment, prefix `BAZA_`.

A service adds its own by subclassing. Settings are made in `main.py` and `worker.py`, never at
import, so tests and tools can make their own. What a company wants to change while Baza runs is
policy (`policies.py`), not a setting.
"""

from datetime import timedelta
from typing import Annotated

from pydantic import AnyHttpUrl, Field, NonNegativeInt, PositiveInt, PostgresDsn
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Where a service's database, broker and token issuer are, and how big its pools are."""

    model_config = SettingsConfigDict(env_prefix="BAZA_", extra="ignore", frozen=True)

    database_url: PostgresDsn  # this service's own database and role
    database_pool: PositiveInt = 8  # connections a process may hold; 4 a core is best (measured)
    kafka: str = "127.0.0.1:9199"  # bootstrap servers, comma-separated host:port
    topic_prefix: str = ""  # in front of every topic and group: lets tests share a broker
    topic_partitions: PositiveInt = 4  # of topics made by us; never changed later: keys would move
    topic_replication: PositiveInt = 1
    jwks_url: AnyHttpUrl = AnyHttpUrl("http://127.0.0.1:8000/.well-known/jwks.json")
    jwt_issuer: str = "http://127.0.0.1:8000"
    jwt_audience: str = "baza"
    sandbox: bool = False  # True: the suite's clock can be advanced by API; never in production
    sandbox_offset_seconds: int = 0  # suite clock minus real clock, at the first start only
    worker_port: Annotated[int, Field(ge=0, le=65535)] = 0  # worker's /livez, /readyz, /metrics
    worker_host: str = "127.0.0.1"
    log_level: str = "INFO"
    otlp_endpoint: str | None = None  # OpenTelemetry collector, HTTP; None: no spans are exported
    max_body_bytes: PositiveInt = 4 * 1024 * 1024  # larger request bodies are refused with 413
    cors_origins: list[str] = []  # pages that may call from a browser, as JSON; default none
    consumer_batch: PositiveInt = 2000  # events in one transaction, at most
    fetch_wait_ms: NonNegativeInt = 100  # how long the broker may hold an empty fetch
    poison_limit: PositiveInt = 100  # bad events in a row that stop the consumer: a bad deploy
    watchdog_stuck_seconds: NonNegativeInt = 90  # a worker's part with work ends none; 0: off
    watchdog_blocked_seconds: NonNegativeInt = 30  # the event loop stands still; 0: off
    drain_seconds: NonNegativeInt = 3  # an API told to stop is unready and still answers, so long
    inbox_retention_days: PositiveInt = 30  # must exceed the topics' retention

    @property
    def watchdog_stuck(self) -> timedelta:
        """How long work may go on without finishing anything."""
        return timedelta(seconds=self.watchdog_stuck_seconds)

    @property
    def sandbox_offset(self) -> timedelta:
        """Suite clock minus real clock, at the first start of a sandbox."""
        return timedelta(seconds=self.sandbox_offset_seconds)

"""What a suite shall be: asked for by the caller, completed from the environment and the data."""

import base64
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy.local.databases import ServiceDatabase
from deploy.local.ports import SERVICES, Ports
from deploy.local.processes import write_atomically
from deploy.local.token_issuer import AUDIENCE

HOST = "127.0.0.1"
WEBHOOK_SOURCE = "site-form"
_PARTITIONS = 4
_RUNNERS_OWN = frozenset({"BAZA_POSTGRES", "BAZA_DATABASE_URL"})  # not a service's business


@dataclass(frozen=True)
class Secrets:
    """Made for one data folder and kept in it; worthless anywhere else."""

    database_passwords: Mapping[str, str]  # by service
    webhook: str  # `whsec_...`, signs the form webhooks

    @classmethod
    def of(cls, path: Path) -> "Secrets":
        """Read the file, or make it."""
        if path.exists():
            return cls(**json.loads(path.read_text()))
        made = cls(
            {service: secrets.token_urlsafe(24) for service in SERVICES},
            "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(),
        )
        write_atomically(path, json.dumps(asdict(made)), mode=0o600)
        return made


@dataclass(frozen=True)
class Plan:
    """Where everything of one suite is or will be.

    Attributes:
        services: Those that shall run; all four as a rule.
        empty: The suite begins with nothing.
        offset: Suite clock minus real clock at the first start; only for a sandbox.
        foreign_postgres: Superuser's URL of a server to use instead of an own one.
        foreign_kafka: Bootstrap servers of a cluster to use instead of an own one.
        label: Distinguishes an empty suite on somebody's own servers from what lasts there.
    """

    data: Path
    ports: Ports
    services: Sequence[str]
    nodes: int
    sandbox: bool
    empty: bool
    offset: timedelta
    secrets: Secrets
    foreign_postgres: str | None
    foreign_kafka: str | None
    label: str

    @classmethod
    def of(
        cls,
        data: Path,
        ports: Ports,
        *,
        services: Sequence[str] = SERVICES,
        nodes: int,
        sandbox: bool,
        clock_start: datetime | None,
        empty: bool,
    ) -> "Plan":
        now = datetime.now(UTC)
        return cls(
            data=data,
            ports=ports,
            services=services,
            nodes=nodes,
            sandbox=sandbox,
            empty=empty,
            offset=clock_start - now if clock_start else timedelta(0),
            secrets=Secrets.of(data / "secrets.json"),
            foreign_postgres=os.environ.get("BAZA_POSTGRES") or None,
            foreign_kafka=os.environ.get("BAZA_KAFKA") or None,
            label=f"{data.name}{now:%Y%m%d%H%M%S}",
        )

    @property
    def kafka(self) -> str:
        """Bootstrap servers."""
        own = ",".join(f"{HOST}:{port}" for port in self.ports.kafka_nodes(self.nodes))
        return self.foreign_kafka or own

    @property
    def topic_prefix(self) -> str:
        return f"{self.label}." if self.foreign_kafka and self.empty else ""

    @property
    def databases(self) -> dict[str, ServiceDatabase]:
        """Database and role of each service."""
        prefix = f"baza_{self.data.name}" if self.foreign_postgres and self.empty else "baza"
        return {
            service: ServiceDatabase(
                f"{prefix}_{service}", self.secrets.database_passwords[service]
            )
            for service in self.services
        }

    @property
    def outside_url(self) -> str:
        return f"http://{HOST}:{self.ports.outside}"

    def database_url(self, service: str) -> str:
        server = self.foreign_postgres or f"postgresql://{HOST}:{self.ports.postgres}/postgres"
        return self.databases[service].url(server)

    def environment_of_migrations(self) -> dict[str, str]:
        return _inherited() | {
            f"BAZA_{service.upper()}_DATABASE_URL": self.database_url(service)
            for service in self.services
        }

    def environment_of(self, service: str) -> dict[str, str]:
        """The whole environment of a service's two processes."""
        ours = {
            "BAZA_DATABASE_URL": self.database_url(service),
            "BAZA_KAFKA": self.kafka,
            "BAZA_TOPIC_PREFIX": self.topic_prefix,
            "BAZA_TOPIC_PARTITIONS": str(_PARTITIONS),
            "BAZA_TOPIC_REPLICATION": "1" if self.foreign_kafka else str(self.nodes),
            "BAZA_JWKS_URL": f"{self.outside_url}/.well-known/jwks.json",
            "BAZA_JWT_ISSUER": self.outside_url,
            "BAZA_JWT_AUDIENCE": AUDIENCE,
            "BAZA_SANDBOX": "true" if self.sandbox else "false",
            "BAZA_SANDBOX_OFFSET_SECONDS": str(round(self.offset.total_seconds())),
            "BAZA_WORKER_PORT": str(self.ports.worker(service)),
            # Nobody shares requests out between several APIs here, so none needs to be waited for.
            "BAZA_DRAIN_SECONDS": os.environ.get("BAZA_DRAIN_SECONDS", "0"),
        }
        if service == "contacts":
            ours["BAZA_WEBHOOK_SECRETS"] = json.dumps({WEBHOOK_SOURCE: [self.secrets.webhook]})
        if service == "notifications":
            ours["BAZA_SMTP_URL"] = f"smtp://{HOST}:{self.ports.smtp}"
            ours["BAZA_MAIL_FROM"] = "baza@example.test"
            ours["BAZA_SECOND_CHANNEL_URL"] = f"{self.outside_url}/second-channel/messages"
            ours["BAZA_RESCHEDULE_URL"] = f"{self.outside_url}/reschedule/{{interaction_id}}"
        return _inherited() | ours


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _RUNNERS_OWN}

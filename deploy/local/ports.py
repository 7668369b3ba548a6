"""Which port is whose on this machine; all of them on 127.0.0.1."""

import time
from dataclasses import dataclass, fields

from deploy.local.processes import POLL_SECONDS, LocalRunnerError, port_is_free

SERVICES = ("contacts", "scoring", "routing", "notifications")


@dataclass(frozen=True)
class Ports:
    """The suite's ports. `shifted` gives another set, so that two clones can run at once."""

    outside: int = 8000
    smtp: int = 8025
    contacts: int = 8001
    scoring: int = 8002
    routing: int = 8003
    notifications: int = 8004
    contacts_worker: int = 8101
    scoring_worker: int = 8102
    routing_worker: int = 8103
    notifications_worker: int = 8104
    postgres: int = 5499
    kafka: int = 9199  # a second and a third node take the next two
    kafka_controller: int = 9209  # and so here

    @classmethod
    def shifted(cls, base: int) -> "Ports":
        """All ports from `base` to `base` + 132 instead of the usual ones."""
        return cls(
            outside=base,
            smtp=base + 25,
            **{name: base + 1 + i for i, name in enumerate(SERVICES)},
            **{f"{name}_worker": base + 101 + i for i, name in enumerate(SERVICES)},
            postgres=base + 110,
            kafka=base + 120,
            kafka_controller=base + 130,
        )

    def api(self, service: str) -> int:
        return int(getattr(self, service))

    def worker(self, service: str) -> int:
        return int(getattr(self, f"{service}_worker"))

    def kafka_nodes(self, nodes: int) -> list[int]:
        return [self.kafka + i for i in range(nodes)]

    def controller_nodes(self, nodes: int) -> list[int]:
        return [self.kafka_controller + i for i in range(nodes)]

    def require_free(
        self, *, nodes: int, own_postgres: bool, own_kafka: bool, patience: float = 0.0
    ) -> None:
        """Check all ports that will be needed before anything is started.

        Args:
            patience: Seconds to wait for taken ports: a process killed a moment ago frees its
                sockets only when the kernel has taken it apart.

        Raises:
            LocalRunnerError: Names every port that is taken, and what to do.
        """
        wanted = {
            field.name: [int(getattr(self, field.name))]
            for field in fields(self)
            if not field.name.startswith(("postgres", "kafka"))
        }
        if own_postgres:
            wanted["postgres"] = [self.postgres]
        if own_kafka:
            wanted["kafka"] = self.kafka_nodes(nodes)
            wanted["kafka_controller"] = self.controller_nodes(nodes)
        deadline = time.monotonic() + patience
        while _taken(wanted) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        require_free(wanted)


def require_free(wanted: dict[str, list[int]]) -> None:
    """Check that nobody listens on the ports given by what they are for.

    Raises:
        LocalRunnerError: Names every port that is taken, and what to do.
    """
    taken = _taken(wanted)
    if taken:
        raise LocalRunnerError(
            f"Ports taken on 127.0.0.1: {', '.join(taken)}.\n"
            "Stop what listens there (a suite of this checkout: `make stop`), or take other ports: "
            "`--port-base 18000` (`make run ARGS='--port-base 18000'`)."
        )


def _taken(wanted: dict[str, list[int]]) -> list[str]:
    return [
        f"{port} ({name.replace('_', ' ')})"
        for name, ports in wanted.items()
        for port in ports
        if not port_is_free(port)
    ]

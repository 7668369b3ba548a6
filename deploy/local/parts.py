"""PostgreSQL and Kafka without the services, for developers who run those by hand."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.local.kafka import Kafka
from deploy.local.launch import bring_up
from deploy.local.ports import Ports, require_free
from deploy.local.postgres import Postgres


def run_parts(data: Path, ports: Ports, *, nodes: int, fast: bool) -> None:
    """Start both, print where they are, and keep them until SIGTERM or Ctrl-C."""
    require_free(
        {
            "postgres": [ports.postgres],
            "kafka": ports.kafka_nodes(nodes),
            "kafka controller": ports.controller_nodes(nodes),
        }
    )
    postgres = Postgres(data / "postgres", ports.postgres, fast=fast)
    kafka = Kafka(data / "kafka", ports.kafka_nodes(nodes), ports.controller_nodes(nodes))
    asked_to_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_stop.set())
    # The kernel ends the children with the thread that started them, so the pool stays open.
    with ThreadPoolExecutor(2) as pool:
        try:
            for started in [pool.submit(bring_up, part) for part in (postgres, kafka)]:
                started.result()
            print(f"BAZA_POSTGRES={postgres.url}\nBAZA_KAFKA={kafka.bootstrap}", flush=True)
            asked_to_stop.wait()
        finally:
            kafka.stop()
            postgres.stop()

"""Keeping Kafka's loaded classes: a broker is started once for that, and stopped again."""

import os
import tempfile
from pathlib import Path

from deploy.local.java import kept_classes
from deploy.local.kafka import Kafka
from deploy.local.processes import LocalRunnerError, free_ports, tail

_STOP_SECONDS = 60.0  # it writes the file then


def keep(path: Path | None = None) -> None:
    """Make the file that `java` looks for, unless it is there; those of other versions go.

    Raises:
        LocalRunnerError: The broker did not start, or its JVM cannot keep classes.
    """
    path = path or kept_classes()
    if path.exists():
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with tempfile.TemporaryDirectory(prefix="baza-kafka-") as folder:
        port, controller_port = free_ports(2)
        kafka = Kafka(Path(folder), [port], [controller_port], keep_classes_in=unfinished)
        try:
            kafka.start()
            kafka.await_ready()
            kafka.stop(_STOP_SECONDS)
            if not unfinished.exists():
                (node,) = kafka.nodes
                raise LocalRunnerError(f"This JVM does not keep classes.\n{tail(node.log)}")
            os.replace(unfinished, path)
        finally:
            kafka.stop()
            unfinished.unlink(missing_ok=True)
    for other in path.parent.glob("kafka-classes-*.aot"):
        if other != path:
            other.unlink(missing_ok=True)

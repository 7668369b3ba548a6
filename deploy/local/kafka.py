"""Apache Kafka in KRaft mode as child processes: one node, or three in one quorum.

Every node is broker and controller at once. A node's folder is formatted once and keeps the
topics, the groups' offsets and the cluster's metadata between runs.
"""

import base64
import json
import shutil
import socket
import struct
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from deploy.local import kafka_jars
from deploy.local.java import java
from deploy.local.processes import (
    LocalRunnerError,
    await_condition,
    end,
    kill,
    spawn,
    tail,
    write_atomically,
)

_OFFSETS_KEPT_MINUTES = 366 * 24 * 60  # of a group that is away; Kafka's own week is a holiday
# A killed broker of three loses its partitions after this long, and one that was killed alone
# may not come back sooner: the controller takes it for a twin of the one it still remembers.
_SESSION_MS = 3000
_HEARTBEAT_MS = 500

_LOGGING = """\
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd'T'HH:mm:ss.SSS} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.lifecycle.name = org.apache.kafka.common.utils.AppInfoParser
logger.lifecycle.level = info
"""


class KafkaNode:
    """One broker and controller; `start`, `await_ready`, `stop` and `kill` may be repeated."""

    def __init__(
        self,
        number: int,
        folder: Path,
        port: int,
        settings: dict[str, str],
        log: Path,
        *,
        keep_classes_in: Path | None = None,
    ) -> None:
        self.number = number
        self.port = port
        self.log = log
        self._folder = folder
        self._data = folder / "data"
        self._unfinished = folder / "data.unfinished"
        self.settings = settings
        self._keep_classes_in = keep_classes_in
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Start a formatted node, for the first time or after it was stopped or killed."""
        jars = kafka_jars.fetch()
        properties = self._folder / "server.properties"
        self._write(properties, self._data)
        logging = self._folder / "log4j2.properties"
        write_atomically(logging, _LOGGING)
        options = ("-Xms256m", "-Xmx512m", f"-Dlog4j2.configurationFile={logging}")
        command = java(jars, *options, keep_classes_in=self._keep_classes_in)
        argv = [*command, "kafka.Kafka", str(properties)]
        if self._child is not None:
            self._child.wait(10)  # it is dead: leaves no zombie
        self._child = spawn(argv, log=self.log, cwd=self._folder)

    def begin_format(self, cluster_id: str, jars: Sequence[Path]) -> None:
        """Format the node's folder if it is new; `finish_format` waits for the end of it.

        It is done under another name first: a crash leaves a whole folder or none.
        """
        if self._data.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._unfinished, ignore_errors=True)
        properties = self._folder / "format.properties"
        self._write(properties, self._unfinished)
        # One word: an id that begins with a dash would be taken for an option.
        arguments = ("format", f"--cluster-id={cluster_id}", "--config", str(properties))
        argv = [*java(jars, "-Xmx128m"), "kafka.tools.StorageTool", *arguments]
        self._child = spawn(argv, log=self.log, cwd=self._folder)

    def finish_format(self) -> None:
        if self._data.exists():
            return
        if self._running().wait(60) != 0:
            raise LocalRunnerError(f"Kafka's folder cannot be formatted.\n{tail(self.log)}")
        self._unfinished.rename(self._data)

    def await_ready(self, *, brokers: int, limit: float) -> None:
        """Wait until the node answers clients and knows of `brokers` live brokers."""
        await_condition(
            lambda: _live_brokers(self.port) >= brokers,
            alive=self.is_running,
            what=f"Kafka node {self.number}",
            log=self.log,
            limit=limit,
        )

    def begin_stop(self) -> None:
        """Ask the node to stop without waiting for it."""
        if self.is_running():
            self._running().terminate()

    def stop(self, limit: float = 30.0) -> bool:
        child, self._child = self._child, None
        return child is None or end(child, limit=limit)

    def kill(self) -> None:
        """Kill -9, as a crash would."""
        kill(self._running())
        self._child = None

    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise LocalRunnerError(f"Kafka node {self.number} was not started")
        return self._child

    def _write(self, properties: Path, data: Path) -> None:
        settings = self.settings | {"log.dirs": str(data)}
        write_atomically(properties, "".join(f"{k}={v}\n" for k, v in settings.items()))


class Kafka:
    """A cluster on 127.0.0.1 with its files in `folder`.

    Args:
        ports: For clients, one per node.
        controller_ports: For the quorum, one per node. Ports may change between runs, the number
            of nodes may not.
        logs: Folder of the nodes' output; `folder` by default.
        keep_classes_in: Where a node writes the classes it has loaded, when it stops.
    """

    def __init__(
        self,
        folder: Path,
        ports: Sequence[int],
        controller_ports: Sequence[int],
        *,
        logs: Path | None = None,
        keep_classes_in: Path | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in ports)
        self._identity = self.folder / "cluster.json"
        voters = ",".join(
            f"{number}@127.0.0.1:{port}" for number, port in enumerate(controller_ports, start=1)
        )
        self.nodes = [
            KafkaNode(
                number,
                self.folder / f"node-{number}",
                port,
                _settings(number, port, controller_port, voters, nodes=len(ports)),
                (logs or self.folder) / f"kafka-{number}.log",
                keep_classes_in=keep_classes_in,
            )
            for number, (port, controller_port) in enumerate(
                zip(ports, controller_ports, strict=True), start=1
            )
        ]

    def start(self) -> None:
        """Start every node; `await_ready` waits for them. Fetches the jars when they are missing.

        Raises:
            LocalRunnerError: No jars, or the folder was made for another number of nodes.
        """
        jars = kafka_jars.fetch()
        cluster_id = self._cluster_id()
        for node in self.nodes:
            node.begin_format(cluster_id, jars)
        for node in self.nodes:
            node.finish_format()
        for node in self.nodes:
            node.start()

    def await_ready(self, limit: float = 60.0) -> None:
        """Wait until every node answers and sees all the others."""
        for node in self.nodes:
            node.await_ready(brokers=len(self.nodes), limit=limit)

    def stop(self, limit: float = 30.0) -> bool:
        """Stop all nodes at once, cleanly where `limit` seconds suffice. Safe to call twice."""
        for node in self.nodes:
            node.begin_stop()
        return all([node.stop(limit) for node in self.nodes])

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def _cluster_id(self) -> str:
        if self._identity.exists():
            identity = json.loads(self._identity.read_text())
            if identity["nodes"] != len(self.nodes):
                raise LocalRunnerError(
                    f"{self.folder} was made for {identity['nodes']} Kafka node(s), not for "
                    f"{len(self.nodes)}: choose another data folder"
                )
            return str(identity["cluster_id"])
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        identity = {"cluster_id": cluster_id, "nodes": len(self.nodes)}
        write_atomically(self._identity, json.dumps(identity))
        return cluster_id


def _settings(
    number: int, port: int, controller_port: int, voters: str, *, nodes: int
) -> dict[str, str]:
    replication = str(min(nodes, 3))
    return {
        "process.roles": "broker,controller",
        "node.id": str(number),
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"CLIENT://127.0.0.1:{port}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "auto.create.topics.enable": "false",
        "num.partitions": "4",
        "default.replication.factor": replication,
        "min.insync.replicas": "2" if nodes > 1 else "1",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": replication,
        "offsets.retention.minutes": str(_OFFSETS_KEPT_MINUTES),
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": replication,
        "transaction.state.log.min.isr": "2" if nodes > 1 else "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": replication,
        "share.coordinator.state.topic.min.isr": "2" if nodes > 1 else "1",
        "group.initial.rebalance.delay.ms": "0",
        # Records carry the suite's clock, which in sandbox mode may stand in 1997 or in 2040:
        # a limit by age would delete the former at once, a limit to the future refuse the latter.
        "log.retention.ms": "-1",
        "log.message.timestamp.after.max.ms": str(2**63 - 1),
        "log.cleaner.threads": "1",
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),  # 128 MB of a small heap otherwise
        "num.network.threads": "2",
        "num.io.threads": "4",
        "broker.session.timeout.ms": str(_SESSION_MS),
        "broker.heartbeat.interval.ms": str(_HEARTBEAT_MS),
    }


def _live_brokers(port: int) -> int:
    """How many brokers a node lists, asked by a Metadata request for no topic; 0 if no answer."""
    client = b"baza-local"
    header = struct.pack(">hhih", 3, 1, 1, len(client)) + client  # key, version, correlation id
    request = header + struct.pack(">i", 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.makefile("rb").read(12)
    except OSError:
        return 0
    return int(struct.unpack(">iii", answer)[2]) if len(answer) == 12 else 0

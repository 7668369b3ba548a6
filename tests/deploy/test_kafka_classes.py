"""Kafka's classes are kept as they are once loaded: a broker starts with them, or without."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local import java, kafka_classes, kafka_jars
from deploy.local.kafka import Kafka
from deploy.local.processes import LocalRunnerError, free_ports

Start = Callable[[Path], Kafka]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a broker that finds its classes in this file."""
    started = []

    def start(classes: Path) -> Kafka:
        monkeypatch.setattr(java, "kept_classes", lambda: classes)
        port, controller_port = free_ports(2)
        kafka = Kafka(tmp_path / "broker", [port], [controller_port])
        started.append(kafka)
        kafka.start()
        kafka.await_ready()
        return kafka

    yield start
    for kafka in started:
        kafka.stop()


def are_of_use(classes: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a JVM that may not go on without them starts with these classes."""
    monkeypatch.setattr(java, "kept_classes", lambda: classes)
    command = java.java(kafka_jars.fetch(), "-Xmx128m", "-XX:AOTMode=on")
    told = subprocess.run([*command, "kafka.tools.StorageTool", "random-uuid"], check=False)
    return told.returncode == 0


def test_a_broker_starts_with_the_classes_that_another_has_kept(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes, of_another_version = tmp_path / "kept.aot", tmp_path / "kafka-classes-0.aot"
    of_another_version.write_bytes(b"no classes")
    assert not are_of_use(of_another_version, monkeypatch)

    kafka_classes.keep(classes)

    assert are_of_use(classes, monkeypatch)
    assert start(classes).nodes[0].is_running()
    assert [path.name for path in tmp_path.glob("*.aot*")] == ["kept.aot"]


def test_what_is_kept_is_not_made_again(tmp_path: Path) -> None:
    classes = tmp_path / "kept.aot"
    classes.write_bytes(b"kept")

    kafka_classes.keep(classes)

    assert classes.read_bytes() == b"kept"


@pytest.mark.parametrize("content", [b"", b"no classes at all" * 10_000])
def test_a_broker_starts_without_a_file_that_is_broken(
    tmp_path: Path, start: Start, content: bytes
) -> None:
    classes = tmp_path / "kept.aot"
    classes.write_bytes(content)

    assert start(classes).nodes[0].is_running()


def test_a_broker_that_does_not_keep_them_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(Kafka):
        def __init__(self, *arguments: object, keep_classes_in: Path) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(kafka_classes, "Kafka", Forgetful)

    with pytest.raises(LocalRunnerError, match="does not keep classes"):
        kafka_classes.keep(tmp_path / "kept.aot")

    assert not list(tmp_path.iterdir())

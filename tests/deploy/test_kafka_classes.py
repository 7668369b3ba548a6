"""Kafka's classes are kept as they are once loaded: a broker starts with them, or without."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local import java, kafka_classes
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


def maps(kafka: Kafka) -> str:
    (node,) = kafka.nodes
    return Path(f"/proc/{node.pid}/maps").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has mapped is told in /proc")
def test_a_broker_starts_with_the_classes_that_another_has_kept(
    tmp_path: Path, start: Start
) -> None:
    classes, of_another_version = tmp_path / "kept.aot", tmp_path / "kafka-classes-0.aot"
    of_another_version.touch()

    kafka_classes.keep(classes)
    kafka = start(classes)

    assert str(classes) in maps(kafka)
    assert [path.name for path in tmp_path.glob("*.aot*")] == ["kept.aot"]
    assert not of_another_version.exists()


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

"""Apache Kafka from pip packages alone: survives a kill -9, keeps to its cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.local.kafka import Kafka
from deploy.local.processes import LocalRunnerError, free_ports

TOPIC = "kept"


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Kafka]:
    ports = free_ports(2)
    kafka = Kafka(tmp_path, ports[:1], ports[1:])
    kafka.start()
    kafka.await_ready()
    yield kafka
    kafka.stop()


async def make_topic(kafka: Kafka) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def send(kafka: Kafka, value: bytes, *, at_milliseconds: int) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, enable_idempotence=True, compression_type="lz4"
    )
    await producer.start()
    try:
        await producer.send_and_wait(TOPIC, value, timestamp_ms=at_milliseconds)
    finally:
        await producer.stop()


async def read(kafka: Kafka, count: int) -> list[bytes | None]:
    consumer = AIOKafkaConsumer(
        TOPIC, bootstrap_servers=kafka.bootstrap, group_id="reader", auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_a_killed_broker_comes_back_with_what_it_acknowledged(kafka: Kafka) -> None:
    await make_topic(kafka)
    await send(kafka, b"from 1997", at_milliseconds=852_076_800_000)
    await send(kafka, b"from 2040", at_milliseconds=2_208_988_800_000)

    kafka.kill()
    kafka.start()
    kafka.await_ready()

    assert await read(kafka, 2) == [b"from 1997", b"from 2040"]


def test_a_folder_keeps_to_its_number_of_nodes(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text('{"cluster_id": "5L6g3nShT-eMCtK--X86sw", "nodes": 1}')
    ports = free_ports(6)

    with pytest.raises(LocalRunnerError, match=r"made for 1 Kafka node\(s\), not for 3"):
        Kafka(tmp_path, ports[:3], ports[3:]).start()

"""A cluster id may begin with a dash, one in 64 does."""

from pathlib import Path

from deploy.local.kafka import Kafka
from deploy.local.kafka_jars import fetch
from tests.conftest import free_port


def test_an_id_that_begins_with_a_dash_is_not_taken_for_an_option(tmp_path: Path) -> None:
    broker = Kafka(tmp_path, ports=[free_port()], controller_ports=[free_port()])
    (node,) = broker.nodes

    node.begin_format("-5DBTMm5TFe5CEBKY3zwgA", fetch())
    node.finish_format()

    assert "-5DBTMm5TFe5CEBKY3zwgA" in next(tmp_path.rglob("meta.properties")).read_text()

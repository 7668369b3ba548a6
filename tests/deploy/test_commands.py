"""What is typed wrong is told in a line, never as a traceback."""

import asyncio
from pathlib import Path

import pytest

from deploy.local import __main__ as commands
from deploy.local.doors import require_listener
from deploy.local.processes import LocalRunnerError, free_ports


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["deploy.local", *words])
    try:
        return commands.main()
    except SystemExit as stopped:
        return int(stopped.code or 0)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["run", "--port-base", "70000"], 2, "a number from 1024 to 65000"),
        (["run", "--port-base", "80"], 2, "a number from 1024 to 65000"),
        (["run", "--port-base", "x"], 2, "a number from 1024 to 65000"),
        (["token", "anna", "god"], 2, "invalid choice"),
        (["token", "anna", "manager", "--manager-id", "7"], 2, "--manager-id"),
        (["advance", "15"], 2, "such as 15m"),
    ],
)
def test_a_word_that_makes_no_sense_is_refused(
    words: list[str],
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *words) == code
    assert told in capsys.readouterr().err


def test_a_data_folder_that_cannot_be_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")

    assert run(monkeypatch, "run", "--data", str(tmp_path / "file" / "run")) == 1

    assert "The data folder cannot be used" in capsys.readouterr().err


async def test_a_broker_of_ones_own_that_is_not_there_is_told_at_once() -> None:
    nobody = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))

    with pytest.raises(LocalRunnerError, match="BAZA_KAFKA"):
        await require_listener("Kafka (BAZA_KAFKA)", nobody, seconds=0.1)


async def test_one_of_several_addresses_is_enough() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        (nobody,) = free_ports(1)
        await require_listener("Kafka", f"127.0.0.1:{nobody}, 127.0.0.1:{port}", seconds=0.1)

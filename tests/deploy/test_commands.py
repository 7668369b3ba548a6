"""What is typed wrong is told in a line, never as a traceback."""

from pathlib import Path

import pytest

from deploy.local import __main__ as commands


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

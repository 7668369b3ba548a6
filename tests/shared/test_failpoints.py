"""Failpoints: each is reached from somewhere, armed ones kill once, production has none."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from libs.shared import failpoints

ROOT = Path(__file__).resolve().parents[2]
_REACH = "f.reach('relay.read'); "
REACH_TWICE = f"from libs.shared import failpoints as f; {_REACH * 2}"


def test_every_point_is_reached_from_the_code_and_no_other() -> None:
    files = [path for folder in ("libs", "services") for path in (ROOT / folder).rglob("*.py")]
    code = "".join(path.read_text() for path in files)
    assert set(re.findall(r'failpoints\.reach\("([^"]+)"\)', code)) == set(failpoints.POINTS)


def test_without_a_folder_nothing_is_looked_up() -> None:
    assert failpoints.reach is failpoints._pass


def run(folder: Path | None) -> subprocess.CompletedProcess[bytes]:
    environment = {k: v for k, v in os.environ.items() if k != "BAZA_FAILPOINTS"}
    if folder is not None:
        environment["BAZA_FAILPOINTS"] = str(folder)
    return subprocess.run(
        [sys.executable, "-c", REACH_TWICE], cwd=ROOT, env=environment, check=False, timeout=30
    )


def test_an_armed_point_kills_one_process_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "armed").mkdir()
    (tmp_path / "armed" / "relay.read").touch()

    assert run(tmp_path).returncode == -signal.SIGKILL
    assert run(tmp_path).returncode == 0
    crashes = (tmp_path / "crashes").read_text().splitlines()
    assert [line.split()[0] for line in crashes] == ["relay.read"]


def test_nothing_dies_where_no_folder_is_given(tmp_path: Path) -> None:
    (tmp_path / "armed").mkdir()
    (tmp_path / "armed" / "relay.read").touch()

    assert run(None).returncode == 0

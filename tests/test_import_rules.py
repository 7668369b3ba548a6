"""The import rules hold, and they bite: a forbidden import in a copy of the code is found."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LINT), "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("services", "libs", "deploy"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_code_keeps_its_import_rules(copy: Path) -> None:
    checked = lint(copy)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("place", "line", "contract"),
    [
        ("services/routing/desk.py", "import services.scoring.rfm", "never import each other"),
        ("libs/shared/clock.py", "import services.routing.models", "knows no service"),
        ("services/scoring/ageing.py", "import deploy.local.suite", "how they are deployed"),
        ("services/scoring/ageing.py", "import aiokafka", "talks to Kafka"),
        ("services/scoring/rfm.py", "import sqlalchemy", "Rules are pure"),
        (
            "services/routing/choosing/strategies.py",
            "import libs.shared.database",
            "Rules are pure",
        ),
        ("services/scoring/standing.py", "import services.scoring.api", "Doors open inwards"),
    ],
)
def test_a_forbidden_import_is_found(copy: Path, place: str, line: str, contract: str) -> None:
    file = copy / place
    file.write_text(file.read_text() + f"\n{line}\n")

    checked = lint(copy)

    assert checked.returncode == 1
    broken = [told for told in checked.stdout.splitlines() if " BROKEN" in told]
    assert any(contract in told for told in broken), checked.stdout

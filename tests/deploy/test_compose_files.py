"""The Compose files follow the Compose specification, and keep what they promise about isolation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests.deploy.deployment_files import DEPLOY, interpolated, parse_command

FILES = sorted((DEPLOY / "compose").glob("*.yaml"))
VALUES = {"RECONSENT_DATA": "/srv/scans"}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def text(request: pytest.FixtureRequest) -> str:
    path: Path = request.param
    return interpolated(path.read_text(encoding="utf-8"), VALUES)


@pytest.fixture
def service(text: str) -> dict[str, Any]:
    (only,) = yaml.safe_load(text)["services"].values()
    return dict(only)


def test_files_follow_the_compose_specification(text: str) -> None:
    """A parser of the specification accepts every file."""
    assert len(PyCompose.from_yaml(text).service_names()) == 1


def test_the_parser_refuses_what_the_specification_does_not_know(text: str) -> None:
    """A misspelt key would not go unseen: the check above can fail."""
    with pytest.raises(ValueError, match="helthcheck"):
        PyCompose.from_yaml(text.replace("healthcheck:", "helthcheck:"))


def test_whatever_a_service_refers_to_is_declared(text: str, service: dict[str, Any]) -> None:
    """Networks, volumes, configs and secrets of a service stand in their own tables."""
    table = yaml.safe_load(text)
    named = [v.split(":")[0] for v in service["volumes"] if isinstance(v, str)]
    configs = [config["source"] for config in service["configs"]]
    assert set(service["networks"]) == set(table["networks"])
    assert set(named) == set(table["volumes"])
    assert set(configs) == set(table["configs"])
    assert set(service["secrets"]) == set(table["secrets"])


def test_containers_are_confined(service: dict[str, Any]) -> None:
    """No root, no capabilities, no new privileges, a read-only root, no core dumps, limited memory."""
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["ulimits"]["core"] == 0
    assert service["mem_limit"]
    assert "privileged" not in service
    assert "network_mode" not in service


def test_only_the_sites_port_is_published() -> None:
    """Flower's commands, which ask for no password, and health are not reachable from outside."""
    tables = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES}
    assert tables["server"]["services"]["superlink"]["ports"] == ["9092:9092"]
    assert "ports" not in tables["site"]["services"]["site"]


def test_scans_and_policy_are_mounted_read_only() -> None:
    """A node can change neither the patients' data nor what it is allowed."""
    site = yaml.safe_load((DEPLOY / "compose" / "site.yaml").read_text(encoding="utf-8"))["services"]["site"]
    mounts = {m["target"]: m for m in site["volumes"] if isinstance(m, dict)}
    assert set(mounts) == {"/data", "/etc/reconsent/policy"}
    assert all(mount["read_only"] is True for mount in mounts.values())


def test_commands_are_those_of_the_program(service: dict[str, Any]) -> None:
    """The program has the command and its options."""
    parse_command(service["command"])


def test_a_missing_data_directory_is_said() -> None:
    """Without RECONSENT_DATA Compose stops with a sentence, instead of mounting something else."""
    with pytest.raises(KeyError, match="directory of scans"):
        interpolated((DEPLOY / "compose" / "site.yaml").read_text(encoding="utf-8"), {})

"""The Compose files follow the Compose specification, and keep what they promise about isolation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests.deploy.deployment_files import DEPLOY, interpolated, parse_command, yaml_documents
from tests.deploy.test_prometheus_files import needs_promtool, promtool

COMPOSE = DEPLOY / "compose"
FILES = sorted(COMPOSE.glob("*.yaml"))
VALUES = {"RECONSENT_DATA": "/srv/scans"}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def text(request: pytest.FixtureRequest) -> str:
    path: Path = request.param
    return interpolated(path.read_text(encoding="utf-8"), VALUES)


def services(path: Path) -> dict[str, dict[str, Any]]:
    """The services of a file, by name."""
    table = yaml.safe_load(interpolated(path.read_text(encoding="utf-8"), VALUES))
    return dict(table["services"])


SERVICES = {f"{path.stem}-{name}": service for path in FILES for name, service in services(path).items()}
OURS = {name: s for name, s in SERVICES.items() if s["image"].startswith("reconsent")}


@pytest.fixture(params=SERVICES.values(), ids=SERVICES.keys())
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def test_files_follow_the_compose_specification(text: str) -> None:
    """A parser of the specification accepts every file."""
    assert set(PyCompose.from_yaml(text).service_names()) == set(yaml.safe_load(text)["services"])


def test_the_parser_refuses_what_the_specification_does_not_know(text: str) -> None:
    """A misspelt key would not go unseen: the check above can fail."""
    with pytest.raises(ValueError, match="helthcheck"):
        PyCompose.from_yaml(text.replace("healthcheck:", "helthcheck:"))


def test_whatever_a_service_refers_to_is_declared(text: str) -> None:
    """Networks, volumes, configs and secrets of the services stand in their own tables, and no others."""
    table = yaml.safe_load(text)
    named: dict[str, set[str]] = {"networks": set(), "volumes": set(), "configs": set(), "secrets": set()}
    for service in table["services"].values():
        named["networks"] |= set(service["networks"])
        named["configs"] |= {config["source"] for config in service.get("configs", [])}
        named["secrets"] |= set(service.get("secrets", []))
        mounts = [v if isinstance(v, dict) else {"source": v.split(":")[0]} for v in service["volumes"]]
        named["volumes"] |= {mount["source"] for mount in mounts if mount.get("type") != "bind"}
    for kind, names in named.items():
        assert names == set(table.get(kind, {})), kind


def test_files_that_are_mounted_are_in_the_tree() -> None:
    """Rules, dashboards, provisioning and Prometheus' configuration are found where they are looked for."""
    for service in services(COMPOSE / "monitoring.yaml").values():
        for mount in service["volumes"]:
            if isinstance(mount, dict):
                assert mount["read_only"] is True
                assert (COMPOSE / mount["source"]).exists(), mount


@needs_promtool
def test_prometheus_accepts_what_its_container_is_given(tmp_path: Path) -> None:
    """With everything mounted where it is in the container, `promtool check config` finds the rules."""
    for mount in services(COMPOSE / "monitoring.yaml")["prometheus"]["volumes"]:
        if isinstance(mount, dict):
            target = tmp_path / mount["target"].removeprefix("/etc/prometheus/")
            target.symlink_to((COMPOSE / mount["source"]).resolve())
    done = promtool("check", "config", "prometheus.yml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


def test_prometheus_asks_the_exporter_beside_it() -> None:
    """The scraped address is the service's name and port, on a network that both are in."""
    (scraped,) = yaml_documents(COMPOSE / "prometheus.yml")[0]["scrape_configs"][0]["static_configs"]
    exporter = services(COMPOSE / "server.yaml")["metrics"]
    prometheus = services(COMPOSE / "monitoring.yaml")["prometheus"]
    assert scraped["targets"] == [f"metrics:{exporter['command'][-1].rpartition(':')[2]}"]
    assert set(exporter["networks"]) & set(prometheus["networks"])
    (source,) = yaml_documents(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")[0]["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_dashboards_are_mounted_where_grafana_looks_for_them() -> None:
    """The provisioning names the directory that Compose mounts."""
    (provider,) = yaml_documents(DEPLOY / "grafana/provisioning/dashboards/reconsent.yaml")[0]["providers"]
    mounts = services(COMPOSE / "monitoring.yaml")["grafana"]["volumes"]
    targets = {mount["target"] for mount in mounts if isinstance(mount, dict)}
    assert provider["options"]["path"] in targets


def test_containers_are_confined(service: dict[str, Any]) -> None:
    """No root, no capabilities, no new privileges, a read-only root, no core dumps, limited memory."""
    assert service["user"] in ("10001:10001", "65534:65534", "472:0")  # ours, Prometheus', Grafana's
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
    published = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}
    assert published.pop("server-superlink") == ["9092:9092"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert set(published) == {"site-metrics", "monitoring-grafana", "console-console"}
    for name in ("server", "monitoring"):
        assert tables[name]["networks"]["monitoring"] == {"internal": True}


def test_the_console_shares_the_servers_state_and_nothing_else() -> None:
    """Its volume is the server's; sites and Prometheus are in other networks; it has TLS of its own."""
    server, console = (services(COMPOSE / f"{name}.yaml") for name in ("server", "console"))
    names = {yaml_documents(COMPOSE / f"{name}.yaml")[0]["name"] for name in ("server", "console")}
    assert names == {"reconsent-server"}
    assert console["console"]["volumes"] == server["superlink"]["volumes"]
    assert not {n for s in server.values() for n in s["networks"]} & set(console["console"]["networks"])
    assert "server.key" not in console["console"]["secrets"]
    parameters = parse_command(console["console"]["command"]).params
    assert [str(parameters[name]) for name in ("certificate", "key")] == [
        f"/run/secrets/{name}" for name in console["console"]["secrets"]
    ]


def test_scans_and_policy_are_mounted_read_only() -> None:
    """A node can change neither the patients' data nor what it is allowed."""
    site = yaml.safe_load((DEPLOY / "compose" / "site.yaml").read_text(encoding="utf-8"))["services"]["site"]
    mounts = {m["target"]: m for m in site["volumes"] if isinstance(m, dict)}
    assert set(mounts) == {"/data", "/etc/reconsent/policy"}
    assert all(mount["read_only"] is True for mount in mounts.values())


def test_a_sites_exporter_sees_neither_scans_nor_key() -> None:
    """It has log and policy, and both read-only."""
    exporter = services(COMPOSE / "site.yaml")["metrics"]
    assert "secrets" not in exporter
    assert {mount["target"] for mount in exporter["volumes"]} == {
        "/var/lib/reconsent",
        "/etc/reconsent/policy",
    }
    assert all(mount["read_only"] is True for mount in exporter["volumes"])


@pytest.mark.parametrize("name", OURS)
def test_commands_are_those_of_the_program(name: str) -> None:
    """The program has the command and its options."""
    parse_command(OURS[name]["command"])


def test_a_missing_data_directory_is_said() -> None:
    """Without RECONSENT_DATA Compose stops with a sentence, instead of mounting something else."""
    with pytest.raises(KeyError, match="directory of scans"):
        interpolated((DEPLOY / "compose" / "site.yaml").read_text(encoding="utf-8"), {})

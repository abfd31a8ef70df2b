"""The server's command: it checks before it starts, and what it becomes is reached as it should be."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from deploy import probe
from deploy.certificates import make_certificates
from deploy.flower_control import FlowerControl
from deploy.health import status
from deploy.layout import Layout
from deploy.local_consortium import LocalConsortium
from deploy.ports import find_ports
from deploy.processes import MARK
from deploy.superlink import SuperLinkSettings, prepare_superlink, settle_superlink
from deploy.superlink_health import SuperLinkHealth, superlink_health
from reconsent.config import dump_consortium, load_consortium
from reconsent.errors import ConfigError, DeployError, StateError
from server.persistence.lock import is_held
from tests.deploy.deployment_files import flower_options
from tests.integration.operator_at_work import Operator


@pytest.fixture
def settings(tmp_path: Path) -> SuperLinkSettings:
    """Of a server with certificates, on ports that are free."""
    make_certificates(Layout(tmp_path / "state").tls, ["superlink.example"])
    api, fleet, health = find_ports([None, None, None])
    return SuperLinkSettings(
        state=tmp_path / "state",
        consortium="tiny",
        fleet_address=f"127.0.0.1:{fleet}",
        api_port=api,
        health_address=f"127.0.0.1:{health}",
    )


def test_the_command_has_only_options_that_flower_has(settings: SuperLinkSettings) -> None:
    """What is executed is understood by the SuperLink that is installed."""
    command = prepare_superlink(settings).command
    assert {word for word in command if word.startswith("--")} <= flower_options("flower-superlink")


def test_commands_without_password_stay_on_the_loopback(settings: SuperLinkSettings) -> None:
    """Wherever the sites connect, Flower's own commands listen on 127.0.0.1, with nodes authenticated."""
    port = settings.fleet_address.partition(":")[2]
    command = list(prepare_superlink(replace(settings, fleet_address=f"0.0.0.0:{port}")).command)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "--enable-supernode-auth" in command
    assert "--insecure" not in command


def test_later_commands_find_consortium_and_connection(settings: SuperLinkSettings) -> None:
    """The consortium file and Flower's configuration are where `reconsent train` looks for them."""
    settle_superlink(prepare_superlink(settings))
    layout = Layout(settings.state)
    assert load_consortium(layout.consortium) == load_consortium("tiny")
    table = tomllib.loads((layout.flower_home / "config.toml").read_text(encoding="utf-8"))
    connection = table["superlink"][table["superlink"]["default"]]
    assert connection["address"] == f"127.0.0.1:{settings.api_port}"
    assert Path(connection["root-certificates"]) == layout.tls / "ca.crt"


def test_health_is_asked_where_it_listens(settings: SuperLinkSettings) -> None:
    """The address is that of the last start, asked by the loopback where it is all of the machine's."""
    layout = Layout(settings.state)
    assert superlink_health(layout) == SuperLinkHealth(None, "unknown")
    for host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - nothing listens there
        (port,) = find_ports([None])
        settle_superlink(prepare_superlink(replace(settings, health_address=f"{host}:{port}")))
        assert superlink_health(layout) == SuperLinkHealth(f"127.0.0.1:{port}", "unreachable")
    layout.health_address.write_bytes(b"\xff")
    with pytest.raises(StateError, match="health-address cannot be read"):
        superlink_health(layout)


def test_up_and_down_do_not_take_it_for_a_leftover(settings: SuperLinkSettings) -> None:
    """It carries no mark of the local consortium, by which `reconsent down` knows what to end."""
    assert MARK not in prepare_superlink(settings).environment


def test_a_check_changes_nothing(settings: SuperLinkSettings) -> None:
    """What is looked for on disk stays that of the server that was started."""
    settle_superlink(prepare_superlink(settings))
    layout = Layout(settings.state)
    before = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()}
    prepare_superlink(replace(settings, consortium="demo", health_address="127.0.0.1:1"))
    assert {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("change", [{"seed": 5}, {"model": {"channels": 6}}])
def test_models_of_another_consortium_are_not_trained_on(
    settings: SuperLinkSettings, change: dict[str, Any]
) -> None:
    """By either command; as long as there is no model, any consortium may begin."""
    settle_superlink(prepare_superlink(settings))
    tiny = load_consortium("tiny")
    model = tiny.model.model_copy(update=change.get("model", {}))
    other = tiny.model_copy(update={**change, "model": model})
    file = settings.state.parent / "other.toml"
    file.write_text(dump_consortium(other), encoding="utf-8")
    changed = replace(settings, consortium=str(file))
    prepare_superlink(changed)
    (settings.state / "models").mkdir()
    (settings.state / "models" / "M-1.safetensors").touch()
    what = "seed differ" if "seed" in change else r"\[model\] differ"
    with pytest.raises(DeployError, match=what):
        prepare_superlink(changed)
    with pytest.raises(DeployError, match=what):
        LocalConsortium(settings.state).up(other)
    prepare_superlink(settings)


def test_hints_name_the_command_that_is_in_use(settings: SuperLinkSettings) -> None:
    """Whoever cannot reach the SuperLink is told to start it as it was started last."""
    layout = Layout(settings.state)
    layout.make()
    layout.processes.write_text("{}")
    control = FlowerControl(layout.flower_home)
    with pytest.raises(DeployError, match="reconsent up"):
        control.list_nodes()
    settle_superlink(prepare_superlink(settings))
    for ask in (control.list_nodes, control.list_runs):
        with pytest.raises(DeployError, match="reconsent server run"):
            ask()


def test_certificates_may_lie_elsewhere_and_need_no_authority_key(
    settings: SuperLinkSettings, tmp_path: Path
) -> None:
    """The authority's key can be kept off the server's machine."""
    elsewhere = tmp_path / "secrets"
    make_certificates(elsewhere)
    (elsewhere / "ca.key").unlink()
    command = prepare_superlink(replace(settings, tls=elsewhere)).command
    assert str(elsewhere / "server.key") in command


def test_without_certificates_it_says_how_to_make_them(settings: SuperLinkSettings, tmp_path: Path) -> None:
    """No certificate is made by the way, since only the operator knows the names; nothing is written."""
    with pytest.raises(DeployError, match="reconsent certs make"):
        prepare_superlink(replace(settings, state=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_rounds_of_one_hospital_are_warned_of(settings: SuperLinkSettings) -> None:
    """Their average would be that hospital's own parameters."""
    (warning,) = prepare_superlink(settings).warnings
    assert warning.startswith("training.min-sites is 1")
    tiny = load_consortium("tiny")
    file = settings.state.parent / "two.toml"
    two = tiny.model_copy(update={"training": tiny.training.model_copy(update={"min_sites": 2})})
    file.write_text(dump_consortium(two), encoding="utf-8")
    assert prepare_superlink(replace(settings, consortium=str(file))).warnings == ()


def test_an_occupied_port_is_named(settings: SuperLinkSettings) -> None:
    """A second server on the same ports is refused before it starts."""
    taken = f"127.0.0.1:{settings.api_port} cannot"
    with socket.create_server(("127.0.0.1", settings.api_port)), pytest.raises(DeployError, match=taken):
        prepare_superlink(settings)


@pytest.mark.parametrize("address", ["9092", "localhost:", "0.0.0.0:99999", ":9092"])
def test_what_is_no_address_is_refused(settings: SuperLinkSettings, address: str) -> None:
    """Host and port are both needed."""
    with pytest.raises(DeployError, match="not an address"):
        prepare_superlink(replace(settings, fleet_address=address))


def test_an_unknown_consortium_is_refused(settings: SuperLinkSettings) -> None:
    """A consortium that is neither file nor preset is named."""
    with pytest.raises(ConfigError, match="neither a preset"):
        prepare_superlink(replace(settings, consortium="nobody"))


def test_it_becomes_a_superlink_that_serves_and_ends_when_told(settings: SuperLinkSettings) -> None:
    """The real program: one process, healthy, which `status` tells; SIGTERM ends it with its helpers."""
    command = [
        *(str(Path(sys.executable).parent / "reconsent"), "server", "run"),
        *("--state", str(settings.state), "--consortium", settings.consortium),
        *("--fleet-address", settings.fleet_address, "--api-port", str(settings.api_port)),
        *("--health-address", settings.health_address),
    ]
    log = settings.state.parent / "log"
    operator = Operator(settings.state)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while status(settings.health_address) != "serving":
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        assert probe.main([settings.health_address]) == 0
        assert FlowerControl(Layout(settings.state).flower_home).list_nodes() == []
        link = asdict(SuperLinkHealth(settings.health_address, "serving"))
        assert operator.status()["superlink"] == link
        assert f"SuperLink serving ({settings.health_address})" in operator("status")
        with pytest.raises(AssertionError, match="`reconsent server run` runs a SuperLink in"):
            operator("up", "--no-metrics")
        again = [
            *command[:-6],
            *("--api-port", "1", "--fleet-address", "127.0.0.1:2", "--health-address", "127.0.0.1:3"),
        ]
        second = subprocess.run(again, capture_output=True, text=True, check=False)
        assert "runs a SuperLink in" in second.stderr and second.returncode == 1
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        assert probe.main([settings.health_address]) == 1
        assert operator.status()["superlink"] == {**link, "health": "unreachable"}
        assert not is_held(Layout(settings.state).superlink_lock)
    finally:
        # In case that `up` did start something.
        operator.local.down()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)


def test_the_probe_says_how_it_is_called() -> None:
    """A probe without an address is a mistake of its own, not an ill process."""
    assert probe.main([]) == 2
    assert probe.main(["localhost"]) == 2

"""The example files of the deployments are read by the code that will read them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from client.node.settings import load_node
from client.policy import SitePolicy
from client.settings_file import read_settings
from reconsent import __version__
from reconsent.config import load_consortium
from tests.deploy.deployment_files import DEPLOY, yaml_documents

CONSORTIA = [DEPLOY / "compose" / "consortium.toml", DEPLOY / "kubernetes" / "consortium" / "consortium.toml"]
SITES = [DEPLOY / "compose" / "site.toml", DEPLOY / "kubernetes" / "site" / "site.toml"]
SITES += [DEPLOY / "systemd" / "site.toml"]
POLICIES = [DEPLOY / "compose" / "policy" / "policy.toml", DEPLOY / "kubernetes" / "site" / "policy.toml"]


def identity(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


@pytest.mark.parametrize("path", CONSORTIA, ids=identity)
def test_consortium_files_are_valid_and_alike(path: Path) -> None:
    """The example has three hospitals, the same in every kind of deployment, and names nobody's directory."""
    config = load_consortium(path)
    assert len(config.sites) == 3
    assert all(site.data is None for site in config.sites)
    assert config == load_consortium(CONSORTIA[0])


@pytest.mark.parametrize("path", SITES, ids=identity)
def test_site_files_are_valid(path: Path) -> None:
    """The schema of a node accepts the example, and its site is in the example's consortium."""
    settings = load_node(path)
    site = load_consortium(CONSORTIA[0]).site(settings.name)
    assert settings.organ == site.organ


@pytest.mark.parametrize("path", POLICIES, ids=identity)
def test_policies_are_valid(path: Path) -> None:
    """The schema of a policy accepts the example, which takes part."""
    policy = read_settings(path, SitePolicy, "policy")
    assert policy.may_train
    assert not policy.withdrawn


def test_paths_of_the_compose_site_are_mounted() -> None:
    """Every path in the container's site.toml is one that the Compose file mounts."""
    (table,) = yaml_documents(DEPLOY / "compose" / "site.yaml")
    site = table["services"]["site"]
    targets = {m["target"] if isinstance(m, dict) else m.split(":")[1] for m in site["volumes"]}
    targets |= {config["target"] for config in site["configs"]}
    targets |= {f"/run/secrets/{name}" for name in site["secrets"]}
    settings = load_node(SITES[0])
    assert settings.health_port == 9098
    for path in (
        settings.ca,
        settings.key,
        settings.consortium,
        settings.data,
        settings.policy,
        settings.log,
    ):
        assert path is not None
        assert {str(path), *map(str, path.parents)} & targets, path


def test_paths_of_the_kubernetes_site_are_mounted() -> None:
    """Every path in the pod's site.toml is one that the pod mounts, and its file is in what is mounted."""
    (workload,) = yaml_documents(DEPLOY / "kubernetes" / "site" / "statefulset.yaml")
    container, exporter = workload["spec"]["template"]["spec"]["containers"]
    assert exporter["name"] == "metrics"
    targets = {mount["mountPath"] for mount in container["volumeMounts"]}
    settings = load_node(SITES[1])
    for path in (
        settings.ca,
        settings.key,
        settings.consortium,
        settings.data,
        settings.policy,
        settings.log,
    ):
        assert path is not None
        assert {str(path), *map(str, path.parents)} & targets, path


def test_no_file_names_a_registry() -> None:
    """Images are those of this release, or of a fixed one of others, and the operator may name another."""
    for path in (DEPLOY / "compose").glob("*.yaml"):
        for name, service in yaml_documents(path)[0]["services"].items():
            variable, image = re.fullmatch(r"\$\{(\w+)_IMAGE:-(.+)\}", service["image"]).groups()  # type: ignore[union-attr]
            if variable == "RECONSENT":
                assert image == f"reconsent:{__version__}"
            else:
                assert variable == name.upper() and re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", image)
    for path in (DEPLOY / "kubernetes").rglob("statefulset.yaml"):
        for image in re.findall(r"image: (\S+)", path.read_text(encoding="utf-8")):
            assert image == f"reconsent:{__version__}"

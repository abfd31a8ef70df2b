"""The Kubernetes objects fit the published schemas, refer to each other, and are confined."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.deployment_files import DEPLOY, parse_command, yaml_documents

KUBERNETES = DEPLOY / "kubernetes"
BASES = [KUBERNETES / "server", KUBERNETES / "site"]
# The oldest release whose schema knows everything used here, and a recent one.
RELEASES = ("1.29", "1.34")


def plain_objects(base: Path) -> list[dict[str, Any]]:
    """Every object in a base's own files, without what Kustomize generates."""
    table = yaml_documents(base / "kustomization.yaml")[0]
    files = [base / name for name in table["resources"] if name.endswith(".yaml")]
    return [document for file in files for document in yaml_documents(file)]


def named(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """With the selector that Kustomize's labels put there; the schema demands it."""
    if document["kind"] != "StatefulSet":
        return document
    labels = {"app": "reconsent"}
    spec = document["spec"]
    told = spec["template"].get("metadata", {})
    template = {**spec["template"], "metadata": {**told, "labels": labels}}
    return {**document, "spec": {**spec, "template": template, "selector": {"matchLabels": labels}}}


@pytest.fixture(params=BASES, ids=lambda path: path.name)
def base(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def pod(base: Path) -> dict[str, Any]:
    (workload,) = named(plain_objects(base), "StatefulSet").values()
    return dict(workload["spec"]["template"]["spec"])


@pytest.mark.parametrize("release", RELEASES)
def test_objects_fit_the_schemas(base: Path, release: str) -> None:
    """Every object is what Kubernetes says it must be, with no field that it does not know."""
    for document in plain_objects(base):
        kubernetes_validate.validate(completed(document), release, strict=True)


def test_a_misspelt_field_is_found(base: Path) -> None:
    """The check above can fail."""
    (workload,) = named(plain_objects(base), "StatefulSet").values()
    wrong = completed(workload)
    wrong["spec"]["template"]["spec"]["automountServiceAcountToken"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, RELEASES[-1], strict=True)


def test_kustomize_lists_files_that_exist_and_all_of_them() -> None:
    """No base names a file that is missing, and no file lies about that no base names."""
    for file in KUBERNETES.glob("*/kustomization.yaml"):
        table = yaml_documents(file)[0]
        generated = {name for entry in table.get("configMapGenerator", []) for name in entry["files"]}
        patched = {entry["path"] for entry in table.get("patches", [])}
        listed = {*table.get("resources", []), *generated, *patched}
        assert all((file.parent / name).exists() for name in listed)
        present = {path.name for path in file.parent.iterdir()} - {"kustomization.yaml"}
        assert present == {name for name in listed if not name.startswith("../")}


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which holds Kustomize, is not installed"
)
def test_kustomize_builds_objects_that_fit_the_schemas(base: Path) -> None:
    """What Kustomize makes of a base is valid, and its selectors find its own pods only."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(base)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    objects = [document for document in yaml.safe_load_all(done.stdout) if document]
    for document in objects:
        kubernetes_validate.validate(document, RELEASES[-1], strict=True)
    (workload,) = named(objects, "StatefulSet").values()
    labels = workload["spec"]["template"]["metadata"]["labels"]
    (policy,) = named(objects, "NetworkPolicy").values()
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    for service in named(objects, "Service").values():
        assert service["spec"]["selector"].items() <= labels.items()


def test_whatever_a_pod_mounts_is_there_or_is_for_the_operator(base: Path, pod: dict[str, Any]) -> None:
    """Claims and ConfigMaps are defined, or are named in the base's instructions, as Secrets are."""
    head = (base / "kustomization.yaml").read_text(encoding="utf-8")
    objects = plain_objects(base)
    generated = {
        entry["name"]
        for folder in (base, KUBERNETES / "consortium")
        for entry in yaml_documents(folder / "kustomization.yaml")[0].get("configMapGenerator", [])
    }
    for volume in pod["volumes"]:
        if claim := volume.get("persistentVolumeClaim"):
            assert claim["claimName"] in named(objects, "PersistentVolumeClaim")
        elif config := volume.get("configMap"):
            assert config["name"] in generated or f"configmap {config['name']}" in head
        elif secret := volume.get("secret"):
            assert f"secret generic {secret['secretName']}" in head
        else:
            assert "emptyDir" in volume
    volumes = {volume["name"] for volume in pod["volumes"]}
    containers = [*pod["containers"], *pod.get("initContainers", [])]
    mounted = {mount["name"] for container in containers for mount in container["volumeMounts"]}
    assert mounted == volumes


def test_pods_are_confined(pod: dict[str, Any]) -> None:
    """No root, no capabilities, no escalation, a read-only root, a system call filter, no token."""
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


def test_commands_are_those_of_the_program(pod: dict[str, Any]) -> None:
    """The program has the command and its options, and there is a probe for start and for life."""
    beside = [container["name"] for container in pod["containers"]][1:]
    assert beside in (["metrics"], ["metrics", "purge"])
    for container in pod["containers"]:
        parse_command(container["args"])
        # The daily purge listens nowhere and only sleeps in between: it lives as long as its process does.
        assert ({"startupProbe", "livenessProbe"} <= set(container)) == (container["name"] != "purge")


def test_the_servers_pod_purges_once_a_day() -> None:
    """An idle server expires nothing by itself; no second pod could, which may not have the volume."""
    (workload,) = named(plain_objects(BASES[0]), "StatefulSet").values()
    (container,) = (c for c in workload["spec"]["template"]["spec"]["containers"] if c["name"] == "purge")
    assert parse_command(container["args"]).params["every"] == 24
    (claim,) = named(plain_objects(BASES[0]), "PersistentVolumeClaim").values()
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_exporters_are_scraped_where_they_listen(base: Path, pod: dict[str, Any]) -> None:
    """Annotation, port and command agree; a server that cannot be read by it still is Ready for the sites."""
    (workload,) = named(plain_objects(base), "StatefulSet").values()
    annotations = workload["spec"]["template"]["metadata"]["annotations"]
    (exporter,) = (c for c in pod["containers"] if c["name"] == "metrics")
    assert annotations["prometheus.io/scrape"] == "true"
    assert [str(port["containerPort"]) for port in exporter["ports"]] == [annotations["prometheus.io/port"]]
    assert exporter["args"][-1] == f"0.0.0.0:{annotations['prometheus.io/port']}"
    assert "readinessProbe" not in exporter


def test_a_sites_exporter_sees_neither_scans_nor_key() -> None:
    """Of what the node has, its exporter mounts log, policy and description, read-only."""
    (workload,) = named(plain_objects(BASES[1]), "StatefulSet").values()
    (exporter,) = (c for c in workload["spec"]["template"]["spec"]["containers"] if c["name"] == "metrics")
    assert all(mount["readOnly"] for mount in exporter["volumeMounts"])
    assert {mount["name"] for mount in exporter["volumeMounts"]}.isdisjoint({"data", "key", "secret"})


def test_the_console_fits_into_the_servers_pod() -> None:
    """With its container the pod is valid and confined; no other pod reaches it, nor it the secrets."""
    (patch,) = yaml_documents(KUBERNETES / "console" / "statefulset.yaml")
    (workload,) = named(plain_objects(BASES[0]), "StatefulSet").values()
    assert patch["metadata"] == {"name": workload["metadata"]["name"]}
    (console,) = patch["spec"]["template"]["spec"]["containers"]
    spec = workload["spec"]["template"]["spec"]
    spec["containers"].append(console)
    for release in RELEASES:
        kubernetes_validate.validate(completed(workload), release, strict=True)
    test_pods_are_confined(spec)
    parameters = parse_command(console["args"]).params
    assert parameters["address"].startswith("127.0.0.1:")
    assert "ports" not in console
    assert {mount["name"] for mount in console["volumeMounts"]} == {"state", "tmp"}
    for probe in ("startupProbe", "livenessProbe"):
        assert f"http://{parameters['address']}/" in console[probe]["exec"]["command"][-1]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_puts_the_console_into_the_servers_pod(tmp_path: Path) -> None:
    """An overlay that names the component has four containers, three without it."""
    for name, containers in (("with", 4), ("without", 3)):
        overlay = tmp_path / name
        overlay.mkdir()
        table = {"resources": [os.path.relpath(BASES[0], overlay)]}
        if name == "with":
            table["components"] = [os.path.relpath(KUBERNETES / "console", overlay)]
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(table))
        command = ["kubectl", "kustomize", str(overlay)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        (workload,) = named([o for o in yaml.safe_load_all(done.stdout) if o], "StatefulSet").values()
        assert len(workload["spec"]["template"]["spec"]["containers"]) == containers


def test_nothing_but_sites_and_prometheus_is_let_in() -> None:
    """The server is reached on the sites' port, and opens nothing; metrics are for Prometheus alone."""
    (server,) = named(plain_objects(BASES[0]), "NetworkPolicy").values()
    (site,) = named(plain_objects(BASES[1]), "NetworkPolicy").values()
    prometheus = [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}]
    assert server["spec"]["ingress"] == [
        {"ports": [{"port": 9092, "protocol": "TCP"}]},
        {"from": prometheus, "ports": [{"port": 9464, "protocol": "TCP"}]},
    ]
    assert server["spec"]["egress"] == []
    assert site["spec"]["ingress"] == [
        {"from": prometheus, "ports": [{"port": 9465, "protocol": "TCP"}]},
    ]
    assert set(site["spec"]["policyTypes"]) == set(server["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    services = named(plain_objects(BASES[0]), "Service")
    assert {name: [port["port"] for port in s["spec"]["ports"]] for name, s in services.items()} == {
        "reconsent-superlink": [9092],
        "reconsent-metrics": [9464],
    }

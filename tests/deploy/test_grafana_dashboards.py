"""The dashboards as JSON: what the code writes, whole, without overlap, and asking for what exists."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from deploy.grafana.writer import WIDTH, dashboards
from tests.deploy.deployment_files import DEPLOY, yaml_documents
from tests.deploy.test_prometheus_files import known, names_in

DIRECTORY = DEPLOY / "grafana"
FILES = sorted((DIRECTORY / "dashboards").glob("*.json"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.param.read_text(encoding="utf-8"))
    return found


def test_files_are_what_the_code_writes() -> None:
    """The JSON in the tree is current (`make docs`), and there is no other."""
    assert {path.name: path.read_text(encoding="utf-8") for path in FILES} == dashboards()


def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    """No two panels share a cell of the grid, and none sticks out of it."""
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [
        {(x, y) for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])}
        for p in places
    ]
    assert all(p["x"] >= 0 and p["x"] + p["w"] <= WIDTH for p in places)
    assert not any(a & b for a, b in itertools.combinations(cells, 2))


def test_panels_are_told_apart_and_explained(dashboard: dict[str, Any]) -> None:
    """Ids are unique, and every panel has title, description, unit, data source and queries."""
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"] and panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["type"] == "prometheus"
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references)


def test_queries_ask_for_what_is_exposed(dashboard: dict[str, Any]) -> None:
    """Every query has metrics that are exposed or recorded, each limited to the chosen exporters."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            found = names_in(target["expr"])
            assert found and found <= known(), target["expr"]
            assert target["expr"].count('job=~"$job", instance=~"$instance"') >= len(found)


def test_dashboards_have_names_of_their_own() -> None:
    """Two dashboards with two identifiers, so that one never replaces the other."""
    tables = [json.loads(path.read_text(encoding="utf-8")) for path in FILES]
    assert len(tables) == 2
    assert len({table["uid"] for table in tables}) == len({table["title"] for table in tables}) == 2


def test_provisioning_names_one_source_and_one_folder() -> None:
    """Grafana is told of Prometheus, and of the directory of the dashboards."""
    (sources,) = yaml_documents(DIRECTORY / "provisioning" / "datasources" / "prometheus.yaml")
    assert [source["type"] for source in sources["datasources"]] == ["prometheus"]
    (providers,) = yaml_documents(DIRECTORY / "provisioning" / "dashboards" / "reconsent.yaml")
    assert providers["providers"][0]["options"]["path"] == "/etc/reconsent/dashboards"

"""The two dashboards as code: what is on them, where, and by which queries.

``python -m deploy.grafana.writer`` writes the JSON files beside this module, which Grafana reads by
``provisioning/``; a test compares them. Needs ``pip install 'reconsent[dashboards]'``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from grafana_foundation_sdk.builders import bargauge, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.grafana.consortium import CONSORTIUM
from deploy.grafana.panels import Kind, Panel, Row
from deploy.grafana.withdrawals import WITHDRAWALS

HERE = Path(__file__).parent
WIDTH = 24
"""Columns of Grafana's grid."""

_SOURCE = DataSourceRef(type_val="prometheus", uid="$source")
_SCOPE = 'job=~"$job", instance=~"$instance"'

Builder = stat.Panel | timeseries.Panel | bargauge.Panel | table.Panel


def build(uid: str, title: str, about: str, rows: Iterable[Row]) -> str:
    """A dashboard as JSON text."""
    found = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["reconsent"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"))
        .with_variable(_variable("job", "label_values(reconsent_state_readable, job)"))
        .with_variable(_variable("instance", 'label_values(reconsent_state_readable{job=~"$job"}, instance)'))
    )
    number, y = 1, 0
    for row in rows:
        found = found.with_row(dashboard.Row(row.title).id(number).grid_pos(GridPos(h=1, w=WIDTH, x=0, y=y)))
        number, y, x, height = number + 1, y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            place = GridPos(h=panel.height, w=panel.width, x=x, y=y)
            found = found.with_panel(_drawn(panel).id(number).grid_pos(place))
            number, x, height = number + 1, x + panel.width, max(height, panel.height)
        y += height
    return JSONEncoder(sort_keys=True, indent=2).encode(found.build()) + "\n"


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .datasource(_SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .multi(True)
    )


def _drawn(panel: Panel) -> Builder:
    kinds: dict[Kind, type[Builder]] = {
        "stat": stat.Panel,
        "lines": timeseries.Panel,
        "bars": bargauge.Panel,
        "table": table.Panel,
    }
    drawn = kinds[panel.kind]().title(panel.title).description(panel.about).unit(panel.unit)
    drawn = drawn.datasource(_SOURCE).no_value("unknown").thresholds(_thresholds(panel))
    for index, (legend, query) in enumerate(panel.queries.items()):
        target = prometheus.Dataquery().expr(
            query.replace("{}", f"{{{_SCOPE}}}").replace("{+", f"{{{_SCOPE}, ")
        )
        target = target.legend_format(legend).ref_id(chr(ord("A") + index)).datasource(_SOURCE)
        if panel.kind == "table":
            target = target.instant().format(PromQueryFormat.TABLE)
        drawn = drawn.with_target(target if panel.kind == "lines" else target.instant())
    return drawn


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [Threshold(value=None, color="green")]
    if panel.red_above is not None:
        steps.append(Threshold(value=panel.red_above, color="red"))
    if panel.red_below is not None:
        steps = [Threshold(value=None, color="red"), Threshold(value=panel.red_below, color="green")]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def dashboards() -> dict[str, str]:
    """File name → JSON text."""
    return {
        "consortium.json": build(
            "reconsent-consortium",
            "Reconsent: consortium",
            "Rounds, sites, replies and image quality of a consortium.",
            CONSORTIUM,
        ),
        "withdrawals.json": build(
            "reconsent-withdrawals",
            "Reconsent: withdrawals and privacy",
            "Deadlines, unlearning and what is left of who has left.",
            WITHDRAWALS,
        ),
    }


if __name__ == "__main__":
    for name, text in dashboards().items():
        (HERE / "dashboards" / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{HERE / 'dashboards' / name}\n")

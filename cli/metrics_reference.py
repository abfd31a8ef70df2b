"""The reference of all metrics, ``docs/metrics.md``, written from the catalogues: it cannot go stale."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import deploy
from reconsent.exposition import Topic

_HEAD = """# Metrics

Reconsent tells [Prometheus](https://prometheus.io) where a consortium stands. Two exporters do it, each a
process of its own that outlives every run:

- at the server `reconsent metrics serve`, which reads the state directory at each scrape and changes nothing;
- at a hospital `reconsent metrics site SITE.toml`, which reads the site's own log and policy, for the
  hospital's own Prometheus. It never shows what the log does not hold: no scans, no names of files, no
  patients. With `--textfile FILE.prom` it writes a file for a node exporter instead, and opens no port; let a
  timer do so every few minutes. `reconsent_site_collected_timestamp_seconds` says when that was, and an alert
  tells when the file is older than half an hour.

`reconsent up` starts both for its consortium (`--no-metrics` leaves them out), a site's with the policy
(`RECONSENT_SITE_POLICY`) and the certificate that its node has, writes their addresses to
`deployment/metrics-targets.json` in the state directory, and `reconsent status` shows them. For a simulation
`reconsent simulate --metrics-port 9464` serves the server's metrics for as long as it runs, and for what was
measured at its end `reconsent metrics serve --state RUN/state` does so afterwards. What to do when
an alert fires is in the [runbook](runbook.md).

Counters and histograms are computed from what the state (or the log) records, so they survive restarts of
runs, servers and exporters. **What is not known is left out, never written as zero**; the column *when* says
so. Timestamps are absolute: subtract them from `time()`. All times are in seconds, all sizes in bytes.
Seconds left until a deadline, and privacy left, are [recorded by Prometheus](#recorded-by-prometheus).

```sh
reconsent metrics serve --address 127.0.0.1:9464
reconsent metrics site site.toml --address 127.0.0.1:9465
reconsent metrics list
```

| path | answer |
| --- | --- |
| `/metrics` | the metrics, in Prometheus' text format or OpenMetrics, as asked |
| `/healthz` | 200 while the process lives |
| `/readyz` | 200 if there is something to show, else 503 and why |

**TLS and passwords** are those of Prometheus' own
[web configuration](https://prometheus.io/docs/prometheus/latest/configuration/https/): one YAML file, named
by `--web-config`, with `tls_server_config` (`cert_file`, `key_file`, `client_auth_type`, `client_ca_file`,
`min_version`) and `basic_auth_users` (bcrypt hashes, as `htpasswd -nB` makes them). It is read again when it
changes, and so are renewed certificates. `RequestClientCert` and `RequireAnyClientCert`, which verify
nothing, are refused, as is `http_server_config`. The two health pages ask for no password, and say nothing
else.

**Labels** are few: sites by their name in the consortium file, phases, outcomes. A run, a model version and a
withdrawal are labels of the series that say what they are (`…_info`, open withdrawals), and of no others. A
withdrawn site keeps its counters, which are history, and of the gauges `reconsent_site_info`, which says that
it has left; it loses the others.

**Prometheus and Grafana**: `deploy/prometheus/` has a scrape configuration, recording rules and alerts,
`deploy/grafana/` two dashboards (consortium; withdrawals and privacy) with their provisioning. The dashboards
are written by `deploy.grafana.writer.py` with Grafana's own library. They are tested as JSON, with every
query run against a real Prometheus; how they look in Grafana was not tested, since none was at hand. The
exporters are in the Compose, Kubernetes and systemd files ([operations](operations.md#supervisors)).

**What it costs** is under a hundredth of a round ([measured](performance.md#metrics)).

Beside the families below each exporter shows `process_…` and `python_info` of its own process.

Written by `python -m cli.metrics_reference > docs/metrics.md`; a test compares the two.
"""


def topics(*, site: bool) -> tuple[Topic, ...]:
    """The catalogue of the server's exporter, or of a site's."""
    if site:
        from client.metrics.catalogue import CATALOGUE as OF_SITE

        return OF_SITE
    from server.metrics.catalogue import CATALOGUE as OF_SERVER

    return OF_SERVER


_RECORDED = """## Recorded by Prometheus

Exporters show when something is due and how much may be spent; what is left, and other figures that alerts
and dashboards share, the rules of `deploy/prometheus/rules/recording.yml` make of it.

| series | meaning | rule |
| --- | --- | --- |
"""

_RULE = re.compile(r"((?:^ +# .*\n)+) +- record: (\S+)$", re.MULTILINE)


def recorded() -> str:
    """The recording rules: their names, the comments above them, and their expressions."""
    file = Path(deploy.__file__).parent / "prometheus" / "rules" / "recording.yml"
    text = file.read_text(encoding="utf-8")
    meanings = {name: " ".join(said.split()).replace("# ", "") for said, name in _RULE.findall(text)}
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    rows = [f"| `{rule['record']}` | {meanings[rule['record']]} | `{rule['expr']}` |" for rule in rules]
    return _RECORDED + "\n".join(rows) + "\n"


def reference() -> str:
    """``docs/metrics.md``: one section a topic, one row a metric; then what Prometheus makes of them."""
    sections = [_HEAD]
    for heading, site in (("At the server", False), ("At a site", True)):
        sections.append(f"## {heading}\n")
        for topic in topics(site=site):
            sections.append(f"### {topic.title}\n")
            rows = ["| metric | type | labels | meaning | when |", "| --- | --- | --- | --- | --- |"]
            rows += [
                f"| `{m.name}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels)} | {m.help} "
                f"| {m.seen_when or 'always'} |"
                for m in topic.metrics
            ]
            sections.append("\n".join(rows) + "\n")
    sections.append(recorded())
    return "\n".join(sections)


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference())

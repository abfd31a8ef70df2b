"""``reconsent metrics``: what a consortium and its sites tell Prometheus."""

from __future__ import annotations

import json
import signal
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.deployment import StateOption
from reconsent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    from client.metrics import SiteCollector

app = typer.Typer(
    name="metrics",
    help="Serve metrics to Prometheus, at the server and at a site.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

WebConfig = Annotated[
    Path | None,
    typer.Option(
        "--web-config",
        help="TLS and passwords, in the format of Prometheus' own web configuration file.",
        show_default=False,
    ),
]


@app.command()
def serve(
    state: StateOption = None,
    address: Annotated[
        str, typer.Option("--address", help="Where Prometheus reads them.")
    ] = "127.0.0.1:9464",
    consortium: Annotated[
        Path | None,
        typer.Option(
            "--consortium", help="The consortium file (default: what the server uses).", show_default=False
        ),
    ] = None,
    certificate: Annotated[
        list[Path] | None,
        typer.Option(
            "--certificate",
            help="A certificate (PEM) whose end is of interest; repeat it for several (default: those of the "
            "state directory).",
            show_default=False,
        ),
    ] = None,
    web_config: WebConfig = None,
) -> None:
    """Serve the metrics of a consortium until it is stopped; reads the state, and changes nothing.

    It runs beside the server and outlives its runs. /metrics is for Prometheus, /healthz says that the
    process lives, /readyz whether the state can be read.

    Examples
    --------
      reconsent metrics serve

      reconsent metrics serve --address 0.0.0.0:9464 --web-config web.yml
    """
    from cli.simulated_gaps import GapsFile
    from deploy.certificates import AUTHORITY, SERVER
    from deploy.layout import Layout
    from reconsent.environment import state_path
    from server.metrics import StateCollector

    layout = Layout(state_path(state))
    collector = StateCollector(
        layout.state,
        consortium=consortium or layout.consortium,
        certificates=certificate or [layout.tls / AUTHORITY, layout.tls / SERVER],
        gaps=GapsFile.beside(layout.state),
    )
    _serve(collector, address, collector.unready, web_config)


@app.command()
def site(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[SITE.toml]", help="See `reconsent site init`.", show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Without a SITE.toml: the site's name.")] = None,
    log: Annotated[Path | None, typer.Option("--log", help="Without a SITE.toml: the site's log.")] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Without a SITE.toml: the site's policy, if it has one.")
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", help="Without a SITE.toml: the certificate by which it knows the server."),
    ] = None,
    address: Annotated[
        str, typer.Option("--address", help="Where the site's own Prometheus reads them.")
    ] = "127.0.0.1:9465",
    textfile: Annotated[
        Path | None,
        typer.Option(
            "--textfile",
            help="Write them once to this .prom file, for a node exporter, and serve nothing.",
            show_default=False,
        ),
    ] = None,
    web_config: WebConfig = None,
) -> None:
    """Serve a hospital's own metrics: what the server asked of it, and what it refused.

    They come from the site's log and policy; no scan, no name of a file and no patient is ever in them.

    Examples
    --------
      reconsent metrics site site.toml

      reconsent metrics site site.toml --textfile /var/lib/prometheus/node-exporter/reconsent.prom
    """
    from client.metrics import write_textfile

    collector = _site_collector(file, name, log, policy, ca)
    if textfile is not None:
        write_textfile(collector, textfile)
        return
    _serve(collector, address, collector.unready, web_config)


@app.command("list")
def list_metrics(
    of_site: Annotated[bool, typer.Option("--site", help="Those of a site.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List every metric with its type, labels and meaning."""
    from cli.metrics_reference import topics

    found = topics(site=of_site)
    if json_output:
        entries = [
            {"name": m.name, "type": m.kind, "labels": m.labels, "help": m.help, "seen_when": m.seen_when}
            for topic in found
            for m in topic.metrics
        ]
        typer.echo(json.dumps(entries, indent=2))
        return
    for topic in found:
        typer.echo(f"\n{topic.title}")
        for metric in topic.metrics:
            labels = f"{{{', '.join(metric.labels)}}}" if metric.labels else ""
            typer.echo(f"  {metric.name}{labels} ({metric.kind})")
            text = f"{metric.help}; {metric.seen_when or 'always'}."
            typer.echo(textwrap.fill(text, 78, initial_indent="      ", subsequent_indent="      "))


def _site_collector(
    file: Path | None, name: str | None, log: Path | None, policy: Path | None, ca: Path | None
) -> SiteCollector:
    from client.metrics import SiteCollector
    from client.node.settings import load_node

    if file is not None:
        settings = load_node(file)
        return SiteCollector(
            settings.name, log=settings.log_file, policy=settings.policy, authority=settings.ca
        )
    if name is None or log is None:
        raise ConfigError(
            "It is not said which site this is.", "Name its SITE.toml, or give --name and --log."
        )
    return SiteCollector(name, log=log, policy=policy, authority=ca)


def _serve(collector: Collector, address: str, unready: Callable[[], str], web_config: Path | None) -> None:
    from reconsent.exposition import MetricsServer, WebConfigFile

    registry = _registry(collector)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # As the first process of a container it would otherwise not hear them.
        signal.signal(number, lambda *_: stopped.set())
    web = WebConfigFile(web_config)
    with MetricsServer(registry, address, unready=unready, web=web) as server:
        scheme = "http" if web.context is None else "https"
        host = address.rpartition(":")[0]
        typer.echo(f"Metrics on {scheme}://{host}:{server.port}/metrics")
        stopped.wait()


@contextmanager
def serving(state: Path, consortium: Path, port: int | None) -> Iterator[None]:
    """Serve a state's metrics on this machine within the block, from a thread of this process.

    Parameters
    ----------
    state, consortium
        State directory and consortium file; both may come to be later.
    port
        Of 127.0.0.1; ``None`` to serve nothing.

    Raises
    ------
    ConfigError
        If the port is taken.
    """
    if port is None:
        yield
        return
    from cli.simulated_gaps import GapsFile
    from reconsent.exposition import MetricsServer
    from server.metrics import StateCollector

    collector = StateCollector(state, consortium=consortium, gaps=GapsFile.beside(state))
    try:
        with MetricsServer(_registry(collector), f"127.0.0.1:{port}", unready=collector.unready):
            yield
    finally:
        collector.close()


def _registry(collector: Collector) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry

"""``reconsent site``: a hospital's own node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from reconsent.errors import ConfigError

if TYPE_CHECKING:
    from client.node.findings import Finding, NodeReport

app = typer.Typer(
    name="site",
    help="Set up, check, explain and run the node of a hospital.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="SITE.toml", help="See `reconsent site init`.")],
    check: Annotated[bool, typer.Option("--check", help="Only check; start nothing.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say in words what this node shares, opens and writes.")
    ] = False,
    skip_data: Annotated[
        bool, typer.Option("--skip-data", help="Do not read every volume before the start.")
    ] = False,
) -> None:
    """Check everything, then become this hospital's Flower SuperNode.

    Every problem is listed at once, and with one the node does not start.
    The node takes this process's place: signals and exit status are its own.

    Examples
    --------
      reconsent site run site.toml --check

      reconsent site run site.toml --explain

      reconsent site run site.toml
    """
    from cli.progress import ProgressBoard
    from client.node.checks import check_node
    from client.node.command import node_command, program_directory
    from client.node.launch import launch
    from client.node.settings import load_node

    settings = load_node(file)
    if explain:
        _explain(file)
        return
    with ProgressBoard(Console(stderr=True), quiet=skip_data) as board:
        report = check_node(
            settings,
            progress=lambda done, total: board.step("reading data", done, total),
            read_data=not skip_data,
        )
    _print_report(report, facts=check)
    if report.problems:
        raise typer.Exit(1)
    if check:
        return
    command = node_command(settings)
    own = program_directory(settings) if settings.code == "installed" else None
    launch(command.arguments, command.environment, own)


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="Where the private key goes; the public one gets .pub.")],
) -> None:
    """Make the key pair that this hospital's node proves itself with.

    Send the .pub file to the operator, and read the fingerprint to them on
    another way, such as the telephone. The private key stays here.
    """
    from client.node.keys import make_key_pair

    found = make_key_pair(file)
    typer.echo(f"private key  {file} (stays here)\npublic key   {file}.pub (for the operator)")
    typer.echo(f"fingerprint  {found}")


@app.command()
def receipt(
    file: Annotated[Path, typer.Argument(metavar="SITE.toml", help="See `reconsent site init`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path(
        "site-receipt.dsse.json"
    ),
) -> None:
    """Sign what this site's own log says, for the certificate of its withdrawal.

    It holds hashes, times and counts: what the node was sent and what it answered, what it refused, and the
    newest checkpoint of the server's ledger it has seen. Make it before the key is deleted.
    """
    from client.node.keys import read_private_key
    from client.node.settings import load_node
    from client.receipt import receipt_body
    from reconsent.files import write_atomically
    from unlearning.certificate.receipt import sign_receipt

    settings = load_node(file)
    if settings.log_file is None:
        raise ConfigError(f"The node of {file} keeps no log.", "A receipt needs one: `policy` or `log`.")
    body = receipt_body(settings.log_file)
    write_atomically(out, sign_receipt(body, read_private_key(settings.key)))
    seen = body["checkpoint"]
    typer.echo(f"{out}: {len(body['worked'])} messages worked, {sum(body['refused'].values())} refused.")
    typer.echo(
        "The server's ledger was not seen."
        if seen is None
        else f"The server's ledger was last seen with {seen['size']} entries."
    )
    typer.echo("Give it to the operator: `reconsent certificate issue --receipt FILE`.")


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Where to write; made if it does not exist.")],
    name: Annotated[str, typer.Option(help="Of the site, as in the consortium file.")] = "hospital",
) -> None:
    """Write a commented site.toml and policy.toml, to be edited."""
    from client.code_digest import code_digest
    from client.node.templates import write_templates

    for path in write_templates(directory, name, code_digest()):
        typer.echo(str(path))


@app.command()
def code() -> None:
    """Print the digest of the installed code, for trusted-code in a policy."""
    from client.code_digest import code_digest

    typer.echo(code_digest())


def _explain(file: Path) -> None:
    from client.node.explanation import explain_node
    from client.node.settings import load_node
    from client.policy import SitePolicy
    from client.settings_file import read_settings

    settings = load_node(file)
    policy = None
    if settings.policy is not None:
        try:
            policy = read_settings(settings.policy, SitePolicy, "policy")
        except ConfigError:
            policy = None
    typer.echo(explain_node(settings, policy), nl=False)


def _print_report(report: NodeReport, *, facts: bool) -> None:
    console = Console(stderr=not facts, soft_wrap=True, highlight=False)
    if facts:
        for name, text in report.facts.items():
            console.print(f"[green]ok[/green]       {name}: {escape(text)}")
    for finding in report.notes:
        console.print(f"[yellow]note[/yellow]     {_worded(finding)}")
    for finding in report.problems:
        console.print(f"[bold red]problem[/bold red]  {_worded(finding)}")
    if report.problems:
        console.print(f"\n{len(report.problems)} problems; the node does not start like this.")


def _worded(finding: Finding) -> str:
    return escape(f"{finding.key}: {finding.reason} {finding.remedy}".strip())

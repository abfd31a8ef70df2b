"""``reconsent model``: versions of the model, their lineage, and files to use them elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Column, Table

from cli.deployment import StateOption
from reconsent.errors import StateError
from reconsent.files import write_atomically

if TYPE_CHECKING:
    from reconsent.config import ConsortiumConfig
    from server.persistence import ModelVersion, StateDirectory

app = typer.Typer(no_args_is_help=True, help="Versions of the model: list, show, export.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
VersionArgument = Annotated[str, typer.Argument(help="Id of the version, or its beginning; or 'latest'.")]


@app.command("list")
def list_versions(state: StateOption = None, json_output: JsonOption = False) -> None:
    """List every version, oldest first."""
    with _open(state) as opened:
        versions = _registry(opened).all()
    if json_output:
        typer.echo(json.dumps([_shown(version) for version in versions], indent=2))
        return
    table = Table(
        Column("version", no_wrap=True, min_width=16), "line", "round", "how", "status", "sites", "file"
    )
    for v in versions:
        gone = [f"{site} (forgotten)" if site in v.forgotten else site for site in sorted(v.lineage)]
        file = "pruned" if v.pruned else _size(v.bytes)
        table.add_row(v.id, v.line, str(v.round), v.kind, v.status.value, ", ".join(gone), file)
    Console().print(table)


@app.command()
def show(version: VersionArgument, state: StateOption = None, json_output: JsonOption = False) -> None:
    """Show a version: where it comes from, whose updates are in it, and whether it may be used."""
    with _open(state) as opened:
        found = _find(opened, version)
    shown = _shown(found)
    if json_output:
        typer.echo(json.dumps(shown, indent=2))
        return
    for key, value in shown.items():
        typer.echo(f"{key:<12} {json.dumps(value) if isinstance(value, dict | list) else value}")


@app.command()
def export(
    version: VersionArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    state: StateOption = None,
    form: Annotated[
        Literal["safetensors", "state-dict", "torchscript"],
        typer.Option(
            "--format",
            help="safetensors; a PyTorch state dict (torch.load); or torchscript, the whole network, which "
            "needs PyTorch alone (torch.jit.load).",
        ),
    ] = "safetensors",
    consortium: Annotated[
        str | None,
        typer.Option(
            "--consortium",
            help="For torchscript: the consortium file that says which network it is (default: the one "
            "beside the state).",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Export it even if it is revoked.")] = False,
    recipient: Annotated[
        str | None, typer.Option("--recipient", help="To whom it is given (default: who gives the command).")
    ] = None,
) -> None:
    """Write a version's parameters to a file, for inference elsewhere.

    A revoked version holds what a withdrawn site contributed; it is refused unless forced. To whom a version
    was given is recorded: recipients are told when it is revoked.
    """
    import io

    import torch
    from safetensors.numpy import save

    with _open(state) as opened:
        found = _find(opened, version)
        arrays = _registry(opened).load(found.id, force=force)
    about = {"version": found.id, "sha256": found.digest, "status": found.status.value}
    if form == "safetensors":
        content = save(arrays, metadata=about)
    elif form == "torchscript":
        from mri.torchscript import torchscript

        content = torchscript(_consortium(consortium, state).model, arrays, json.dumps(about))
    else:
        buffer = io.BytesIO()
        torch.save({name: torch.from_numpy(arrays[name].copy()) for name in found.names}, buffer)
        content = buffer.getvalue()
    _record_export(state, found, recipient, form)
    try:
        write_atomically(out, content)
    except OSError as error:
        raise StateError(f"{out} cannot be written: {error}.", "Choose another --out.") from None
    typer.echo(f"{out}: version {found.id}, {found.status.value}, {_size(len(content))}")


def _consortium(named: str | None, state: Path | None) -> ConsortiumConfig:
    """The consortium file that was named, or the one of the deployment or simulation whose state it is."""
    from reconsent.config import load_consortium
    from reconsent.environment import state_path

    if named is not None:
        return load_consortium(named)
    path = state_path(state).absolute()
    for beside in (path / "deployment" / "consortium.toml", path.parent / "consortium.toml"):
        if beside.is_file():
            return load_consortium(beside)
    raise StateError(
        f"There is no consortium file beside {path}, so nothing says which network the model is.",
        "Name it with --consortium.",
    )


def _record_export(state: Path | None, version: ModelVersion, recipient: str | None, form: str) -> None:
    """Put on record to whom a version is given, before it is: a crash leaves a name too many, not too few."""
    from cli.register import actor, opened
    from server.persistence import Exports
    from unlearning.request import LONGEST_NAME, checked_text

    who = actor(None)
    name = checked_text(recipient or who, "The recipient", longest=LONGEST_NAME, lines=False)
    with opened(state, writable=True) as directory:
        Exports(directory).add(version, name, actor=who, form=form)


def _open(state: Path | None) -> StateDirectory:
    from reconsent.environment import state_path
    from server.persistence import StateDirectory

    return StateDirectory.open(state_path(state), writable=False)


def _registry(opened: StateDirectory) -> Any:
    from server.persistence import ModelRegistry

    return ModelRegistry(opened)


def _find(opened: StateDirectory, wanted: str) -> ModelVersion:
    from server.bookkeeping import MAIN

    registry = _registry(opened)
    if wanted == "latest":
        latest: ModelVersion | None = registry.latest(MAIN)
        if latest is None:
            raise StateError("There is no model yet.", "Train first: `reconsent train --rounds 1`.")
        return latest
    matches: list[ModelVersion] = [v for v in registry.all() if v.id.startswith(wanted)]
    exact = [v for v in matches if v.id == wanted]
    if len(exact or matches) != 1:
        what = "No version begins" if not matches else f"{len(matches)} versions begin"
        raise StateError(f"{what} with '{wanted}'.", "`reconsent model list` names them.")
    return (exact or matches)[0]


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def _shown(version: ModelVersion) -> dict[str, Any]:
    return {
        "version": version.id,
        "status": version.status.value,
        "reason": version.reason,
        "line": version.line,
        "round": version.round,
        "kind": version.kind,
        "method": version.method,
        "parent": version.parent,
        "sha256": version.digest,
        "bytes": version.bytes,
        "sites": dict(version.sites),
        "lineage": {site: [span.first, span.last] for site, span in version.lineage.items()},
        "forgotten": sorted(version.forgotten),
        "pruned": version.pruned,
        "created_at": version.created_at.isoformat(),
    }

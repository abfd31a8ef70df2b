"""``reconsent keys``: the keys by which contributions are sealed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.deployment import StateOption
from reconsent.errors import EncryptionError, StateError

if TYPE_CHECKING:
    from unlearning.key_store import KeyStore
    from unlearning.site_keys import SiteKeys

app = typer.Typer(no_args_is_help=True, help="Keys by which contributions are sealed: show, rotate, import.")

ConsortiumOption = Annotated[
    Path | None,
    typer.Option(
        "--consortium",
        help="Consortium file, whose [contributions] say where the master key is (default: the one here).",
        show_default=False,
    ),
]


@app.command()
def show(
    state: StateOption = None,
    consortium: ConsortiumOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which sites have a key, by which master key it is wrapped, who was erased, where copies are."""
    store = _store(state, consortium)
    entries = _sites(store).entries()
    found = {
        "master_key": str(_sites(store).file) if _sites(store).policy.source == "file" else None,
        "sites": {site: {"master": e["master"], "made_at": e.get("made_at")} for site, e in entries.items()},
        "erased": [{"site": e.site, "withdrawal": e.withdrawal, "at": e.at} for e in store.erased()],
        "copies": [str(path) for path in store.copies()],
    }
    if json_output:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"master key   {found['master_key'] or _sites(store).policy.source}")
    for site, entry in entries.items():
        typer.echo(f"{site:<12} wrapped by {entry['master']}, {entry.get('made_at', '')}")
    for erasure in store.erased():
        typer.echo(f"{erasure.site:<12} erased {erasure.at} by {erasure.withdrawal}")
    for path in store.copies():
        typer.echo(f"copy         {path}")


@app.command()
def rotate(state: StateOption = None, consortium: ConsortiumOption = None) -> None:
    """Wrap every site's key anew: by a new master key, or the one now in the environment or at the service.

    Contributions are not encrypted again. No run may be under way. To go from one kind of master key to
    another, change [contributions] while the former can still be had, and rotate.
    """
    from reconsent.environment import state_path
    from server.persistence import StateDirectory

    store = _store(state, consortium)
    # Held as the server would: a key that it made meanwhile could be wrapped by a master key that goes.
    with StateDirectory.open(state_path(state)):
        name = _sites(store).rewrap()
        unreached = store.write_copies()
    typer.echo(f"{len(_sites(store).sites())} keys are wrapped by {name}.")
    if _sites(store).policy.source == "file":
        typer.echo(f"Copies of {_sites(store).file} are void: make a new one.")
    for copy in unreached:
        typer.echo(f"Warning: this copy of the keys is old now: {copy}", err=True)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A copy of the keys, as `reconsent backup` writes.")],
    state: StateOption = None,
    consortium: ConsortiumOption = None,
) -> None:
    """Put keys back that are missing here. One that was destroyed by an erasure does not come back."""
    from unlearning.key_store import KeyCopy

    store = _store(state, consortium)
    back = store.put_back(KeyCopy.read(source))
    typer.echo(f"Put back: {', '.join(back)}." if back else "No key was missing.")


@app.command()
def forget(
    copy: Annotated[Path, typer.Argument(help="A copy of the keys that was destroyed.")],
    state: StateOption = None,
    consortium: ConsortiumOption = None,
) -> None:
    """Say that a copy of the keys is no more, so that erasures need not reach it. Destroy it first."""
    store = _store(state, consortium)
    if copy.absolute() not in store.copies():
        raise StateError(f"{copy} is not known as a copy of the keys.", "`reconsent keys show` lists them.")
    store.forget_copy(copy.absolute())
    typer.echo(f"{copy} is not kept up any more.")


def _store(state: Path | None, consortium: Path | None) -> KeyStore:
    from deploy.backup import consortium_of
    from deploy.layout import Layout
    from reconsent.environment import state_path
    from server.persistence.state import KEYS
    from server.safekeeping import key_policy
    from unlearning.key_store import KeyStore

    layout = Layout(state_path(state))
    if not layout.state.is_dir():
        raise StateError(f"There is no state directory {layout.state}.", "Check the path.")
    config = consortium_of(layout, consortium)
    if config is None:
        raise StateError(f"There is no consortium file for {layout.state}.", "Name it with --consortium.")
    return KeyStore(layout.state / KEYS, key_policy(config))


def _sites(store: KeyStore) -> SiteKeys:
    if store.sites is None:
        raise EncryptionError('[contributions] says encryption = "none".', "There are no keys then.")
    return store.sites

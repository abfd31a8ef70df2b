"""``reconsent backup`` and ``reconsent restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.deployment import StateOption


def backup(
    target: Annotated[Path, typer.Argument(help="A new directory for the backup.")],
    state: StateOption = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys",
            help="File for the sites' wrapped keys, one for all backups (default: reconsent-keys.json beside "
            "the backup).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Copy the state directory, while a server may be at work in it.

    Database and arrays are of one moment, each file with its checksum. The backup holds no keys of sites:
    their wrapped keys go to one file that every backup overwrites, and so does every erasure. So a backup
    from before a withdrawal cannot be read any more as far as the withdrawn site is concerned; unless
    contributions are not encrypted, of which it warns.

    Example
    -------
      reconsent backup /backup/2027-01-31
    """
    from deploy.backup import back_up
    from reconsent.environment import state_path

    made = back_up(state_path(state), target, keys)
    size = sum(size for size, _ in made.manifest.files.values())
    typer.echo(f"{target}: {len(made.manifest.files)} files, {size / 2**20:.1f} MiB.")
    typer.echo(f"Wrapped keys: {made.key_copy}. Keep the master key apart from both; neither helps without.")
    if not made.sealed:
        typer.echo(
            f"Warning: contributions in {target} are not encrypted, so no erasure reaches them. Destroy it "
            "when a site of which it holds some has withdrawn. `encryption` in [contributions] seals them.",
            err=True,
        )
    for copy in made.unreached:
        typer.echo(f"Warning: an older copy of the keys could not be brought up to date: {copy}", err=True)


def restore(
    source: Annotated[Path, typer.Argument(help="The backup.")],
    state: StateOption = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="The newest copy of the keys.", show_default=False)
    ] = None,
    consortium: Annotated[
        Path | None,
        typer.Option("--consortium", help="Consortium file, if the backup has none.", show_default=False),
    ] = None,
    without_keys: Annotated[
        bool,
        typer.Option("--without-keys", help="The keys are lost, and nobody was erased since the backup."),
    ] = False,
) -> None:
    """Restore a backup to a state directory that holds no state, every file checked.

    A site that was erased after the backup was made does not come back: it is barred, what the backup has of
    it is removed, and its withdrawal is filed again, to be carried out before anything else. Who that is, the
    newest copy of the keys knows.

    Example
    -------
      reconsent restore /backup/2027-01-31 --keys /backup/reconsent-keys.json --state /srv/reconsent
    """
    from deploy.backup import restore as bring_back
    from reconsent.environment import state_path

    target = state_path(state)
    done = bring_back(source, target, keys, consortium=consortium, alone=without_keys)
    typer.echo(f"{target}: {len(done.manifest.files)} files as of {done.manifest.made_at}.")
    for entry in done.reapplied:
        typer.echo(
            f"Site '{entry.site}' had been erased since (withdrawal {entry.former}): barred again. "
            + (
                f"Withdrawal {entry.withdrawal} is to be carried out: `reconsent unlearn`, by a method that "
                "needs no contributions of it, such as retrain."
                if entry.withdrawal
                else f"Its withdrawal could not be filed again: {entry.problem}"
            )
        )
    if done.unreadable:
        typer.echo(f"Warning: contributions cannot be read yet. {done.unreadable}", err=True)

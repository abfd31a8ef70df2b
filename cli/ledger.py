"""``reconsent ledger``: what happened, whether somebody changed the record of it, and copies to keep."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.deployment import StateOption
from reconsent.errors import LedgerError, ReconsentError
from reconsent.files import write_atomically

if TYPE_CHECKING:
    from server.persistence import Ledger, StateDirectory
    from server.persistence.register_check import RegisterCheck
    from server.persistence.verification import Verification
    from unlearning.ledger.audit import Audit
    from unlearning.ledger.exports import KeptCheckpoint
    from unlearning.signing import PublicKey

app = typer.Typer(
    no_args_is_help=True,
    help="The ledger of all that happened: show, verify, export; and the key it signs with.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def show(
    state: StateOption = None,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Only entries of this kind.")] = None,
    last: Annotated[int, typer.Option("--last", min=0, help="Only so many, the newest; 0: all.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Show the entries, oldest first, as they are; `reconsent ledger verify` says whether they hold."""
    from server.persistence.ledger_entries import KINDS

    unknown = sorted(set(kind or ()) - KINDS.keys())
    if unknown:
        raise LedgerError(f"There is no kind of entry '{unknown[0]}'.", f"Kinds are: {', '.join(KINDS)}.")
    with _open(state) as opened:
        entries = _ledger(opened).entries(kind or None)
    entries = entries[-last:] if last else entries
    if json_output:
        typer.echo(json.dumps([asdict(entry) for entry in entries], indent=2))
        return
    for entry in entries:
        body = json.dumps(entry.body, ensure_ascii=False, separators=(", ", ": "))
        typer.echo(f"{entry.number:>6}  {entry.at[:19]}Z  {entry.kind:<20}  {body}")


@app.command()
def verify(
    state: StateOption = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Check this exported ledger; needs no state directory.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", help="Compare with a checkpoint kept elsewhere, as by a site."),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key", help="Public key (PEM) that must have signed; all of them, if there were several."
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Check every entry, and name the first that was altered, dropped, reordered or cut off.

    The withdrawals, their steps and their acts are compared with what the entries say of them. Ends with
    status 1 if anything is wrong. That the end was cut off is told by the checkpoint that the server keeps
    beside the ledger, and by what sites have confirmed; that whoever has the state and the signing key wrote
    all of it anew, only by a checkpoint that was kept elsewhere: each site keeps the newest it was sent.
    """
    from server.persistence.verification import verify_ledger
    from unlearning.ledger.audit import audit
    from unlearning.ledger.exports import exported_rows, read_checkpoint_file
    from unlearning.signing import load_public_key

    whole: Verification | None = None
    given = [load_public_key(path) for path in key or ()]
    kept = [read_checkpoint_file(path) for path in checkpoint or ()]
    if file is not None:
        trusted = given or _named(list(_contents(file)))
        result = audit(exported_rows(file), trusted, _genuine(kept, trusted))
    else:
        with _open(state) as opened:
            trusted = given or _ledger(opened).named_keys()
            whole = verify_ledger(opened, given, _genuine(kept, trusted))
        result = whole.audit
    _tell(result, whole, not given, json_output)
    if not (result if whole is None else whole).sound:
        raise typer.Exit(1)


@app.command()
def export(
    out: Annotated[Path | None, typer.Argument(help="File to write the ledger to.")] = None,
    state: StateOption = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Write the newest signed checkpoint to this file.")
    ] = None,
) -> None:
    """Write the ledger, or its newest checkpoint, to a file that can be checked without the server.

    Example
    -------
      reconsent ledger export ledger.jsonl --checkpoint today.checkpoint
    """
    from unlearning.ledger.exports import checkpoint_file

    if out is None and checkpoint is None:
        raise LedgerError("It is not said what to export.", "Name a file, or --checkpoint FILE, or both.")
    with _open(state) as opened:
        ledger = _ledger(opened)
        newest, public = ledger.checkpoint(), ledger.public_key()
        if newest is None or public is None:
            raise LedgerError("The ledger has no entry yet.", "It begins with the first round or enrolment.")
        # Both are of one size, whatever is added meanwhile.
        lines = b"".join(ledger.export(size=newest.size)) if out is not None else b""
        envelope = ledger.envelope(newest.size)
    if out is not None:
        _write(out, lines)
        typer.echo(f"{out}: {newest.size} entries")
    if checkpoint is not None:
        _write(checkpoint, checkpoint_file(newest, envelope, public))
        typer.echo(f"{checkpoint}: checkpoint of {newest.size} entries, {newest.at[:19]}Z")


@app.command("key")
def show_key(
    state: StateOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the public key (PEM) to this file.")
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Make a new key; the ledger says so for ever, and sites must be told."
        ),
    ] = False,
) -> None:
    """Show the fingerprint of the key that signs ledger and certificates; make it if there is none.

    The private half never leaves the state directory. Keep a copy of it where only the operator gets at it.
    """
    from deploy.admission import open_beside_server
    from reconsent.environment import state_path

    with open_beside_server(state_path(state)) as opened:
        ledger = _ledger(opened)
        public = ledger.replace_key() if replace else ledger.signing_key().public
        path = ledger.key_path
    typer.echo(f"{public.key_id}  {path}")
    if out is not None:
        _write(out, public.pem())
        typer.echo(f"{out}: public key")


def _genuine(kept: list[KeptCheckpoint], trusted: list[PublicKey]) -> list[Any]:
    from unlearning.ledger.checkpoints import read_checkpoint

    known = {key.key_id for key in trusted}
    for one in kept:
        if one.key.key_id not in known:
            raise LedgerError(
                f"A checkpoint kept elsewhere was signed by key {one.key.key_id}, which this ledger does not "
                "name: it is another ledger, or all of it was written anew with another key.",
                "Ask who keeps the checkpoint; if it is genuine, this ledger is not.",
            )
    return [read_checkpoint(one.envelope, trusted) for one in kept]


def _named(contents: list[str]) -> list[PublicKey]:
    """The keys a ledger names itself; of contents that cannot be read the check itself will tell."""
    from unlearning.ledger.entries import Entry
    from unlearning.signing import PublicKey

    found = []
    for content in contents:
        try:
            found.append(PublicKey.from_hex(str(Entry.of(content).body.get("key"))))
        except ReconsentError:
            continue
    return found


def _contents(file: Path) -> Any:
    from unlearning.ledger.entries import KEY_REPLACED, LEDGER_BEGUN
    from unlearning.ledger.exports import exported_rows

    marks = tuple(f'"kind":"{kind}"' for kind in (LEDGER_BEGUN, KEY_REPLACED))
    return (row.content for row in exported_rows(file) if any(mark in row.content for mark in marks))


def _tell(result: Audit, whole: Verification | None, own_keys: bool, json_output: bool) -> None:
    if json_output:
        found = {"sound": (result if whole is None else whole).sound, **asdict(result)}
        if whole is not None:
            found |= {"own": asdict(whole.own), "register": asdict(whole.register)}
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"ledger       {result.ledger or 'has no entry'}")
    if result.fault is not None and result.fault.number <= result.size:
        # Each is signed, but a checkpoint is of others.
        typer.echo(f"entries      {result.size}, of which {result.fault.number - 1} are known to be sound")
    else:
        last = f" sound, the last of {result.at[:19]}Z" if result.size else ""
        typer.echo(f"entries      {result.size}{last}")
    typer.echo(f"root         {result.root}")
    for key_id in result.keys:
        typer.echo(f"signed by    {key_id}" + (" (as the ledger itself says)" if own_keys else ""))
    typer.echo(f"compared     with {_compared(result, whole)}")
    if whole is not None and whole.sound:
        typer.echo(f"register     {_of_register(whole.register)}")
    problem = f"Entry {result.fault.number}: {result.fault.problem}." if result.fault else ""
    if problem := whole.problem if whole is not None else problem:
        typer.echo(problem, err=True)
        return
    typer.echo("Every entry is as it was written.")
    if not result.compared:
        typer.echo("Whether the end was cut off is not known: give --checkpoint FILE, as a site keeps it.")
    elif whole is not None and whole.own.newest is None:
        typer.echo("The server's own checkpoint is gone: of the end, only what was compared with is known.")


def _compared(result: Audit, whole: Verification | None) -> str:
    if whole is None or not result.sound:
        return f"{result.compared} checkpoints"
    own, sites = whole.own.newest, len(whole.own.witnessed)
    found = "no checkpoint of the server's own" if own is None else f"the server's own of {own.size} entries"
    return f"{found}, {sites} that sites confirmed, {whole.elsewhere} kept elsewhere"


def _of_register(register: RegisterCheck) -> str:
    words = [f"{register.compared} steps and acts are what their entries say"]
    if register.uncovered:
        words.append(f"{register.uncovered} of them without texts and names, as a former release wrote them")
    if register.erased:
        words.append(f"the text of {register.erased} was erased")
    if register.before:
        words.append(f"{register.before} are older than the ledger")
    return "; ".join(words)


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise LedgerError(f"{path} cannot be written: {error.strerror}.", "Choose another file.") from None


def _open(state: Path | None) -> StateDirectory:
    from reconsent.environment import state_path
    from server.persistence import StateDirectory

    return StateDirectory.open(state_path(state), writable=False)


def _ledger(opened: StateDirectory) -> Ledger:
    from server.persistence import Ledger

    return Ledger(opened)

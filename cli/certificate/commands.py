"""The commands of ``reconsent certificate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.deployment import StateOption
from cli.register import ByOption, WithdrawalArgument, actor, consortium_of, full_id, opened
from reconsent.errors import SignatureError
from reconsent.files import write_atomically

if TYPE_CHECKING:
    from unlearning.certificate.evidence import Figure
    from unlearning.certificate.statement import Certificate
    from unlearning.signing import PublicKey

app = typer.Typer(
    no_args_is_help=True,
    help="Certificates of withdrawals, signed by two people: issue, countersign, verify, show.",
)

OFFICER = "privacy-officer.pub"
"""File in the state directory: the public key of the privacy officer."""
SECRET = "pseudonym.key"  # noqa: S105 - the name of a file
"""File in the state directory: the secret of the pseudonyms."""

FileArgument = Annotated[Path, typer.Argument(help="The certificate, or the directory it came in.")]


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="Where to keep the private key; the public one is FILE.pub.")],
) -> None:
    """Make the privacy officer's key pair. The private key stays with the officer."""
    from unlearning.signing import load_or_create_key

    made = load_or_create_key(file)
    public = file.with_name(f"{file.name}.pub")
    write_atomically(public, made.public.pem())
    typer.echo(f"{file}: private key, for nobody else; {public}: public key.")
    typer.echo(f"Fingerprint: {made.key_id}")


@app.command()
def issue(
    withdrawal: WithdrawalArgument,
    officer: Annotated[
        Path | None, typer.Option("--officer", help="Public key of the privacy officer; kept for next time.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory for the bundle.")] = Path(),
    evidence: Annotated[
        list[Path] | None, typer.Option("--evidence", help="Figures measured elsewhere (JSON); repeatable.")
    ] = None,
    state: StateOption = None,
    by: ByOption = None,
) -> None:
    """Assemble the certificate of a withdrawal and sign it as the operator.

    Any withdrawal can be certified, also one that was refused or is on legal hold: the claim says so. In a
    simulation the figures are those of its results.json.
    """
    from cli.certificate.bundle import directory_name, write_bundle
    from reconsent.environment import state_path
    from server.certifying import draft, record_on
    from server.persistence import Ledger, PrivacyDesk, Withdrawals
    from unlearning.certificate.pseudonym import load_or_create_secret
    from unlearning.certificate.signed import issue as sign
    from unlearning.certificate.statement import Signers

    path, consortium = state_path(state), consortium_of(state)
    officer_key = _officer(path, officer)
    with opened(state, writable=True) as directory:
        operator = Ledger(directory).signing_key()
        record = Withdrawals(directory).get(full_id(directory, withdrawal))
        after = record_on(directory, record).after
        figures = _figures(path, evidence or [], None if after is None else after.digest)
        made = draft(
            directory,
            consortium,
            record,
            signers=Signers(operator=operator.key_id, privacy_officer=officer_key.key_id),
            secret=load_or_create_secret(path / SECRET),
            figures=figures,
        )
        signed = sign(made.certificate, operator)
        target = out / directory_name(made.certificate)
        file = write_bundle(target, signed, made.files)
        desk = PrivacyDesk(directory, actor(by))
        desk.issued(record.id, made.certificate.certificate_id, signed.content)
    write_atomically(target / "operator.pub", operator.public.pem())
    _say(made.certificate)
    typer.echo(f"{file}: signed by the operator ({operator.key_id[:16]}…).")
    typer.echo(f"The privacy officer reads {file.with_name('certificate.html')}, and signs on their machine:")
    typer.echo(f"  reconsent certificate countersign {target} --key OFFICER_KEY")


@app.command()
def countersign(
    file: FileArgument,
    private_key: Annotated[Path, typer.Option("--key", help="The privacy officer's private key.")],
) -> None:
    """Sign a certificate as the privacy officer; needs no state directory."""
    from cli.certificate.bundle import PAGE, check_files, find_signed
    from cli.certificate.page import page_of
    from unlearning.certificate.signed import countersign as sign
    from unlearning.signing import load_key

    path = find_signed(file)
    signed = sign(path.read_bytes(), load_key(private_key))
    if (path.parent / PAGE).is_file():
        check_files(path.parent, signed.certificate)
        write_atomically(path.parent / PAGE, page_of(signed).encode())
    write_atomically(path, signed.content)
    _say(signed.certificate)
    typer.echo(f"{path}: signed by operator and privacy officer.")


@app.command()
def verify(
    file: FileArgument,
    keys: Annotated[
        list[Path],
        typer.Option("--key", help="Public key that is trusted; give the operator's and the officer's."),
    ],
    consortium: Annotated[
        str | None, typer.Option("--consortium", help="Name the certificate must give its consortium.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print what was signed.")] = False,
) -> None:
    """Verify a certificate, offline: both signatures, every byte, its place in the ledger.

    Given the directory, the files beside it are compared with the hashes that were signed, too.
    """
    from cli.certificate.bundle import check_files, find_signed
    from unlearning.certificate.signed import verify as check
    from unlearning.signing import load_public_key

    path = find_signed(file)
    certificate = check(path.read_bytes(), [load_public_key(key) for key in keys])
    if consortium is not None and certificate.consortium.name != consortium:
        raise SignatureError(
            f"This is a certificate of the consortium '{certificate.consortium.name}', not of '{consortium}'."
        )
    files = check_files(path.parent, certificate) if file.is_dir() else None
    if json_output:
        typer.echo(json.dumps(certificate.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return
    _say(certificate)
    beside = "" if files is None else f"; {files} files of the bundle as they were signed"
    typer.echo(f"VERIFIED: both signatures hold, nothing was altered{beside}.")


@app.command()
def show(
    file: FileArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("certificate.html"),
) -> None:
    """Write a certificate as a page to read. It verifies nothing: see `verify`."""
    from cli.certificate.bundle import find_signed
    from cli.certificate.page import page_of
    from unlearning.certificate.signed import read_unverified

    signed = read_unverified(find_signed(file).read_bytes())
    write_atomically(out, page_of(signed).encode())
    typer.echo(f"{out}: not verified; `reconsent certificate verify` does that.")


def _officer(path: Path, named: Path | None) -> PublicKey:
    from unlearning.signing import load_public_key

    kept = path / OFFICER
    if named is not None:
        found = load_public_key(named)
        write_atomically(kept, found.pem())
        return found
    if not kept.is_file():
        raise SignatureError(
            "It is not known which key the privacy officer signs with.",
            "The officer makes one (`reconsent certificate key FILE`); give FILE.pub with --officer.",
        )
    return load_public_key(kept)


def _figures(path: Path, files: list[Path], after: str | None) -> list[Figure]:
    from cli.certificate.figures import figures_of_file, figures_of_results

    found: list[Figure] = []
    results = path.parent / "results.json"
    if results.is_file() and (path.parent / "consortium.toml").is_file() and after is not None:
        found += figures_of_results(results, after)
    for file in files:
        found += figures_of_file(file)
    return found


def _say(certificate: Certificate) -> None:
    if certificate.notice:
        typer.echo(certificate.notice)
    typer.echo(f"Claim: {certificate.claim_level.value}. {certificate.claim}")
    for reason in certificate.claim_reasons:
        typer.echo(f"  - {reason}")

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
    from unlearning.certificate.statement import Certificate

app = typer.Typer(
    no_args_is_help=True,
    help="Certificates of withdrawals, signed by two people: issue, countersign, verify, show.",
)

FileArgument = Annotated[Path, typer.Argument(help="The signed file, or the directory it came in.")]


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
    replace_officer: Annotated[
        bool,
        typer.Option("--replace-officer", help="The privacy officer has another key than the one kept here."),
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory for the bundle.")] = Path(),
    evidence: Annotated[
        list[Path] | None, typer.Option("--evidence", help="Figures measured elsewhere (JSON); repeatable.")
    ] = None,
    receipts: Annotated[
        list[Path] | None,
        typer.Option("--receipt", help="What the site signed itself (`reconsent site receipt`); repeatable."),
    ] = None,
    state: StateOption = None,
    by: ByOption = None,
) -> None:
    """Assemble the certificate of a withdrawal and sign it as the operator.

    Any withdrawal can be certified, also one that was refused or is on legal hold: the claim says so. In a
    simulation the figures are those of its results.json, which are about its last withdrawal.
    """
    from cli.certificate.bundle import check_target, target_name, write_bundle
    from cli.certificate.issuing import issue_certificate, keep_officer_key, officer_key
    from server.persistence import Withdrawals
    from unlearning.signing import load_public_key

    consortium = consortium_of(state)
    with opened(state, writable=True) as directory:
        id_ = full_id(directory, withdrawal)
        target = out / target_name(id_, simulation=Withdrawals(directory).get(id_).simulated)
        check_target(target)
        if officer is not None:
            key = load_public_key(officer)
            keep_officer_key(directory, key, actor=actor(by), replace=replace_officer)
        issued = issue_certificate(
            directory,
            consortium,
            id_,
            officer=officer_key(directory),
            actor=actor(by),
            evidence=evidence or [],
            receipts=receipts or [],
        )
    made = issued.draft
    file = write_bundle(target, issued.signed, made.files)
    _say(made.certificate)
    if issued.left_out:
        typer.echo(issued.left_out)
    typer.echo(f"{file}: signed by the operator ({issued.operator.key_id[:16]}…).")
    typer.echo(f"The privacy officer reads {file.with_name('certificate.html')}, and signs on their machine:")
    typer.echo(f"  reconsent certificate countersign {target} --key OFFICER_KEY")


@app.command()
def countersign(
    file: FileArgument,
    private_key: Annotated[Path, typer.Option("--key", help="The privacy officer's private key.")],
) -> None:
    """Sign a certificate as the privacy officer; needs no state directory."""
    from cli.certificate.checking import check_files, check_page
    from cli.certificate.reading import Bundle, find_signed
    from unlearning.certificate.layout import MANIFEST
    from unlearning.certificate.signed import countersign as sign
    from unlearning.signing import load_key

    path = find_signed(file)
    signed = sign(path.read_bytes(), load_key(private_key))
    whole = file.is_dir() or (path.parent / MANIFEST).is_file()
    if whole:
        bundle = Bundle.at(path.parent)
        check_files(bundle, signed.certificate, signed=False)
        check_page(bundle, signed.certificate)
    write_atomically(path, signed.content)
    _say(signed.certificate)
    typer.echo(f"{path}: signed by operator and privacy officer.")
    if not whole:
        typer.echo("Only this file was looked at; the files of the bundle were not there.")


@app.command()
def accept(file: FileArgument, state: StateOption = None, by: ByOption = None) -> None:
    """Keep a certificate that came back countersigned: from then on it is on record that both had signed.

    Without that record the console refuses it once the officer's key is replaced: nobody could tell whether
    the officer, or somebody who found the old key, had signed it.
    """
    from cli.certificate.issuing import accept_countersigned
    from cli.certificate.reading import find_signed

    content = find_signed(file).read_bytes()
    with opened(state, writable=True) as directory:
        kept = accept_countersigned(directory, content, actor=actor(by))
    typer.echo(
        f"{kept.id}: signed by operator and privacy officer, kept since {kept.countersigned_at:%Y-%m-%d}."
    )


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

    Given the directory or the zip archive, also every file of the evidence bundle: as it was signed, none
    missing, none added; and the proofs that its ledger entries are in the ledger.
    """
    from cli.certificate.checking import ALONE, check_bundle
    from cli.certificate.reading import Bundle, is_bundle
    from unlearning.certificate.signed import verify as check
    from unlearning.signing import load_public_key

    trusted = [load_public_key(key) for key in keys]
    if is_bundle(file):
        checked = check_bundle(Bundle.at(file), trusted)
        certificate, found = checked.certificate, checked.words
    else:
        if not file.is_file():
            raise SignatureError(f"There is no certificate {file}.", "Check the path.")
        certificate = check(file.read_bytes(), trusted)
        found = [ALONE]
    if consortium is not None and certificate.consortium.name != consortium:
        raise SignatureError(
            f"This is a certificate of the consortium '{certificate.consortium.name}', not of '{consortium}'."
        )
    if json_output:
        typer.echo(json.dumps(certificate.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return
    _say(certificate)
    typer.echo("VERIFIED: both signatures hold, nothing was altered.")
    for words in found:
        typer.echo(f"  - {words}")
    if certificate.notice:
        typer.echo(certificate.notice)


@app.command()
def show(
    file: FileArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("certificate.html"),
    pdf: Annotated[
        Path | None, typer.Option("--pdf", help="Write it as PDF to this file, instead of the page.")
    ] = None,
) -> None:
    """Write a certificate as a page to read. It verifies nothing: see `verify`."""
    from cli.certificate.page import page_of
    from cli.certificate.reading import find_signed
    from unlearning.certificate.signed import read_unverified

    signed = read_unverified(find_signed(file).read_bytes())
    if pdf is None:
        write_atomically(out, page_of(signed).encode())
    else:
        from cli.certificate.pdf import pdf_of

        write_atomically(pdf, pdf_of(signed))
    typer.echo(f"{pdf or out}: not verified; `reconsent certificate verify` does that.")


def _say(certificate: Certificate) -> None:
    if certificate.notice:
        typer.echo(certificate.notice)
    typer.echo(f"Claim: {certificate.claim_level.value}. {certificate.claim}")
    for reason in certificate.claim_reasons:
        typer.echo(f"  - {reason}")

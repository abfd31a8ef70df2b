"""``reconsent audit``: a site checks a model with its own data, and signs what it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from reconsent.errors import ConfigError

if TYPE_CHECKING:
    from reconsent.config import ConsortiumConfig, SiteConfig
    from unlearning.verification.exit_audit import ExitAudit


def audit(
    model: Annotated[Path, typer.Argument(help="The model to audit, as `reconsent model export` wrote it.")],
    data: Annotated[Path, typer.Option("--data", help="Directory of the site's fastMRI files.")],
    organ: Annotated[str, typer.Option("--organ", help="What is imaged there.")],
    consortium: Annotated[
        str, typer.Option("--consortium", help="The consortium file: network, undersampling, seed.")
    ],
    site: Annotated[
        str | None,
        typer.Option("--site", help="Which site this was: its test patients were held out from training."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Directory of patients that nobody trained on, scanned alike."),
    ] = None,
    before: Annotated[
        Path | None, typer.Option("--before", help="The model before the unlearning, to compare with.")
    ] = None,
    key: Annotated[
        Path, typer.Option("--key", help="Private key to sign with; made if there is none.")
    ] = Path("exit-audit.key"),
    out: Annotated[Path, typer.Option("--out", "-o", help="Signed statement to write.")] = Path(
        "exit-audit.json"
    ),
    json_output: Annotated[bool, typer.Option("--json", help="Print the statement as JSON.")] = False,
) -> None:
    """Audit a model with the data of a site that left, and sign the result.

    Everything is computed here; nothing is sent anywhere. The statement holds counts, means and verdicts,
    and nothing of a single patient. Patients of the directory count as trained on, except the site's test
    patients (--site). Membership inference needs patients that nobody trained on: --site or --reference.

    Examples
    --------
      reconsent audit unlearned.safetensors --data /data/knee --organ knee --consortium hospitals.toml
      --site knee --before original.safetensors

      reconsent audit model.safetensors --data mine --reference new --organ knee --consortium tiny
    """
    import json

    from client.exit_audit import audit_data, audit_model, load_model, write_statement
    from reconsent.config import load_consortium
    from unlearning.signing import load_or_create_key

    config = load_consortium(consortium)
    chosen = _site(config, organ, site)
    models = {"model": load_model(model, config)}
    if before is not None:
        models["before"] = load_model(before, config)
    patients = audit_data(data, config, chosen if site else None, chosen.sampling, reference)
    # Before the work: a key that cannot be used should not cost an hour.
    signer = load_or_create_key(key)
    console = Console(stderr=json_output)
    with console.status("Reconstructing the site's volumes …"):
        found = audit_model(models["model"], patients, models.get("before"))
    about = {"organ": organ, "site": site or "", "consortium": config.name}
    envelope = write_statement(out, found, signer, models=models, about=about)
    if json_output:
        typer.echo(json.dumps(envelope, indent=2))
        return
    console.print(_table(found))
    console.print(f"Model {models['model'].digest}")
    console.print(f"Signed by key {signer.key_id}; public key:\n{signer.public.pem().decode()}", end="")
    typer.echo(f"Statement: {out}")


def _site(config: ConsortiumConfig, organ: str, name: str | None) -> SiteConfig:
    """The named site, or any with that organ, for its undersampling."""
    if name is not None:
        found = config.site(name)
        if found.organ != organ:
            raise ConfigError(
                f"Site '{name}' images the {found.organ}, not the {organ}.", f"Use --organ {found.organ}."
            )
        return found
    for candidate in config.sites:
        if candidate.organ == organ:
            return candidate
    organs = ", ".join(sorted({candidate.organ for candidate in config.sites}))
    raise ConfigError(
        f"No site of consortium '{config.name}' images the {organ}, so its undersampling is not known.",
        f"Organs are: {organs}.",
    )


def _table(found: ExitAudit) -> Table:
    table = Table("check", "verdict", "what was found", title=f"Exit audit with {found.members} patients")
    for finding in found.findings:
        table.add_row(finding.check, finding.verdict, finding.words)
    if found.membership is None:
        table.add_row("membership/loss", "not made", "No patients that nobody trained on: see --reference.")
    accuracy = found.accuracy
    table.add_row(
        "accuracy", "", f"{accuracy.mean:.2f} dB ({accuracy.low:.2f} to {accuracy.high:.2f}) on its patients"
    )
    if found.reference_accuracy is not None:
        other = found.reference_accuracy
        table.add_row("", "", f"{other.mean:.2f} dB ({other.low:.2f} to {other.high:.2f}) on the others")
    return table

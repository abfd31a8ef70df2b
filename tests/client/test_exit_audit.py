"""The exit audit at a site: what it finds, what it signs, and what it keeps to itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cli.main import main
from client.exit_audit import audit_data, audit_model, load_model
from client.training import train_locally
from mri.directory import list_volumes
from mri.fastmri_file import read_header
from mri.reconstructors import build_reconstructor
from mri.site_data import synthesise_directory
from reconsent.config import ConsortiumConfig, PhantomConfig, dump_consortium, load_consortium
from reconsent.errors import DataError, ModelError, SignatureError
from unlearning.signing import SigningKey, load_key
from unlearning.verification.audit_statement import read_audit
from unlearning.verification.exit_audit import exit_audit


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ConsortiumConfig]:
    """Eight knee patients, two models, and the consortium file."""
    directory = tmp_path_factory.mktemp("hospital")
    consortium = load_consortium("tiny")
    (directory / "consortium.toml").write_text(dump_consortium(consortium))
    phantom = PhantomConfig(patients=8, slices=1, matrix=(48, 48), coils=2, contrast="PDw-FS")
    synthesise_directory(directory / "data", "knee", phantom, seed=1, prefix="secret")
    site = consortium.site("knee")
    network = build_reconstructor(consortium.model, seed=1)
    _save(network, directory / "untrained.safetensors")
    data = audit_data(directory / "data", consortium, site, site.sampling, None)
    training = consortium.training.model_copy(update={"local_steps": 12})
    train_locally(network, data.members, training, learning_rate=5e-3, seed=1)
    _save(network, directory / "trained.safetensors")
    return directory, consortium


def _save(network: object, path: Path) -> None:
    state = network.state_dict()  # type: ignore[attr-defined]
    save_file({name: np.ascontiguousarray(tensor.numpy()) for name, tensor in state.items()}, path)


def test_audit_tells_the_unlearned_from_the_unchanged(hospital: tuple[Path, ConsortiumConfig]) -> None:
    """A model that got worse on the members has changed; one that nothing was done to has not."""
    directory, consortium = hospital
    site = consortium.site("knee")
    data = audit_data(directory / "data", consortium, site, site.sampling, None)
    untrained, trained = (
        load_model(directory / f"{name}.safetensors", consortium) for name in ("untrained", "trained")
    )
    assert untrained.digest != trained.digest
    forgotten = audit_model(untrained, data, before=trained)
    unchanged = audit_model(trained, data, before=trained)
    verdicts = [{f.check: f.verdict for f in found.findings} for found in (forgotten, unchanged)]
    assert verdicts[0]["changed/members"] == "passed"
    assert verdicts[1]["changed/members"] == "failed"
    assert verdicts[1]["membership-change/loss"] == "failed"
    assert forgotten.members + forgotten.references == 8
    assert forgotten.ks_before is not None
    assert forgotten.ks_before > 0
    assert unchanged.ks_before == 0


def test_statement_is_signed_and_names_nobody(
    hospital: tuple[Path, ConsortiumConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command writes one envelope, signed by the site's key, with no patient, file or directory in it."""
    directory, _ = hospital
    out, key = tmp_path / "audit.json", tmp_path / "site.key"
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    with pytest.raises(SystemExit, match="0"):
        main(
            [
                "audit", str(directory / "untrained.safetensors"), "--data", str(directory / "data"),
                "--organ", "knee", "--consortium", str(directory / "consortium.toml"), "--site", "knee",
                "--before", str(directory / "trained.safetensors"), "--key", str(key), "--out", str(out),
            ]
        )  # fmt: skip
    shown = capsys.readouterr().out
    envelope = json.loads(out.read_text())
    statement = read_audit(envelope, [load_key(key).public])
    text = json.dumps(statement)
    names = [read_header(path).patient for path in list_volumes(directory / "data")]
    assert not any(name in text or name in shown for name in names)
    assert str(directory) not in text
    assert "_rates" not in text
    digest = load_model(directory / "untrained.safetensors", load_consortium("tiny")).digest
    assert statement["subject"][0] == {"name": "model", "digest": {"sha256": digest}}
    assert len(statement["predicate"]["limits"]["audit"]) > 100
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before
    with pytest.raises(SignatureError):
        read_audit(envelope, [SigningKey.generate().public])
    altered = envelope | {"payload": envelope["payload"][:-8] + "AAAAAAA="}
    with pytest.raises(SignatureError):
        read_audit(altered, [load_key(key).public])


def test_wrong_model_and_organ_are_refused(
    hospital: tuple[Path, ConsortiumConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is no model, a model of another network, and an unknown organ end with status 1."""
    directory, consortium = hospital
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(broken, consortium)
    other = consortium.model_copy(update={"model": consortium.model.model_copy(update={"channels": 6})})
    with pytest.raises(ModelError, match="not of the network"):
        load_model(directory / "trained.safetensors", other)
    with pytest.raises(SystemExit, match="1"):
        main(
            [
                "audit", str(directory / "trained.safetensors"), "--data", str(directory / "data"),
                "--organ", "heart", "--consortium", str(directory / "consortium.toml"),
            ]
        )  # fmt: skip
    assert "Organs are: abdomen, brain, knee" in capsys.readouterr().err


def test_audit_without_references_makes_no_attack() -> None:
    """Without patients nobody trained on there is no membership inference, and no verdict about it."""
    found = exit_audit({"a": 0.1, "b": 0.2})
    assert found.membership is None
    assert found.findings == ()
    with pytest.raises(DataError, match="other patients"):
        exit_audit({"a": 0.1}, members_before={"b": 0.1})


def test_audit_without_a_site_takes_everybody_as_trained_on(hospital: tuple[Path, ConsortiumConfig]) -> None:
    """Without --site no patient of the directory is held out."""
    directory, consortium = hospital
    data = audit_data(directory / "data", consortium, None, consortium.site("knee").sampling, None)
    assert len(data.members.patients) == 8
    assert data.references is None

"""A signed certificate: two keys, one form, and no byte that could be changed."""

from __future__ import annotations

import base64
import datetime as dt
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reconsent.errors import ReconsentError, SignatureError
from unlearning.certificate import statement as said
from unlearning.certificate.claim import ClaimLevel
from unlearning.certificate.pseudonym import load_or_create_secret, pseudonym
from unlearning.certificate.signed import countersign, issue, read_unverified, verify
from unlearning.certificate.statement import PAYLOAD_TYPE, SIMULATION, payload_of, read_payload
from unlearning.signing import SigningKey, sign_envelope

OPERATOR, OFFICER, STRANGER = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()
KEYS = (OPERATOR.public, OFFICER.public)
NOON = dt.datetime(2027, 3, 1, 12, tzinfo=dt.UTC)


def certificate(**changes: Any) -> said.Certificate:
    """A certificate with something in every part."""
    model = said.Model(version="v1", round=7, sha256="ab" * 32)
    said_first: dict[str, Any] = {
        "claim_level": ClaimLevel.EMPIRICAL,
        "claim": "Influence reduced.",
        "claim_reasons": ("Lineage has rounds with the site.",),
        "simulation": False,
        "notice": "",
        "outcome": "granted",
        "certificate_id": "C-1",
        "issued_at": NOON,
        "consortium": said.Consortium(name="trial", ledger="cd" * 16, controller="A", privacy_officer="B"),
        "request": said.Request(
            id="W-1", ground="contract-ended", ground_words="the contract ended", scope="site", patients=None,
            time_zone="UTC", received_at=NOON, filed_at=NOON, due_at=NOON, extended_at=None,
            restricted_at=NOON, closed_at=NOON, late=False, documents=("ef" * 32,),
        ),
        "sites": (
            said.Site(pseudonym="site-1", key_fingerprints=("k",), identity="authenticated", first_round=1,
                      last_round=6, rounds=6),
        ),
        "decisions": (said.Decision(at=NOON, what="received", reason=""),),
        "model_before": model,
        "model_after": model,
        "lineage": said.Lineage(versions=9, edges=6, method_reads_history=True),
        "method": said.Method(
            name="cached-ascent", settings={"alpha": 2.5}, fixed_at=NOON, policy_sha256="12" * 32,
            reconsent="0.1.0", code_sha256="34" * 32, packages={"torch": "2"},
        ),
        "evidence": (
            said.EvidenceItem(name="gap/x", about=said.About.FORGETTING, value=0.1, unit="dB", before=3.0,
                              limit_low=-0.5, limit_high=0.5, passed=True, words="w", limits="l"),
        ),
        "not_shown": ("much",),
        "erasure": said.Erasure(
            contributions=6, bytes=600, list_sha256="56" * 32, remaining=0, how="unlinked"
        ),
        "revoked": (model,),
        "recipients": said.Recipients(total=2, notified=1, pending=1),
        "ledger": None,
        "exceptions": ("backups",),
        "environment": {"kind": "deployment"},
        "files": {"policy.json": "78" * 32},
        "signers": said.Signers(operator=OPERATOR.key_id, privacy_officer=OFFICER.key_id),
    }  # fmt: skip
    return said.Certificate(**(said_first | changes))


@pytest.fixture(scope="module")
def content() -> bytes:
    """The file of a certificate that both have signed."""
    return countersign(issue(certificate(), OPERATOR).content, OFFICER).content


def test_both_signatures_make_it_valid(content: bytes) -> None:
    """What is read back is what was signed, and the claim comes first in it."""
    assert verify(content, KEYS) == certificate()
    assert verify(content, KEYS[::-1]) == certificate()
    predicate = json.loads(payload_of(certificate()))["predicate"]
    assert next(iter(predicate)) == "claim_level"


def test_a_certificate_of_an_earlier_release_keeps_its_bytes() -> None:
    """Fields that it did not have are not written into it; in one that has them, none can be left out."""
    former = payload_of(certificate())
    assert b"channel" not in former
    assert payload_of(read_payload(former)) == former
    request = said.Request(**certificate().request.model_dump() | {"channel": "letter", "agreement": None})
    present = payload_of(certificate(request=request))
    assert read_payload(present).request.channel == "letter"
    assert b'"agreement":null' in present
    assert payload_of(read_payload(present)) == present


def test_a_certified_removal_is_refused_without_its_bound() -> None:
    """The level without ε and δ is neither written nor read, nor is a bound beside another level."""
    with pytest.raises(ValidationError, match="bound"):
        certificate(claim_level=ClaimLevel.CERTIFIED)
    bound = said.Bound(epsilon=1.0, delta=1e-6, mechanism="m", assumptions="a", accountant="rdp 1")
    with pytest.raises(ValidationError, match="bound"):
        certificate(bound=bound)
    whole = certificate(claim_level=ClaimLevel.CERTIFIED, bound=bound)
    assert read_payload(payload_of(whole)) == whole
    statement = json.loads(payload_of(whole))
    del statement["predicate"]["bound"]
    with pytest.raises(SignatureError, match="bound"):
        read_payload(json.dumps(statement, ensure_ascii=False, separators=(",", ":")).encode())
    for wrong in ({"epsilon": -1.0}, {"delta": 1.0}, {"mechanism": " "}):
        with pytest.raises(ValidationError):
            said.Bound(**bound.model_dump() | wrong)


def test_every_changed_byte_is_noticed(content: bytes) -> None:
    """Each byte of the file, changed in one bit, changed to another letter, or cut off, makes it invalid."""
    chance = random.Random(0)
    places = (
        sorted(chance.sample(range(len(content)), 300))
        + list(range(120))
        + list(range(len(content) - 500, len(content)))
    )
    for place in places:
        for changed in (content[place] ^ 1, content[place] ^ 0x20, chance.choice(b' \n"Aa=')):
            if changed == content[place]:
                continue
            altered = content[:place] + bytes([changed]) + content[place + 1 :]
            with pytest.raises(ReconsentError):
                verify(altered, KEYS)
    for altered in (content[:-1], content + b"\n", b" " + content, content + content, b""):
        with pytest.raises(ReconsentError):
            verify(altered, KEYS)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in a JSON object."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    yield path
    for key, inner in entries:
        yield from leaves(inner, (*path, key))


def test_every_changed_field_is_noticed(content: bytes) -> None:
    """Each field of what was signed, replaced or removed, makes it invalid, in a sound envelope."""
    envelope = json.loads(content)
    statement = json.loads(base64.b64decode(envelope["payload"]))
    paths = [path for path in leaves(statement) if path]
    assert len(paths) > 100
    for path in paths:
        for change in ("replace", "remove"):
            copy = json.loads(json.dumps(statement))
            place = copy
            for key in path[:-1]:
                place = place[key]
            if change == "remove":
                del place[path[-1]]
            else:
                place[path[-1]] = "x" if place[path[-1]] != "x" else "y"
            text = json.dumps(copy, ensure_ascii=False, separators=(",", ":"))
            forged = {**envelope, "payload": base64.b64encode(text.encode()).decode()}
            with pytest.raises(SignatureError):
                verify((json.dumps(forged, separators=(",", ":")) + "\n").encode(), KEYS)


def test_another_spelling_of_the_same_json_is_refused(content: bytes) -> None:
    """Spaces, the order of keys, a repeated key and another order of signatures are alterations."""
    envelope = json.loads(content)
    swapped = {**envelope, "signatures": envelope["signatures"][::-1]}
    for text in (
        json.dumps(envelope),
        json.dumps(envelope, sort_keys=True, separators=(",", ":")) + "\n",
        json.dumps(swapped, separators=(",", ":")) + "\n",
        content.decode().replace('{"payloadType"', '{"payloadType":"x","payloadType"', 1),
    ):
        with pytest.raises(SignatureError):
            verify(text.encode(), KEYS)


def test_one_signature_is_not_enough(content: bytes) -> None:
    """The operator's alone, the officer's alone, and the operator's twice are refused."""
    alone = issue(certificate(), OPERATOR).content
    with pytest.raises(SignatureError, match="privacy officer is missing"):
        verify(alone, KEYS)
    envelope = json.loads(content)
    first, second = envelope["signatures"]
    for kept in ([second], [first, first], []):
        forged = json.dumps({**envelope, "signatures": kept}, separators=(",", ":")) + "\n"
        with pytest.raises(SignatureError):
            verify(forged.encode(), KEYS)


def test_other_keys_are_not_trusted(content: bytes) -> None:
    """A certificate of another consortium, and one whose second key is unknown, are refused."""
    for keys in ((STRANGER.public, OFFICER.public), (OPERATOR.public, STRANGER.public), (OPERATOR.public,)):
        with pytest.raises(SignatureError, match="was not given"):
            verify(content, keys)
    signers = said.Signers(operator=STRANGER.key_id, privacy_officer=OFFICER.key_id)
    foreign = countersign(issue(certificate(signers=signers), STRANGER).content, OFFICER).content
    with pytest.raises(SignatureError, match="another consortium"):
        verify(foreign, KEYS)


def test_a_signature_for_another_purpose_does_not_count(content: bytes) -> None:
    """The same bytes signed under another payload type are no certificate, whatever the file says."""
    other = sign_envelope(payload_of(certificate()), "application/vnd.other+json", [OPERATOR, OFFICER])
    for payload_type in ("application/vnd.other+json", PAYLOAD_TYPE):
        forged = {
            "payloadType": payload_type, "payload": json.loads(content)["payload"],
            "signatures": [{"keyid": s["keyid"], "sig": s["sig"]} for s in other["signatures"]],
        }  # fmt: skip
        with pytest.raises(SignatureError):
            verify((json.dumps(forged, separators=(",", ":")) + "\n").encode(), KEYS)


def test_only_the_two_named_keys_sign() -> None:
    """Operator and officer must be two, and each is the one that the certificate names."""
    same = said.Signers(operator=OPERATOR.key_id, privacy_officer=OPERATOR.key_id)
    with pytest.raises(SignatureError, match="same key"):
        issue(certificate(signers=same), OPERATOR)
    with pytest.raises(SignatureError, match="another operator"):
        issue(certificate(), STRANGER)
    alone = issue(certificate(), OPERATOR).content
    with pytest.raises(SignatureError, match="names the privacy officer's key"):
        countersign(alone, STRANGER)
    twice = countersign(countersign(alone, OFFICER).content, OFFICER)
    assert (twice.signatures, verify(twice.content, KEYS)) == (2, certificate())
    assert read_unverified(alone).signatures == 1


@pytest.mark.parametrize(
    "hostile",
    [
        {"claim": "exact\x1b[2K\rretrained"},
        {"exceptions": ("none \u202e left",)},
        {"environment": {"kind\x07": "deployment"}},
    ],
)
def test_what_would_deceive_a_reader_is_neither_signed_nor_read(hostile: dict[str, Any]) -> None:
    """Characters that control a terminal, or turn the writing, are in no certificate, whoever made it."""
    made = certificate(**hostile)
    with pytest.raises(SignatureError, match="cannot be shown"):
        issue(made, OPERATOR)
    envelope = sign_envelope(payload_of(made), PAYLOAD_TYPE, [OPERATOR, OFFICER])
    with pytest.raises(SignatureError, match="cannot be shown"):
        read_payload(base64.b64decode(envelope["payload"]))


@pytest.mark.parametrize(
    "name",
    ["../state.sqlite", "..", "/etc/passwd", "a\0b.json", ".json", "A.json", "", "keys/../x.pub",
     "a/b/c.json", "/a.json", "keys/.pub", "a..json", "x/MANIFEST.json", "policy.json\n"],
)  # fmt: skip
def test_files_of_a_bundle_have_plain_names(name: str) -> None:
    """A certificate cannot name a file that lies elsewhere, or has a name that is none."""
    with pytest.raises(ValidationError):
        certificate(files={name: "78" * 32})


def test_a_simulation_says_so() -> None:
    """A certificate of a simulation without the notice, and a notice without a simulation, are refused."""
    simulated = certificate(simulation=True, notice=SIMULATION)
    assert read_payload(payload_of(simulated)) == simulated
    for wrong in (certificate(simulation=True), certificate(notice=SIMULATION)):
        with pytest.raises(SignatureError, match="what kind of run"):
            read_payload(payload_of(wrong))


def test_a_ledger_entry_that_is_not_in_the_ledger_is_noticed() -> None:
    """Even correctly signed, a proof that does not lead to the root is refused."""
    from unlearning.ledger.entries import Entry
    from unlearning.ledger.merkle import MerkleTree, leaf_hash

    tree = MerkleTree()
    entries = [Entry(n + 1, "2027", "withdrawal", {"withdrawal": f"W-{n}"}) for n in range(5)]
    for entry in entries:
        tree.append(leaf_hash(entry.content()))
    place = said.LedgerPosition(
        size=5, root=tree.root().hex(), entry=2, entry_content=entries[1].content().decode(),
        inclusion=tuple(step.hex() for step in tree.inclusion_proof(1)),
    )  # fmt: skip

    def signed(position: said.LedgerPosition) -> bytes:
        return countersign(issue(certificate(ledger=position), OPERATOR).content, OFFICER).content

    assert verify(signed(place), KEYS).ledger == place
    for wrong in (
        {"root": "00" * 32},
        {"entry": 3},
        {"size": 9},
        {"entry_content": entries[2].content().decode()},
    ):
        with pytest.raises(ReconsentError, match="ledger"):
            verify(signed(place.model_copy(update=wrong)), KEYS)


def test_pseudonyms_need_the_secret(tmp_path: Path) -> None:
    """The same secret gives the same name, another secret or consortium another; the file is private."""
    secret = load_or_create_secret(tmp_path / "secret")
    assert load_or_create_secret(tmp_path / "secret") == secret
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    name = pseudonym(secret, "trial", "knee")
    assert name == pseudonym(secret, "trial", "knee")
    others = {
        pseudonym(b"0" * 32, "trial", "knee"),
        pseudonym(secret, "other", "knee"),
        pseudonym(secret, "trialk", "nee"),
    }
    assert name not in others
    assert len(others) == 3
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(SignatureError, match="5 bytes"):
        load_or_create_secret(tmp_path / "secret")

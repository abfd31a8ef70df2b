"""What a bundle proves without the server, and what two who sign together still cannot claim."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from client.receipt import receipt_body
from reconsent.errors import SignatureError
from server.code_version import NOT_RECORDED, git_commit
from tests.cli.certificate.bundle_maker import LEAVER, NODE, Made, command, resigned
from tests.cli.console.console_at_work import PRIVATE_KEYS
from tests.server.hospitals import SITES
from unlearning.certificate import layout
from unlearning.certificate.receipt import read_receipt, sign_receipt
from unlearning.ledger.canonical import canonical


def node(left: bytes, right: bytes) -> bytes:
    """RFC 9162, §2.1.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_by_inclusion(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root of ``size`` leaves, by the recursive definition of PATH (§2.1.3.1)."""
    if size == 1:
        assert not path
        return leaf
    split = 1 << (size - 1).bit_length() - 1
    if index < split:
        return node(root_by_inclusion(leaf, index, split, path[:-1]), path[-1])
    return node(path[-1], root_by_inclusion(leaf, index - split, size - split, path[:-1]))


def roots_by_consistency(
    old: int, new: int, old_root: bytes, path: list[bytes], *, whole: bool = True
) -> tuple[bytes, bytes]:
    """Old and new root, by the recursive definition of SUBPROOF (§2.1.4.1)."""
    if old == new:
        if whole:
            assert not path
            return old_root, old_root
        (only,) = path
        return only, only
    split = 1 << (new - 1).bit_length() - 1
    if old <= split:
        first, second = roots_by_consistency(old, split, old_root, path[:-1], whole=whole)
        return first, node(second, path[-1])
    first, second = roots_by_consistency(old - split, new - split, old_root, path[:-1], whole=False)
    return node(path[-1], first), node(path[-1], second)


def test_the_ledgers_part_is_proved_by_a_reader_of_its_own(made: Made) -> None:
    """Signatures, inclusion and consistency, from the file alone, with nothing of the ledger's own code."""
    lines = [json.loads(line) for line in made.files[layout.SLICE].splitlines()]
    checkpoints, given = [x for x in lines if "checkpoint" in x], [x for x in lines if "number" in x]
    begun = json.loads(given[0]["content"])
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(begun["body"]["key"]))
    sizes: list[int] = []
    last = b""
    for line in checkpoints:
        envelope = line["checkpoint"]
        payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
        key.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
        found = json.loads(payload)
        root = bytes.fromhex(found["root"])
        if sizes:
            path = [bytes.fromhex(step) for step in line["consistency"]]
            assert roots_by_consistency(sizes[-1], found["size"], last, path) == (last, root)
        sizes.append(found["size"])
        last = root
    assert len(sizes) >= 5
    assert sizes == sorted(set(sizes))
    place = made.certificate.ledger
    assert place is not None
    assert (sizes[-1], last.hex()) == (place.size, place.root)
    for line in given:
        leaf = bytes.fromhex(line["leaf"])
        if line["content"] is not None:
            assert hashlib.sha256(b"\x00" + line["content"].encode()).digest() == leaf
        path = [bytes.fromhex(step) for step in line["inclusion"]]
        assert root_by_inclusion(leaf, line["number"] - 1, place.size, path) == last
    own = [json.loads(line["content"]) for line in given if line["content"]]
    steps = [entry["body"]["to"] for entry in own if entry["kind"] == "withdrawal"]
    assert (steps[0], steps[-1]) == ("received", "completed")
    # One checkpoint is that of before the request: what the ledger was until then is committed to, too.
    assert sizes[0] < min(entry["number"] for entry in own if entry["kind"] == "withdrawal")


def test_participants_are_committed_to_round_by_round(made: Made) -> None:
    """Each version's root is that over its pseudonyms; the leaver is under those it touched and no other."""
    lineage = json.loads(made.files["lineage.json"])
    (leaver,) = [site.pseudonym for site in made.certificate.sites]
    assert lineage["touched"]
    assert all(leaver in version["shares"] for version in lineage["touched"])
    for version in [*lineage["versions"], *lineage["touched"]]:
        hashes = [hashlib.sha256(b"\x00" + name.encode()).digest() for name in sorted(version["shares"])]
        while len(hashes) > 1:
            pairs = [hashes[i : i + 2] for i in range(0, len(hashes), 2)]
            hashes = [node(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
        root = hashes[0] if hashes else hashlib.sha256().digest()
        assert version["participants_root"] == root.hex()
    base = lineage["base"]["version"]
    after = [v["version"] for v in lineage["versions"]].index(base) + 1
    assert not any(leaver in version["shares"] for version in lineage["versions"][after:])
    unlearning = json.loads(made.files["unlearning.json"])
    assert leaver not in unlearning["retained"]
    assert len(unlearning["retained"]) == 3
    assert unlearning["rounds"]
    assert unlearning["runs"] == ["1"]


def test_the_bundle_names_code_signers_and_privacy(made: Made) -> None:
    """The commit of this checkout; what nobody knows is said not to be recorded; each key with its role."""
    method = made.certificate.method
    assert method is not None
    policy, unlearning = (json.loads(made.files[name]) for name in ("policy.json", "unlearning.json"))
    for known in (policy, unlearning):
        assert known["git_commit"] == method.git_commit == git_commit()
        # No Flower app was shipped: the test's own nodes answered.
        assert known["fab_sha256"] == method.fab_sha256 == NOT_RECORDED
    manifest = json.loads(made.files[layout.MANIFEST])
    assert [(s["role"], s["key"], s["key_id"]) for s in manifest["signers"]] == [
        ("operator", layout.OPERATOR, made.operator.key_id),
        ("privacy-officer", layout.OFFICER, made.officer.key_id),
    ]
    privacy = json.loads(made.files[layout.PRIVACY])["sites"]
    assert len(privacy) == len(SITES)
    assert [site["site"] for site in privacy if site["withdrawn"]] == [made.certificate.sites[0].pseudonym]
    assert {(site["settings"], site["spent"]) for site in privacy} == {("none", "none")}


def test_a_manifest_that_swaps_the_roles_is_refused(made: Made, tmp_path: Path) -> None:
    """Also if both have signed it: the roles are those of the certificate."""
    manifest = json.loads(made.files[layout.MANIFEST])
    first, second = manifest["signers"]
    first["role"], second["role"] = second["role"], first["role"]
    spoilt = resigned(made, tmp_path, {layout.MANIFEST: canonical(manifest)})
    with pytest.raises(SignatureError, match="another key is said to be that of the privacy-officer"):
        made.check(spoilt)


def edited(content: bytes, edit: Callable[[list[dict[str, Any]]], object]) -> bytes:
    """JSON lines after ``edit``."""
    lines = [json.loads(line) for line in content.splitlines()]
    edit(lines)
    return b"".join(canonical(line) + b"\n" for line in lines)


def drop_first_state(lines: list[dict[str, Any]]) -> None:
    """Take out the entry the certificate names: that of the last change of state."""
    own = [x for x in lines if x.get("content") and '"kind":"withdrawal"' in x["content"]]
    lines.remove(own[-1])


def move_root(lines: list[dict[str, Any]]) -> None:
    """Give a proof of consistency a wrong step."""
    line = next(x for x in lines if x.get("consistency"))
    line["consistency"][0] = "00" * 32


def forge_entry(lines: list[dict[str, Any]]) -> None:
    """Change what an entry says, and leave its hash."""
    line = next(x for x in lines if x.get("content") and '"to":"completed"' in x["content"])
    line["content"] = line["content"].replace('"to":"completed"', '"to":"refused"')


def forge_leaf(lines: list[dict[str, Any]]) -> None:
    """Give an entry another hash."""
    next(x for x in lines if x.get("withheld") or x.get("leaf"))["leaf"] = "11" * 32


def forge_signature(lines: list[dict[str, Any]]) -> None:
    """Give a checkpoint the signature of another."""
    first, second = [x["checkpoint"] for x in lines if "checkpoint" in x][:2]
    first["signatures"] = second["signatures"]


def drop_policy(lines: list[dict[str, Any]]) -> None:
    """Take out the entry of what was fixed before."""
    lines[:] = [x for x in lines if '"act":"policy"' not in (x.get("content") or "")]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (drop_first_state, "the entry that the certificate names is not in it"),
        (move_root, "does not continue"),
        (forge_entry, "not the one that its hash is of"),
        (forge_leaf, "the proof that entry"),
        (forge_signature, "trusted keys"),
        (drop_policy, "limits were not on record"),
        (lambda lines: lines.pop(0), "not a part of a ledger"),
        (lambda lines: lines[0].update(ledger="00" * 16), "another ledger"),
        (lambda lines: lines.append({"more": 1}), "neither an entry nor a checkpoint"),
    ],
)
def test_a_signed_falsehood_about_the_ledger_is_found(
    made: Made, tmp_path: Path, edit: Callable[[list[dict[str, Any]]], object], words: str
) -> None:
    """Operator and officer together cannot sign a part of the ledger whose proofs do not hold."""
    forged = edited(made.files[layout.SLICE], edit)
    with pytest.raises(SignatureError, match=r"audit/slice.jsonl") as failed:
        made.check(resigned(made, tmp_path, {layout.SLICE: forged}))
    assert words.lower() in failed.value.problem.lower()


def test_files_that_contradict_the_certificate_are_found(made: Made, tmp_path: Path) -> None:
    """A manifest that lists less, the key of another, a lineage that leaves the site out."""
    made.check(resigned(made, tmp_path / "same", {}))
    table = json.loads(made.files[layout.MANIFEST])
    table["files"].popitem()
    with pytest.raises(SignatureError, match=r"MANIFEST.json contradicts"):
        made.check(resigned(made, tmp_path / "a", {layout.MANIFEST: canonical(table)}, manifest=False))
    with pytest.raises(SignatureError, match=r"keys/operator.pub contradicts"):
        made.check(resigned(made, tmp_path / "b", {layout.OPERATOR: made.officer.public.pem()}))
    lineage = json.loads(made.files["lineage.json"])
    (leaver,) = [site.pseudonym for site in made.certificate.sites]
    for version in lineage["versions"]:
        version["shares"].pop(leaver, None)
    with pytest.raises(SignatureError, match=r"lineage.json contradicts.*root"):
        made.check(resigned(made, tmp_path / "c", {"lineage.json": canonical(lineage)}))
    for place, nonsense in enumerate((b"[]", b"{", b'{"versions":[3],"touched":[]}', b"\xff")):
        with pytest.raises(SignatureError, match="in a form that is none"):
            made.check(resigned(made, tmp_path / f"n{place}", {"lineage.json": nonsense}))


def test_an_officer_signs_no_page_that_says_something_else(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the officer reads is what the officer signs: another page, or another file, is refused."""
    key = tmp_path / "officer"
    key.write_bytes(made.officer.pem())
    key.chmod(0o600)
    page = made.files[layout.PAGE].replace(b"Participation ended", b"Retrained without the site")
    command("certificate", "countersign", resigned(made, tmp_path / "a", {layout.PAGE: page}), "--key", key,
            status=1)  # fmt: skip
    assert "not the page of this certificate" in capsys.readouterr().err
    spoilt = resigned(made, tmp_path / "b", {})
    (spoilt / "policy.json").write_bytes(b"{}")
    command("certificate", "countersign", spoilt, "--key", key, status=1)
    assert "policy.json was altered" in capsys.readouterr().err


def test_a_receipt_holds_only_by_the_sites_key_and_for_this_ledger(made: Made, tmp_path: Path) -> None:
    """It says what the log says; altered, of another site, or of another ledger it is refused."""
    content = made.files[layout.RECEIPT]
    receipt = read_receipt(content)
    assert receipt.checkpoint is not None
    assert receipt.fingerprint in made.certificate.sites[0].key_fingerprints
    assert [entry["sent"] for entry in receipt.body["worked"]] == ["cd"]
    assert receipt.body["refused"] == {"withdrawn": 1}
    body = receipt_body(made.site / "policy.log.jsonl")
    assert LEAVER not in json.dumps(body)
    for place in range(0, len(content), 37):
        with pytest.raises(SignatureError):
            read_receipt(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    stranger = sign_receipt(body, PRIVATE_KEYS[1])
    with pytest.raises(SignatureError, match="none of the site's"):
        made.check(resigned(made, tmp_path / "a", {layout.RECEIPT: stranger}))
    body["checkpoint"] = {**body["checkpoint"], "root": "00" * 32}
    forked = sign_receipt(body, PRIVATE_KEYS[NODE])
    with pytest.raises(SignatureError, match="not the beginning of this one"):
        made.check(resigned(made, tmp_path / "b", {layout.RECEIPT: forked}))
    for name, file in (("stranger", stranger), ("forked", forked)):
        (tmp_path / name).write_bytes(file)
        command("certificate", "issue", "W-", "--receipt", tmp_path / name, "--out", tmp_path / "out",
                "--state", made.state, status=1)  # fmt: skip
    assert not (tmp_path / "out").exists()

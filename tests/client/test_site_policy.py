"""What is refused, decided without an app."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.code_digest import PACKAGES
from client.policy import SitePolicy, current_policy, policy_path, refusal_of
from client.reasons import is_simulated, told_reason
from client.site_log import LogError, SiteLog, log_path
from reconsent.errors import ConfigError, DataError, ModelError, RoundError

ROOT = Path(__file__).parents[2]
KINDS = ("train", "train.retain", "evaluate", "evaluate.x", "query.identify", "query.x", "steal", "trainer")


@given(
    st.builds(
        SitePolicy,
        withdrawn=st.booleans(),
        may_train=st.booleans(),
        may_be_evaluated=st.booleans(),
        max_rounds_a_day=st.none() | st.integers(0, 3),
        trusted_code=st.sampled_from([(), ("a" * 64,), ("b" * 64,)]),
    ),
    st.sampled_from(KINDS),
    st.none() | st.integers(0, 4),
)
def test_nothing_passes_that_a_key_forbids(policy: SitePolicy, kind: str, trained: int | None) -> None:
    """A message passes if and only if no key of the policy is against it."""
    refusal = refusal_of(policy, kind, code=lambda: "a" * 64, trained_today=lambda: trained)
    base = kind.partition(".")[0]
    limit = policy.max_rounds_a_day
    allowed = (
        not policy.withdrawn
        and policy.trusted_code in ((), ("a" * 64,))
        and base in ("train", "evaluate", "query")
        and (base != "evaluate" or policy.may_be_evaluated)
        and (base != "train" or policy.may_train)
        and (base != "train" or limit is None or (trained is not None and trained < limit))
    )
    assert (refusal is None) is allowed


def test_unknown_key_is_named(tmp_path: Path) -> None:
    """A key that is misspelt is refused with the nearest one that exists, and every other problem with it."""
    path = tmp_path / "policy.toml"
    path.write_text("withdrwan = true\nmax-rounds-a-day = -1\n")
    with pytest.raises(ConfigError, match="did you mean 'withdrawn'") as caught:
        current_policy({"policy": str(path)}, {})
    assert "max-rounds-a-day" in str(caught.value)


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.write_bytes(b"\xff\xfe\x00")])
def test_policy_that_cannot_be_read(make: object, tmp_path: Path) -> None:
    """A directory or bytes that are no text in the policy's place are errors, not an empty policy."""
    make(tmp_path / "policy.toml")  # type: ignore[operator]
    with pytest.raises(ConfigError, match="cannot be read"):
        current_policy({"policy": str(tmp_path / "policy.toml")}, {})


def test_environment_goes_before_the_node(tmp_path: Path) -> None:
    """Both places are the site's; the environment counts first, and the log lies beside the policy."""
    node = {"policy": "/n/policy.toml", "log": "/n/log"}
    both = {"RECONSENT_SITE_POLICY": "/e/policy.toml", "RECONSENT_SITE_LOG": "/e/log"}
    assert policy_path(node, both) == Path("/e/policy.toml")
    assert policy_path(node, {}) == Path("/n/policy.toml")
    assert log_path(node, both) == Path("/e/log")
    assert log_path(node, {}) == Path("/n/log")
    assert log_path({"policy": "/n/policy.toml"}, {}) == Path("/n/policy.log.jsonl")
    assert policy_path({}, {}) is log_path({}, {}) is None


def test_torn_line_spoils_no_other(tmp_path: Path) -> None:
    """After a power cut in the middle of a line the next one begins afresh, and counting passes it over."""
    log = SiteLog(tmp_path / "log")
    log.append("worked", {"type": "train"})
    with log.path.open("ab") as file:
        file.write(b'{"event": "wor')
    log.append("worked", {"type": "train"})
    log.append("worked", {"type": "evaluate"})
    log.append("refused", {"type": "train"})
    assert log.path.read_text().count("\n") == 5
    assert log.trainings(since=0.0) == 2
    assert log.trainings(since=4e9) == 0


def test_log_is_no_way_to_another_file(tmp_path: Path) -> None:
    """A link in the log's place is refused instead of followed."""
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "log").symlink_to(target)
    with pytest.raises(LogError):
        SiteLog(tmp_path / "log").append("worked", {})
    assert target.read_text() == ""


def test_several_processes_log(tmp_path: Path) -> None:
    """Lines of processes that write at once do not mix."""
    program = (
        "import sys; from pathlib import Path; from client.site_log import SiteLog\n"
        "log = SiteLog(Path(sys.argv[1]))\n"
        "for n in range(50): log.append('worked', {'type': 'train', 'pad': 'x' * 3000})"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "log")]
    running = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert SiteLog(tmp_path / "log").trainings(since=0.0) == 150


def test_digest_changes_with_the_code(tmp_path: Path) -> None:
    """The same packages elsewhere have the same digest; one changed character gives another."""
    here, there = tmp_path / "here", tmp_path / "there"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, here / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(here, there)

    def digest(place: Path) -> str:
        program = "from client.code_digest import code_digest; import sys; sys.stdout.write(code_digest())"
        command = [sys.executable, "-c", program]
        return subprocess.run(command, cwd=place, capture_output=True, text=True, check=True).stdout

    whole = digest(here)
    assert len(whole) == 64
    assert digest(there) == whole
    with (there / "client" / "training.py").open("a") as file:
        file.write("#")
    assert digest(there) != whole


@given(st.sampled_from([RoundError, ModelError, DataError, ConfigError, OSError]), st.text(min_size=3))
def test_names_never_pass(kind: type[Exception], name: str) -> None:
    """Whatever the error, words with one of the site's names in them are not told."""
    text = told_reason(kind(f"It failed at {name} today"), reference="0a", names=[name])
    assert text == f"{kind.__name__}: the details stay at the site, in its node's output under 0a."


def test_only_a_counted_node_in_ray_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployed node is never taken for a simulated one, even if it is counted."""
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert not is_simulated({"partition-id": 0})
    monkeypatch.setitem(sys.modules, "ray", sys)
    assert is_simulated({"partition-id": 0})
    assert not is_simulated({"partition-id": 0, "site": "north"})
    assert not is_simulated({"site": "north"})

"""A consortium that is trained once, and unlearned from there."""

from __future__ import annotations

from pathlib import Path

from cli.trials import trained
from reconsent.config import ConsortiumConfig, WithdrawalConfig, load_consortium
from server.bookkeeping import MAIN, ORACLE


def consortium() -> ConsortiumConfig:
    """One of the knee's three training patients leaves."""
    tiny = load_consortium("tiny")
    phantom = {"slices": 1, "matrix": (32, 32), "patients": 5}
    changes = {
        "withdrawals": (WithdrawalConfig(sites=("knee",), patients=("knee-000",)),),
        "training": tiny.training.model_copy(update={"rounds": 2, "local_steps": None, "evaluate_every": 0}),
        "unlearning": tiny.unlearning.model_copy(update={"rounds_fraction": 1.0}),
        "assessment": tiny.assessment.model_copy(update={"relearn_steps": (1,)}),
        "model": tiny.model.model_copy(update={"channels": 2, "pools": 1, "sensitivity_pools": 1}),
        "sites": tuple(
            s.model_copy(update={"phantom": s.phantom.model_copy(update=phantom)}) for s in tiny.sites
        ),
    }
    return tiny.model_copy(update=changes)


def test_patients_of_a_site_that_stays(tmp_path: Path) -> None:
    """Their site trains with them before, without them in the oracle, and on both parts in an attempt."""
    with trained(tmp_path / "run", consortium(), workers=0) as found:
        log = found.coordinator.books.log
        before = log.all(MAIN)[-1].sites
        oracle = log.all(ORACLE)[-1].sites
        assert set(before) == set(oracle) == {"brain", "abdomen", "knee"}
        assert oracle["knee"].num_examples == before["knee"].num_examples - 1
        assert oracle["brain"].num_examples == before["brain"].num_examples
        attempt = found.attempt("ga-l1-ft", {"forget-rate": 0.3})
        assert ["forget-norm" in note for note in attempt.notes] == [True, False], "the two parts take turns"
        nothing = found.measure(
            found.coordinator.books.arrays(found.coordinator.books.version(MAIN, "train"))
        )
    assert nothing == found.original
    assert attempt.figures != found.original
    assert attempt.gaps.keys() == {"retain_test", "forget_test", "forget_train"}

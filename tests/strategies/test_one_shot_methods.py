"""Methods that move the model once: Fast-FedUL and weight negation, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reconsent.errors import ConfigError, ContributionError
from strategies import Departure, build_method
from strategies import messages as msg
from tests.quadratic_unlearning import (
    EVERYBODY,
    RATE,
    REMAINING,
    ROUNDS,
    SHARE,
    departure,
    path,
    theta,
    trained,
    unlearn,
    update,
)


def damped(alpha: float) -> np.ndarray:
    """Fast-FedUL's U on the quadratic path: Σₜ (1 − α (1 − p))^(T − t) p Δᵤᵗ."""
    factors = [(1 - alpha * (1 - SHARE)) ** (ROUNDS - t) for t in range(1, ROUNDS + 1)]
    return sum(f * SHARE * update(4, t) for t, f in enumerate(factors, start=1))


@pytest.mark.parametrize("alpha", [0.0, 0.07])
def test_fast_fedul_is_its_recursion(alpha: float, tmp_path: Path) -> None:
    """θ' = θ_T − U with U damped round by round, and nobody is asked for anything."""
    grid, models, cache = trained(tmp_path)
    _, outcomes, after = unlearn("fast-fedul", {"damping": alpha}, grid, models, cache)
    np.testing.assert_allclose(after, theta(models[ROUNDS]) - damped(alpha), atol=5e-6)
    assert not outcomes
    assert not grid.sent


def test_fast_fedul_with_repair_trains_on_with_the_others(tmp_path: Path) -> None:
    """With repair two retain-only rounds follow from the subtracted model."""
    grid, models, cache = trained(tmp_path)
    _, outcomes, after = unlearn("fast-fedul", {"repair": True, "strength": 0.5}, grid, models, cache)
    start = theta(models[ROUNDS]) - 0.5 * damped(0.07)
    np.testing.assert_allclose(after, path(2, REMAINING, start), atol=5e-6)
    assert outcomes[0].notes["step-norm"] == pytest.approx(0.5 * np.linalg.norm(damped(0.07)), rel=1e-5)


def test_a_thinned_history_stands_for_all_rounds(tmp_path: Path) -> None:
    """With every second update kept the undamped sum is within five per cent of the whole one."""
    grid, models, cache = trained(tmp_path, history_every=2)
    _, _, after = unlearn("fast-fedul", {"damping": 0.0}, grid, models, cache)
    moved = theta(models[ROUNDS]) - after
    assert np.linalg.norm(moved - damped(0.0)) < 0.05 * np.linalg.norm(damped(0.0))


def test_fast_fedul_without_history_says_how_to_get_one(tmp_path: Path) -> None:
    """It does not begin without single updates, and names the setting that keeps them."""
    grid, models, cache = trained(tmp_path, history_every=0)
    with pytest.raises(ContributionError, match=r"fast-fedul cannot begin.*history-every"):
        unlearn("fast-fedul", {}, grid, models, cache)


def layered() -> msg.ArrayRecord:
    """A bias before two layers of weights, and a counter."""
    return msg.array_record(
        {
            "bias": np.array([1.0, 2.0], dtype=np.float32),
            "first.weight": np.array([[3.0, -4.0]], dtype=np.float32),
            "second.weight": np.array([[5.0]], dtype=np.float32),
            "calls": np.array(7, dtype=np.int64),
        }
    )


@pytest.mark.parametrize(
    ("layers", "negated"),
    [
        ("", {"first.weight"}),
        ("second.weight", {"second.weight"}),
        ("bias, second.weight", {"bias", "second.weight"}),
    ],
)
def test_weight_negation_turns_the_sign_of_its_layers_only(layers: str, negated: set[str]) -> None:
    """By default the first array with two dimensions; otherwise those named; the rest stays as it is."""
    leaving = Departure(frozenset({"node-4"}), 3, 1, 0.1, layered)
    strategy = build_method("weight-negation", {"layers": layers, "repair": False}, leaving)
    after = msg.named_arrays(strategy.finish(strategy.begin(None, layered())))  # type: ignore[arg-type]
    for name, before in msg.named_arrays(layered()).items():
        np.testing.assert_array_equal(after[name], -before if name in negated else before)


def test_weight_negation_then_retain_only_rounds(tmp_path: Path) -> None:
    """On the quadratic model, which has one array, −G is trained on with the remaining sites."""
    grid, models, _ = trained(tmp_path)
    _, _, after = unlearn("weight-negation", {}, grid, models, None)
    np.testing.assert_allclose(after, path(2, REMAINING, -theta(models[ROUNDS])), atol=1e-5)


def test_an_unknown_layer_is_refused() -> None:
    """A name that the model has not is answered with those that it has."""
    strategy = build_method("weight-negation", {"layers": "third.weight"}, departure({0: layered()}))
    with pytest.raises(ConfigError, match=r"no array 'third\.weight'.*first\.weight"):
        strategy.begin(None, layered())  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "momentum"), [("full-ft", 0.0), ("retain-ft-momentum", 0.8)])
def test_fine_tuning_controls(name: str, momentum: float, tmp_path: Path) -> None:
    """full-ft is plain averaging; with momentum m ← β m + Δ̄, and β = 0 in the last quarter of the rounds."""
    grid, models, _ = trained(tmp_path)
    _, _, after = unlearn(name, {}, grid, models, None, budget=4)
    w, m = theta(models[ROUNDS]), np.zeros(30)
    for t in range(4):
        m = (momentum if t < 3 else 0.0) * m + RATE * (REMAINING - w)
        w = w + m
    np.testing.assert_allclose(after, w, atol=1e-5)


def test_subtraction_then_distillation_from_the_old_model(tmp_path: Path) -> None:
    """θ' = θ_T − Σ p Δ_u; each distillation closes η of the way back to G, and no target is used."""
    grid, models, cache = trained(tmp_path)
    _, outcomes, after = unlearn("subtract-distil", {}, grid, models, cache, budget=3)
    original = theta(models[ROUNDS])
    np.testing.assert_allclose(after, original - (1 - RATE) ** 3 * damped(0.0), atol=1e-5)
    assert {s.bytes_down for s in outcomes[0].sites} == {2 * msg.payload_bytes(models[ROUNDS])}
    assert {m.metadata.dst_node_id for m in grid.sent} == {1, 2, 3}


def test_distillation_can_end_with_training(tmp_path: Path) -> None:
    """The last rounds of the budget train on the sites' own targets if asked to."""
    grid, models, cache = trained(tmp_path)
    settings = {"post-training": 1}
    _, _, after = unlearn("subtract-distil", settings, grid, models, cache, budget=2)
    distilled = theta(models[ROUNDS]) - (1 - RATE) * damped(0.0)
    np.testing.assert_allclose(after, path(1, REMAINING, distilled), atol=1e-5)


def test_projected_ascent_on_cached_updates_by_hand(tmp_path: Path) -> None:
    """From the others' last mean model two cached updates are gone back; the ball cuts the second short."""
    grid, models, cache = trained(tmp_path)
    reference = path(ROUNDS - 1, EVERYBODY) + RATE * (REMAINING - path(ROUNDS - 1, EVERYBODY))
    first, second = update(4, ROUNDS), update(4, ROUNDS - 1)
    delta = np.linalg.norm(first) + 0.5 * np.linalg.norm(second)
    settings = {"steps": 2, "radius": delta / np.linalg.norm(reference), "repair": False}
    _, _, after = unlearn("pga-cached", settings, grid, models, cache)
    free = reference - first - second
    cut = reference + delta / np.linalg.norm(free - reference) * (free - reference)
    assert np.linalg.norm(free - reference) > delta
    np.testing.assert_allclose(after, cut, atol=1e-5)
    _, _, whole = unlearn("pga-cached", {**settings, "radius": 1e3}, grid, models, cache)
    np.testing.assert_allclose(whole, free, atol=1e-5)

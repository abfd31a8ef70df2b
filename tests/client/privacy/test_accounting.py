"""What DP-SGD spends: our accounting against Opacus', formulas written out, and the literature."""

from __future__ import annotations

import math
import warnings

import pytest
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.accountants.accountant import IAccountant
from opacus.accountants.analysis.rdp import compute_rdp
from scipy.integrate import quad

from client.privacy.accounting import AccountantName, Mechanism, epsilon_spent, noise_multiplier_for
from reconsent.errors import ConfigError
from strategies.gaussian_mechanism import delta_of, epsilon_of

DELTA = 1e-5
STEPS = (Mechanism(1.1, 0.05, 30), Mechanism(0.8, 0.2, 5), Mechanism(1.1, 0.05, 12))
"""A training, another training, and an unlearning at the noise of the first."""


@pytest.mark.parametrize(("name", "accountant"), [("rdp", RDPAccountant()), ("prv", PRVAccountant())])
def test_equals_opacus_step_by_step(name: AccountantName, accountant: IAccountant) -> None:
    """ε of our ledger equals that of Opacus' accountant told of each step as its optimiser would tell it."""
    for mechanism in STEPS:
        for _ in range(mechanism.steps):
            accountant.step(noise_multiplier=mechanism.noise_multiplier, sample_rate=mechanism.sample_rate)
    expected = accountant.get_epsilon(DELTA)
    # Composition has no order; PRV convolves in the order given, within its own error.
    assert epsilon_spent(STEPS, DELTA, name) == pytest.approx(expected, rel=1e-12 if name == "rdp" else 1e-4)


def test_prv_is_tighter() -> None:
    """Both are upper bounds; the numerical one is the lower of them."""
    assert 0 < epsilon_spent(STEPS, DELTA, "prv") < epsilon_spent(STEPS, DELTA, "rdp")


def test_by_hand_without_sampling() -> None:
    """Everybody in every step: Rényi ε(α) = T α/2σ², converted by Canonne, Kamath & Steinke 2020."""
    sigma, steps = 5.0, 20
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
    by_hand = min(
        steps * a / (2 * sigma**2) + math.log1p(-1 / a) - (math.log(DELTA) + math.log(a)) / (a - 1)
        for a in orders
    )
    assert epsilon_spent([Mechanism(sigma, 1.0, steps)], DELTA) == pytest.approx(by_hand, rel=1e-9)


def test_prv_is_exact_without_sampling() -> None:
    """T Gaussian steps over everybody are one with σ/√T, whose ε is known in closed form."""
    exact = epsilon_of([5.0] * 20, DELTA)
    numerical = epsilon_spent([Mechanism(5.0, 1.0, 20)], DELTA, "prv")
    # An upper bound: Opacus adds the error it allows itself, 0.01.
    assert exact <= numerical <= exact + 0.03
    assert epsilon_spent([Mechanism(5.0, 1.0, 20)], DELTA, "rdp") > exact


def test_value_of_abadi_et_al() -> None:
    """q = 0.01, σ = 4, T = 10 000, δ = 1e-5: the moments accountant gives 1.26 (Abadi et al. 2016, 3.2).

    Their conversion, min over whole orders of ε(α) + log(1/δ)/(α − 1), on the same Rényi curve gives their
    figure; the newer conversion and PRV, which are tighter, stay below it.
    """
    orders = list(range(2, 65))
    curve = compute_rdp(q=0.01, noise_multiplier=4.0, steps=10_000, orders=orders)
    theirs = min(e + math.log(1 / DELTA) / (a - 1) for e, a in zip(curve, orders, strict=True))
    assert theirs == pytest.approx(1.26, abs=0.01)
    case = [Mechanism(4.0, 0.01, 10_000)]
    assert epsilon_spent(case, DELTA, "prv") < epsilon_spent(case, DELTA, "rdp") < 1.26


def test_gaussian_mechanism_against_its_integral() -> None:
    """δ(ε) is ∫ max(0, p − e^ε q) of the two densities themselves."""
    mu, epsilon = 0.7, 0.9

    def excess(x: float) -> float:
        p, q = math.exp(-((x - mu) ** 2) / 2), math.exp(-(x**2) / 2)
        return max(0.0, p - math.exp(epsilon) * q) / math.sqrt(2 * math.pi)

    threshold = epsilon / mu + mu / 2
    assert delta_of(mu, epsilon) == pytest.approx(quad(excess, threshold, threshold + 30)[0], rel=1e-8)


def test_gaussian_mechanism_is_below_the_classical_bound() -> None:
    """σ = √(2 ln(1.25/δ))/ε (Dwork & Roth 2014, theorem A.1) is enough for ε, and more than enough."""
    sigma = math.sqrt(2 * math.log(1.25 / DELTA)) / 0.9
    assert epsilon_of([sigma], DELTA) < 0.9
    # Balle & Wang 2018: at ε = 1 the exact σ is 3.73 where the classical formula has 4.84.
    assert epsilon_of([3.7306], DELTA) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("target", [1.0, 8.0])
def test_noise_reaches_the_epsilon_asked_for(target: float) -> None:
    """The noise found stays within ε after all steps, and not far below it."""
    sigma = noise_multiplier_for(target, DELTA, 0.1, 100)
    spent = epsilon_spent([Mechanism(sigma, 0.1, 100)], DELTA)
    assert target - 0.02 < spent <= target


def test_no_noise_is_enough_for_nothing() -> None:
    """An ε that no noise reaches is refused, and what to do is said."""
    with pytest.raises(ConfigError, match="Allow a larger ε"):
        noise_multiplier_for(1e-9, 1e-12, 1.0, 100_000)


def test_epsilon_is_never_negative() -> None:
    """At a δ that promises nothing, Opacus' RDP accountant would say less than 0; the account says 0."""
    accountant = RDPAccountant()
    accountant.history = [(2.0, 0.5, 3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert accountant.get_epsilon(0.9) < 0
    assert epsilon_spent([Mechanism(2.0, 0.5, 3)], 0.9) == 0


def test_nothing_spent_and_no_noise() -> None:
    """No step spends nothing; a step with hardly any noise spends more than any ceiling."""
    assert epsilon_spent([], DELTA) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert epsilon_spent([Mechanism(1e-3, 1.0, 1)], DELTA) > 1e3


@pytest.mark.timeout(60)
def test_hardly_any_noise_is_accounted_in_time() -> None:
    """Where ε is enormous, PRV's grid would take minutes; the bound that is told is that of RDP."""
    loud = [Mechanism(1.0, 0.5, 5000)]
    assert epsilon_spent(loud, DELTA, "prv") == epsilon_spent(loud, DELTA, "rdp") > 100

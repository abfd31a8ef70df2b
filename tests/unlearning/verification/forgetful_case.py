"""A small but real federation: three sites of synthetic data, a network, and everything the checks need.

The withdrawn site's inputs use coordinates of their own, so that nothing the others train touches what was
learned from it: fine-tuning alone cannot forget it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from unlearning.verification.alignment import alignment
from unlearning.verification.finding import Finding
from unlearning.verification.function_distance import function_distance, output_distance
from unlearning.verification.kolmogorov import error_distributions
from unlearning.verification.likelihood_ratio import balanced_memberships, likelihood_ratio_scores
from unlearning.verification.membership import compare_attacks, loss_scores, patient_means
from unlearning.verification.oracle_gap import oracle_gap
from unlearning.verification.relearning import Continuation, relearn_gap

INPUTS, HIDDEN, OUTPUTS = 24, 96, 16
ROUNDS, STEPS, RATE = 40, 6, 0.01
SAMPLES = 6
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Data:
    """Volumes ``(volumes, samples, features)`` with the patient of each."""

    x: torch.Tensor
    y: torch.Tensor
    patients: tuple[str, ...]

    def of(self, chosen: Sequence[str]) -> Data:
        """The volumes of some patients."""
        where = [i for i, p in enumerate(self.patients) if p in set(chosen)]
        return Data(self.x[where], self.y[where], tuple(self.patients[i] for i in where))


def site(name: str, seed: int, first: int, patients: int) -> Data:
    """Two volumes a patient; inputs live in twelve coordinates from ``first`` on."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(first).normal(0, 1.0, (12, OUTPUTS)) / np.sqrt(12)
    x = np.zeros((2 * patients, SAMPLES, INPUTS), dtype=np.float32)
    x[..., first : first + 12] = rng.normal(0, 1, (2 * patients, SAMPLES, 12))
    y = np.tanh(x[..., first : first + 12] @ truth) + rng.normal(0, 0.15, (2 * patients, SAMPLES, OUTPUTS))
    names = tuple(f"{name}{i // 2:02d}" for i in range(2 * patients))
    return Data(torch.from_numpy(x), torch.from_numpy(y.astype(np.float32)), names)


def network(seed: int) -> torch.nn.Sequential:
    """Two layers with small initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(
            torch.nn.Linear(INPUTS, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, OUTPUTS)
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.3)
        return model


def vector(model: torch.nn.Module) -> Vector:
    """All parameters in one."""
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy().copy()


def train(start: Vector, data: Data, *, seed: int, steps: int = STEPS, rate: float = RATE) -> Vector:
    """Local training of one site."""
    model = network(0)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(start.copy()), model.parameters())
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    x, y = data.x.flatten(0, 1), data.y.flatten(0, 1)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(x.shape[0] * steps) % x.shape[0])
    for part in order.chunk(steps):
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(model(x[part]), y[part]).backward()
        optimiser.step()
    return vector(model)


def federate(
    start: Vector, sites: Sequence[Data], *, seed: int, rounds: int = ROUNDS
) -> tuple[Vector, list[list[Vector]]]:
    """Federated averaging; the model and the updates of each site."""
    theta, updates = start, [[] for _ in sites]
    for number in range(rounds):
        rate = RATE * 0.1 ** (number / max(rounds - 1, 1))
        for place, data in enumerate(sites):
            updates[place].append(
                train(theta, data, seed=seed * 1000 + number * 10 + place, rate=rate) - theta
            )
        theta = theta + np.mean([u[-1] for u in updates], axis=0)
    return theta, updates


@torch.inference_mode()
def outputs(theta: Vector, data: Data) -> npt.NDArray[np.float32]:
    """What the network makes of each volume."""
    model = network(0)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(theta.copy()), model.parameters())
    return model(data.x).numpy()


def nmse(theta: Vector, data: Data) -> npt.NDArray[np.float64]:
    """Error of each volume."""
    found, truth = outputs(theta, data), data.y.numpy()
    return np.array([output_distance(a, b) for a, b in zip(found, truth, strict=True)])


def accuracy(theta: Vector, data: Data) -> npt.NDArray[np.float64]:
    """Accuracy of each volume in dB."""
    return -10 * np.log10(nmse(theta, data))


@dataclass
class Case:
    """The consortium, its oracles, and the controls."""

    retain: list[Data] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sites = [site("a", 1, 0, 12), site("b", 2, 0, 12)]
        pool = site("f", 3, 12, 24)
        names = sorted(set(pool.patients))
        self.pool, self.members, self.others = pool, names[:12], names[12:]
        self.forget, self.held_out = pool.of(self.members), pool.of(self.others)
        self.retain_test = site("t", 4, 0, 12)
        self.fresh = site("n", 5, 12, 8)
        self.start = vector(network(100))
        self.original, updates = federate(self.start, [*self.sites, self.forget], seed=7)
        self.directions = updates[2]
        self.oracle, _ = federate(self.start, self.sites, seed=7)
        self.same_start, _ = federate(self.start, self.sites, seed=8)
        self.other_oracles = [
            federate(vector(network(seed)), self.sites, seed=seed)[0] for seed in (201, 202)
        ]
        self.query, _ = federate(self.start, [self.forget], seed=9)
        self.trained_on = balanced_memberships(len(names), 16, seed=5)
        self.shadows = []
        for number, inside in enumerate(self.trained_on):
            chosen = [name for name, yes in zip(names, inside, strict=True) if yes]
            theta, _ = federate(self.start, [*self.sites, pool.of(chosen)], seed=300 + number, rounds=20)
            self.shadows.append(self.statistic(theta))

    def statistic(self, theta: Vector) -> npt.NDArray[np.float64]:
        """−log error of each patient of the withdrawn site, members first."""
        return loss_scores(list(self.errors(theta, self.pool).values()))

    def errors(self, theta: Vector, data: Data) -> dict[str, float]:
        """Patient → mean error."""
        return patient_means(nmse(theta, data), data.patients)

    def controls(self) -> dict[str, Vector]:
        """Models that must fail."""
        rng = np.random.default_rng(11)
        whole = np.sum(self.directions, axis=0) / 3
        random = rng.normal(size=whole.size).astype(np.float32)
        random *= np.linalg.norm(whole) / np.linalg.norm(random)
        tuned, _ = federate(self.original, self.sites, seed=12, rounds=4)
        return {
            "doing nothing": self.original,
            "fine-tuning alone": tuned,
            "random direction": federate(self.original + random, self.sites, seed=12, rounds=4)[0],
            "wrong sign": federate(self.original + whole, self.sites, seed=12, rounds=4)[0],
            "collapsed": self.original - 8 * whole,
        }

    def trained_on_without(self, theta: Vector) -> Vector:
        """A model after two more rounds without the withdrawn site."""
        return federate(theta, self.sites, seed=21, rounds=2)[0]

    def curve(self, theta: Vector) -> dict[int, float]:
        """Accuracy on held-out patients after steps of relearning."""
        return {
            steps: float(accuracy(train(theta, self.fresh, seed=3, steps=steps), self.held_out).mean())
            for steps in (4, 8, 16)
        }

    def check(self, theta: Vector, *, other: Vector | None = None) -> dict[str, Finding]:
        """Every check of one model against the oracles.

        ``other`` stands in for the model in the check of the parameters, which compares only models that
        began alike.
        """
        oracles = [self.oracle, *self.other_oracles]
        found: list[Finding] = []
        sets = {"retain-test": self.retain_test, "forget-test": self.held_out, "forget-train": self.forget}
        for name, data in sets.items():
            theirs = np.stack([accuracy(o, data) for o in oracles])
            gap = oracle_gap(name, accuracy(theta, data), theirs, data.patients, margin=0.5)
            found.append(gap.finding())
        curves = [self.curve(o) for o in oracles]
        found.append(relearn_gap(self.curve(theta), *curves, margin=0.75).finding())
        on = self.trained_on_without(theta)
        reference = np.mean([accuracy(o, self.held_out).mean() for o in oracles])
        before, after = (float(accuracy(m, self.held_out).mean() - reference) for m in (theta, on))
        found.append(Continuation(before, after, 2, 0.5).finding())
        images = [outputs(o, self.pool) for o in oracles]
        distances = [
            [output_distance(a, b) for a, b in zip(outputs(m, self.pool), images[0], strict=True)]
            for m in (theta, self.original, *self.other_oracles)
        ]
        found.append(function_distance(distances[0], distances[1], distances[2:]).finding())
        for attack, scores in self.attacks().items():
            ours, theirs = scores(theta), scores(self.oracle)
            cut = len(self.members)
            found.append(
                compare_attacks(
                    attack,
                    (ours[:cut], ours[cut:]),
                    (theirs[:cut], theirs[cut:]),
                    others=[scores(o)[:cut] for o in self.other_oracles],
                ).finding()
            )
        errors = [np.log(nmse(m, self.forget)) for m in (theta, self.oracle, *self.other_oracles, self.query)]
        found.append(
            error_distributions(
                errors[0], errors[1], self.forget.patients, query=errors[-1], others=errors[2:-1]
            ).finding()
        )
        own = theta if other is None else other
        found.append(alignment(own, self.original, self.start, self.directions, oracle=self.oracle).finding())
        return {finding.check: finding for finding in found}

    def attacks(self):
        """Attack → scores of every patient of the withdrawn site."""
        table = np.stack(self.shadows)
        return {
            "loss": self.statistic,
            "lira": lambda m: likelihood_ratio_scores(self.statistic(m), table, self.trained_on),
        }

"""Opacus' DP optimiser, fed with exact gradients a unit at a time, with noise from our own source."""

from __future__ import annotations

from collections.abc import Callable

import torch
from opacus.optimizers import DPOptimizer

from client.privacy.gradients import Gradients
from strategies.noise import NoiseSource


class UnitOptimiser:
    """One step of DP-SGD (Abadi et al., CCS 2016, algorithm 1): clip each unit, sum, add noise, divide, step.

    Opacus' :class:`~opacus.optimizers.DPOptimizer` clips, sums, scales and steps; it holds one clipped sum,
    however many units are in a step. A unit whose gradient is not finite counts as zero: it can neither break
    the sum nor be told from a unit that was not drawn by an error.

    Parameters
    ----------
    optimiser
        Torch's, over the trainable parameters.
    noise_multiplier
        Standard deviation of the noise over ``max_grad_norm``.
    max_grad_norm
        Largest Euclidean norm of a unit's gradient, over all parameters together.
    expected_units
        Units in a step on average: what the noised sum is divided by. The number drawn is not used, as it
        depends on who is there.
    source
        Of the noise.
    after_step
        Told the optimiser after each step, as Opacus' accountants want.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_units: float,
        source: NoiseSource,
        after_step: Callable[[DPOptimizer], None] | None = None,
    ) -> None:
        self._dp = _SourcedOptimizer(
            optimiser,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            # Only divided by, so it need not be whole.
            expected_batch_size=expected_units,
            source=source,
        )
        if after_step is not None:
            self._dp.attach_step_hook(after_step)

    def add(self, gradients: Gradients) -> None:
        """Clip the gradients of some units, ``(units, *parameter)`` a parameter, and add them to the sum."""
        norms = torch.stack([g.reshape(len(g), -1).norm(dim=1) for g in gradients]).norm(dim=0)
        finite = torch.isfinite(norms)
        if not bool(finite.all()):
            gradients = [g[finite] for g in gradients]
        self._hand_over(gradients)
        self._dp.signal_skip_step(True)
        self._dp.step()
        self._dp.zero_grad(set_to_none=True)

    def clipped_sum(self) -> Gradients | None:
        """The sum so far, before any noise; ``None`` if nothing was added. It must not be released."""
        sums = [parameter.summed_grad for parameter in self._dp.params]
        return None if sums[0] is None else [total.clone() for total in sums]

    def step(self) -> None:
        """Add the noise and step; also after a step into which no unit was drawn."""
        # An empty batch closes every step, so that an empty step is nothing special.
        self._hand_over([p.new_zeros((0, *p.shape)) for p in self._dp.params])
        self._dp.signal_skip_step(False)
        self._dp.step()
        self._dp.zero_grad(set_to_none=True)

    def _hand_over(self, gradients: Gradients) -> None:
        for parameter, gradient in zip(self._dp.params, gradients, strict=True):
            parameter.grad_sample = gradient


class _SourcedOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimiser with the noise of a :class:`NoiseSource` in place of torch's generator."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, source: NoiseSource, **settings: object) -> None:
        super().__init__(optimizer, **settings)
        self._source = source

    def add_noise(self) -> None:
        """Gaussian noise on every coordinate of the clipped sum."""
        deviation = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            noise = torch.from_numpy(self._source.normal(parameter.numel(), deviation))
            parameter.grad = parameter.summed_grad + noise.view_as(parameter).to(parameter)

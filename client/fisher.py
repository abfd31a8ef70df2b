"""A quasi-Newton optimiser with the diagonal of the empirical Fisher information."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class FisherDescent(torch.optim.Optimizer):
    """θ ← θ − η m̂ / (√v̂ + ε), with m the running mean of g and v that of (g ⊙ g)².

    g ⊙ g of a batch is the diagonal of its empirical Fisher information, the stand-in for the Hessian of
    rapid retraining (Liu et al., INFOCOM 2022); both means are corrected for their bias as in Adam. Where
    Adam divides by the size of the gradient, this divides by its square, so that small gradients give large
    steps: ``largest`` bounds them.

    Parameters
    ----------
    parameters
        To be changed.
    lr
        η.
    betas
        Of the two running means.
    eps
        ε, what is added to the curvature.
    largest
        Largest change of one parameter in one step, over η.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        largest: float = 1.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "largest": largest})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step along the gradients that are there."""
        del closure
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["m"] = torch.zeros_like(parameter)
                    state["v"] = torch.zeros_like(parameter)
                state["step"] += 1
                gradient = parameter.grad
                state["m"].mul_(first).add_(gradient, alpha=1 - first)
                state["v"].mul_(second).add_(gradient**4, alpha=1 - second)
                mean = state["m"] / (1 - first ** state["step"])
                curvature = (state["v"] / (1 - second ** state["step"])).sqrt()
                change = (mean / (curvature + group["eps"])).clamp_(-group["largest"], group["largest"])
                parameter.sub_(change, alpha=group["lr"])

"""The state of a training run."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field

import torch

from lowlight_kedro.diffusion.denoiser import Denoiser


@dataclass
class State:
    """All that a run is: enough to go on with it as if it had never stopped.

    `averages`: running means of the weights by name, the first being `ema`. `history`: a row per tick.
    `losses` and `gradient_norms`: of the updates since the last row, as far as they have been looked at.
    """

    images: int
    denoiser: Denoiser
    averages: dict[str, Denoiser]
    optimizer: torch.optim.Optimizer
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)

    @property
    def ema(self) -> Denoiser:
        """The mean that is validated and exported."""
        return next(iter(self.averages.values()))

    @classmethod
    def fresh(cls, denoiser: Denoiser, averages: Iterable[str] = ("halflife",)) -> "State":
        """At image 0."""
        means = {name: deepcopy(denoiser).requires_grad_(False).eval() for name in averages}
        return cls(0, denoiser, means, torch.optim.Adam(denoiser.parameters(), fused=True))

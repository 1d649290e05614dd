"""The state of a training run."""

from copy import deepcopy
from dataclasses import dataclass, field

import torch

from lowlight_kedro.diffusion.denoiser import Denoiser


@dataclass
class State:
    """All that a run is: enough to go on with it as if it had never stopped."""

    images: int
    denoiser: Denoiser
    ema: Denoiser
    optimizer: torch.optim.Optimizer
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # of the updates since the last row of the history

    @classmethod
    def fresh(cls, denoiser: Denoiser) -> "State":
        """At image 0."""
        ema = deepcopy(denoiser).requires_grad_(False).eval()
        optimizer = torch.optim.Adam(denoiser.parameters(), fused=True)
        return cls(0, denoiser, ema, optimizer)

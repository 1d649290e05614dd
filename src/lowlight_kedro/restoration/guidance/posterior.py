"""What guidance makes of a prior and a measurement."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.restoration.measurement import Measurement

SIGMA_UNKNOWN = 80.0  # the level that tells the network: nothing is known of this value; the value itself is 0

Draw = Callable[[Tensor, int, torch.Generator], Iterator[Tensor]]


@dataclass(frozen=True)
class Posterior:
    """P(x0 | y) in the forms that a method knows; None where it does not.

    Attributes:
        denoiser: (x, sigma) -> E[x0 | x_t, y], sigma a scalar level (1, 1, 1, 1): any sampler can follow it.
        mean: () -> E[x0 | y], without sampling.
        mean_evaluations: of the prior's denoiser, that `mean` takes.
        draw: (first, evaluations, generator) -> states of the method's own sampler, the last one a draw of P(x0 | y) within
            `evaluations` of the prior's denoiser; `first` (1, 3, H, W) is an estimate of x0 that needs no prior.
    """

    denoiser: DenoiserFunction | None = None
    mean: Callable[[], Tensor] | None = None
    mean_evaluations: int = 1
    draw: Draw | None = None


Guidance = Callable[..., Posterior]


def capabilities(guidance: Guidance, denoiser: DenoiserFunction) -> Posterior:
    """What `guidance` offers, asked with a measurement of one pixel; nothing is evaluated."""
    zeros, ones = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    return guidance(denoiser, Measurement(zeros, ones, ones))

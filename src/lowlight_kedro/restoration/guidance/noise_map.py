"""Guidance for a prior that was trained on noise maps."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN, Posterior
from lowlight_kedro.restoration.guidance.reverse_sde import lowered_levels, reverse_sde
from lowlight_kedro.restoration.measurement import Measurement


def noise_map(
    denoiser: DenoiserFunction, measurement: Measurement, *, sigma_start: float = 2.5, end: float = 0.05, sigma_min: float = 0.01
) -> Posterior:
    """Exact, for a prior trained on noise maps: y and x_t are two independent looks at x0, so weigh them into one.

    z = (y / s^2 + x / sigma^2) / p with precision p = 1 / s^2 + 1 / sigma^2 on measured sites, z = x elsewhere;
    D_y = D(z; p^(-1/2)). With sigma at `SIGMA_UNKNOWN` x counts for nothing: D_y is E[x0 | y]. 1 evaluation.
    Draws come from `reverse_sde`, which starts at y itself.

    Args:
        sigma_start: first level of unmeasured sites in a draw; 5 times the data's standard deviation, .5, stands for all.
        end: lowest level of a draw, in units of s.
        sigma_min: the denoiser is not asked for less, except at sites measured better than twice that.
    """

    def posterior(x: Tensor, sigma: Tensor) -> Tensor:
        unknown = sigma >= SIGMA_UNKNOWN
        x = torch.where(unknown, torch.zeros_like(x), x)
        precision_x = torch.where(unknown, 0.0, sigma.pow(-2)).expand_as(x)
        precision_y = measurement.mask / measurement.s.square()
        precision = precision_y + precision_x
        z = (measurement.y * precision_y + x * precision_x) / precision.clamp(min=1e-12)
        return denoiser(z, precision.clamp(min=SIGMA_UNKNOWN**-2).rsqrt())

    def mean() -> Tensor:
        s = measurement.s.clamp(max=SIGMA_UNKNOWN)  # one frame and no more: this runs on whole frames
        return denoiser(measurement.y, s.masked_fill_(measurement.mask == 0, SIGMA_UNKNOWN))

    def draw(first: Tensor, evaluations: int, generator: torch.Generator) -> Iterator[Tensor]:
        del first  # y is the start
        levels = lowered_levels(measurement, evaluations, start=sigma_start, end=end, sigma_min=sigma_min)
        return reverse_sde(denoiser, measurement.mask * measurement.y, levels, evaluations, generator)

    return Posterior(denoiser=posterior, mean=mean, draw=draw)


noise_map.needs_noise_maps = True  # type: ignore[attr-defined]

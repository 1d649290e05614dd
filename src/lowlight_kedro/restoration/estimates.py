"""What a restoration gives: the posterior's mean, a draw, or the mean of draws; and how uncertain it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.diffusion.order import generator_for
from lowlight_kedro.diffusion.samplers import Sampler
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.guidance import Guidance
from lowlight_kedro.restoration.guidance.posterior import Posterior
from lowlight_kedro.restoration.measurement import Measurement
from lowlight_kedro.restoration.restore import Exposure, Structure, posterior_mean, posterior_sample
from lowlight_kedro.restoration.uncertainty import response_std
from lowlight_kedro.sensor.tiles import TILE_SLOPE

Kind = Literal["mean", "sample", "mean_of_k"]


@dataclass(frozen=True)
class Sampling:
    """How a draw is made, see `posterior_sample`; and how many for `mean_of_k`."""

    sampler: Sampler
    evaluations: int
    sigma_min: float
    sigma_max: float
    draws: int


@dataclass(frozen=True)
class Probing:
    """How the standard deviation is found without sampling, see `response_std`; 0 probes: not at all."""

    probes: int
    spacing: int
    reach: int
    step: float


@dataclass(frozen=True)
class Estimate:
    """White-balanced linear light (3, H, W) with its standard deviation in the same units.

    Attributes:
        std: None where the options ask for none, or the guidance can tell none.
        std_from: how it was made, or why there is none.
    """

    light: NDArray[np.float32]
    std: NDArray[np.float32] | None
    std_from: str


def capabilities(guidance: Guidance, denoiser: DenoiserFunction, side: int, device: torch.device) -> Posterior:
    """What `guidance` offers, asked with a measurement of (side, side) zeros; nothing is evaluated."""
    zeros = torch.zeros(1, 3, side, side, device=device)
    return guidance(denoiser, Measurement(zeros, torch.ones_like(zeros), torch.ones_like(zeros)))


def missing_capability(kind: Kind, posterior: Posterior) -> str | None:
    """What the estimate `kind` needs and `posterior` lacks, in words that follow the name of a guidance; None = nothing."""
    if kind == "mean" and posterior.mean is None:
        return (
            "does not know the posterior mean; set inference.estimate to sample or mean_of_k, or choose a guidance that does, as noise_map"
        )
    if kind != "mean" and posterior.draw is None and posterior.denoiser is None:
        return "cannot sample; set inference.estimate=mean, or choose a guidance that can, as noise_map or diffpir"
    return None


def running_moments(draw: Callable[[int], NDArray], count: int) -> tuple[NDArray, NDArray]:
    """Mean and standard deviation of draw(0) ... draw(count - 1), with two arrays of the frame's size beside the draw.

    Welford 1962: m += (x - m) / k, M += (x - m_before) (x - m_after); the variance is M / (count - 1). Against the exact
    mean, that of `count` draws has (1 + 1/count) times the mean squared error: 10 log10(1 + 1/count) dB.
    """
    mean = draw(0).copy()
    squares = np.zeros_like(mean)
    for number in range(1, count):
        x = draw(number)
        before = x - mean
        mean += before / (number + 1)
        squares += before * (x - mean)
    return mean, np.sqrt(squares / (count - 1))


def light_std(std: Tensor, scaling: Scaling) -> NDArray[np.float32]:
    """Standard deviation (1, 3, H, W) in network units as one of linear light (3, H, W): a slope, no offset."""
    return (std[0].float() * (scaling.scale / TILE_SLOPE)).cpu().numpy()


class Listener:
    """A guidance that remembers what it was last asked, and what its mean then was."""

    def __init__(self, guidance: Guidance) -> None:
        self._guidance = guidance
        self._last: tuple[DenoiserFunction, Measurement, Posterior] | None = None
        self._mean: Tensor | None = None

    def __call__(self, denoiser: DenoiserFunction, measurement: Measurement) -> Posterior:
        """As the guidance itself."""
        posterior = self._guidance(denoiser, measurement)
        self._last, self._mean = (denoiser, measurement, posterior), None
        return posterior if posterior.mean is None else replace(posterior, mean=self.mean)

    @property
    def last(self) -> tuple[DenoiserFunction, Measurement, Posterior]:
        """The last denoiser and measurement, and what the guidance made of them."""
        assert self._last is not None
        return self._last

    def mean(self) -> Tensor:
        """E[x0 | y] of the last measurement, evaluated once."""
        if self._mean is None:
            self._mean = self.mean_of(self.last[1])
        return self._mean

    def mean_of(self, measurement: Measurement) -> Tensor:
        """E[x0 | y] of another measurement, by the last denoiser."""
        mean = self._guidance(self.last[0], measurement).mean
        assert mean is not None
        return mean()


@torch.no_grad()
def _probed(asked: Listener, scaling: Scaling, probing: Probing, generator: torch.Generator) -> tuple[NDArray[np.float32] | None, str]:
    """Standard deviation for the measurement that `asked` heard last, and how; after a draw the mean is one more evaluation."""
    _, measurement, posterior = asked.last
    if not probing.probes:
        return None, "none: inference.uncertainty.probes is 0"
    if posterior.mean is None:
        return None, "none: this guidance does not know the posterior mean; estimate mean_of_k takes it from its draws"
    std = response_std(asked.mean_of, measurement, asked.mean(), **vars(probing), generator=generator)
    return light_std(std, scaling), f"{probing.probes} probes of the mean"


def estimate(
    kind: Kind, exposure: Exposure, denoiser: DenoiserFunction, scaling: Scaling, guidance: Guidance, *, name: str, seed: int,
    refreshes: int, structure: Structure, sampling: Sampling, probing: Probing, device: torch.device,
) -> Estimate:  # fmt: skip
    """The restored frame as `kind` asks. Every draw's randomness is a function of `seed`, its number and the frame's `name`.

    The standard deviation is that of the draws for `mean_of_k`, otherwise by `response_std` if the guidance knows its mean.

    Raises:
        ValueError: the guidance cannot give this estimate.
    """
    asked = Listener(guidance)

    def draw(number: int) -> NDArray[np.float32]:
        return posterior_sample(
            exposure, denoiser, scaling, asked, sampler=sampling.sampler, evaluations=sampling.evaluations,
            sigma_min=sampling.sigma_min, sigma_max=sampling.sigma_max, device=device, refreshes=refreshes, structure=structure,
            generator=generator_for(f"draw of {name}", seed, number, device),
        )  # fmt: skip

    if kind == "mean_of_k":
        light, std = running_moments(draw, sampling.draws)
        return Estimate(light, std, f"{sampling.draws} draws")
    if kind == "mean":
        light = posterior_mean(exposure, denoiser, scaling, asked, refreshes=refreshes, device=device, structure=structure)
    else:
        light = draw(0)
    return Estimate(light, *_probed(asked, scaling, probing, generator_for(f"probes of {name}", seed, 0, device)))

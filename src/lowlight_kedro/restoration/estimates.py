"""What a restoration gives: the posterior's mean, a draw, or the mean of draws; and how uncertain it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
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
from lowlight_kedro.restoration.guidance.posterior import Posterior, capabilities
from lowlight_kedro.restoration.refresh import Readout
from lowlight_kedro.restoration.restore import Answer, Exposure, Structure, draw, light_of, mean, mean_of
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

    def times(self, factor: float) -> "Estimate":
        """The same in brighter light."""
        if factor == 1:
            return self
        return replace(self, light=self.light * np.float32(factor), std=None if self.std is None else self.std * np.float32(factor))

    def blended(self, scaled: NDArray, strength: float) -> "Estimate":
        """`strength` of this and 1 - `strength` of `scaled`, linear light of the same shape; 0 is `scaled`, 1 this.

        std: the root mean square of what the blend may be off, sqrt(std^2 + (blend - mean)^2), for this as the posterior mean: its own
        part stays as it is, and the noise that the blend keeps adds to it.
        """
        added = (scaled - self.light) * np.float32(1 - strength)
        return replace(self, light=self.light + added, std=None if self.std is None else np.hypot(self.std, added))


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


@torch.no_grad()
def _probed(
    answer: Answer, kind: Kind, denoiser: DenoiserFunction, guidance: Guidance, scaling: Scaling, probing: Probing,
    generator: torch.Generator,
) -> tuple[NDArray[np.float32] | None, str]:  # fmt: skip
    """Standard deviation for the measurement that `answer` answers, and how; after a draw the mean is one more."""
    if not probing.probes:
        return None, "none: inference.uncertainty.probes is 0"
    if capabilities(guidance, denoiser).mean is None:
        return None, "none: this guidance does not know the posterior mean; estimate mean_of_k takes it from its draws"
    of = partial(mean_of, denoiser, guidance)
    centre = answer.x if kind == "mean" else of(answer.measurement)
    std = response_std(of, answer.measurement, centre, **vars(probing), generator=generator)
    return light_std(std, scaling), f"{probing.probes} probe{'s' if probing.probes > 1 else ''} of the mean"


def expected_evaluations(kind: Kind, offered: Posterior, *, refreshes: int, sampling: Sampling, probing: Probing) -> int:
    """How often `estimate` evaluates the denoiser, for a guidance that offers this; a draw may take less."""
    means = 0 if offered.mean is None else offered.mean_evaluations
    probes = probing.probes and probing.probes + (kind == "sample")
    counts = {
        "mean": means * (1 + refreshes + probes),
        "sample": sampling.evaluations + means * probes,
        "mean_of_k": sampling.evaluations * sampling.draws,
    }
    return counts[kind]


def estimate(
    kind: Kind, exposure: Exposure, denoiser: DenoiserFunction, scaling: Scaling, guidance: Guidance, *, name: str, seed: int,
    refreshes: int, structure: Structure, sampling: Sampling, probing: Probing, device: torch.device,
) -> Estimate:  # fmt: skip
    """The restored frame as `kind` asks. Every draw's randomness is a function of `seed`, its number and the frame's `name`.

    The standard deviation is that of the draws for `mean_of_k`, otherwise by `response_std` if the guidance knows its mean.

    Raises:
        ValueError: the guidance cannot give this estimate.
    """
    readout = Readout(exposure, scaling, device, structure)

    def drawn(number: int) -> Answer:
        return draw(
            readout, denoiser, guidance, sampler=sampling.sampler, evaluations=sampling.evaluations, sigma_min=sampling.sigma_min,
            sigma_max=sampling.sigma_max, refreshes=refreshes, generator=generator_for(f"draw of {name}", seed, number, device),
        )  # fmt: skip

    if kind == "mean_of_k":
        light, std = running_moments(lambda number: light_of(drawn(number).x, readout), sampling.draws)
        return Estimate(light, std, f"{sampling.draws} draws")
    answer = mean(readout, denoiser, guidance, refreshes=refreshes) if kind == "mean" else drawn(0)
    told = _probed(answer, kind, denoiser, guidance, scaling, probing, generator_for(f"probes of {name}", seed, 0, device))
    return Estimate(light_of(answer.x, readout), *told)

"""What the restoration of one short exposure gives: the posterior's mean, a draw, or the mean of draws; and how uncertain it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.diffusion.draws import generator_for
from lowlight_kedro.diffusion.samplers import SAMPLERS, Sampler
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.plugins import choose
from lowlight_kedro.restoration import points
from lowlight_kedro.restoration.faint import without_faint_detail
from lowlight_kedro.restoration.guidance import Guidance
from lowlight_kedro.restoration.guidance.posterior import Posterior
from lowlight_kedro.restoration.observation import Exposure, Observation
from lowlight_kedro.restoration.passes import Solution, draw, mean, mean_of, refreshes_of
from lowlight_kedro.restoration.residuals import Remains, remains_of
from lowlight_kedro.restoration.settings import Kind, Probing, Sampling, Structure
from lowlight_kedro.restoration.uncertainty import response_std
from lowlight_kedro.sensor.tiles import TILE_SLOPE, from_tile_domain

OF_THE_PRIOR = "the prior"  # which tells its own standard deviation


def light_of(x: Tensor, observation: Observation) -> NDArray[np.float32]:
    """x0 (1, 3, H, W) as white-balanced linear RGB (3, H, W), with what is known to be clipped at or above the clipping level."""
    light, projected = np.empty(x.shape[1:], np.float32), observation.project(x)[0]
    for channel, one in zip(light, projected, strict=True):  # frames are large: no second one on the way
        channel[...] = from_tile_domain(observation.scaling.to_tile(one.float())).cpu().numpy()
    return light


def posterior_mean(
    exposure: Exposure, denoiser: DenoiserFunction, scaling: Scaling, guidance: Guidance, *, refreshes: int, device: torch.device,
    structure: Structure = Structure(),  # noqa: B008 - frozen
) -> NDArray[np.float32]:  # fmt: skip
    """E[x0 | y] as white-balanced linear RGB (3, H, W), by a guidance that knows it.

    The noise level comes from the local mean first, then `refreshes` times from the estimate before, smoothed as much, and with it
    what `structure` asks for: offsets, clipped photosites, outliers. These need at least one refresh.

    Raises:
        ValueError: the guidance can only sample.
    """
    observation = Observation(exposure, scaling, device, structure)
    return light_of(mean(observation, denoiser, guidance, refreshes=refreshes).x, observation)


def posterior_sample(
    exposure: Exposure, denoiser: DenoiserFunction, scaling: Scaling, guidance: Guidance, *, sampler: Sampler, evaluations: int,
    sigma_min: float, sigma_max: float, device: torch.device, generator: torch.Generator,
    on_step: Callable[[], object] = lambda: None, refreshes: int = 0, structure: Structure = Structure(),  # noqa: B008 - frozen
) -> NDArray[np.float32]:  # fmt: skip
    """One draw of P(x0 | y) as linear RGB (3, H, W), within so many `evaluations` of the denoiser.

    First, `refreshes` posterior means tell noise level, offsets, clipping and outliers, if the guidance knows the mean and
    there are evaluations left after them; otherwise the local mean tells noise level and row offsets. Then a guidance with a
    sampler of its own uses that. Otherwise `sampler` goes from `sigma_max`, or twice the largest noise of the frame if that is
    more, to `sigma_min`. It begins at that estimate plus noise of the first level, which has to drown what the estimate gets wrong.

    Raises:
        ValueError: the guidance cannot sample.
    """
    observation = Observation(exposure, scaling, device, structure)
    answer = draw(
        observation, denoiser, guidance, sampler=sampler, evaluations=evaluations, sigma_min=sigma_min, sigma_max=sigma_max,
        refreshes=refreshes, generator=generator, on_step=on_step,
    )  # fmt: skip
    return light_of(answer.x, observation)


@dataclass(frozen=True)
class Estimate:
    """White-balanced linear light (3, H, W) with its standard deviation in the same units.

    Attributes:
        std: None where the options ask for none, or the guidance can tell none.
        std_from: how it was made, or why there is none.
        remains: what the mean left of the measurement; None for draws.
        points: how many points of light were given back what the mean lacked of them.
        black: height (3,) of the black level above the header's, units of white - black, if the frame shows one.
    """

    light: NDArray[np.float32]
    std: NDArray[np.float32] | None
    std_from: str
    remains: Remains | None = None
    points: int = 0
    black: tuple[float, ...] | None = None

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


def _tells_std(posterior: Posterior, probing: Probing) -> bool:
    """Whether the prior says the standard deviation, so that nothing is probed."""
    return posterior.std is not None and probing.by == "prior"


@torch.no_grad()
def _probed(
    answer: Solution, kind: Kind, denoiser: DenoiserFunction, guidance: Guidance, scaling: Scaling, probing: Probing,
    generator: torch.Generator,
) -> tuple[NDArray[np.float32] | None, str]:  # fmt: skip
    """Standard deviation for the measurement that `answer` answers, and how; after a draw the mean is one more."""
    if not probing.probes:
        return None, "none: inference.uncertainty.probes is 0"
    posterior = guidance(denoiser, answer.measurement)
    if posterior.mean is None:
        return None, "none: this guidance does not know the posterior mean; estimate mean_of_k takes it from its draws"
    centre = answer.x if kind == "mean" else posterior.mean()
    if posterior.std is not None and _tells_std(posterior, probing):
        return light_std(posterior.std(centre), scaling), OF_THE_PRIOR
    std = response_std(
        partial(mean_of, denoiser, guidance), answer.measurement, centre, probes=probing.probes, spacing=probing.spacing,
        reach=probing.reach, step=probing.step, generator=generator,
    )  # fmt: skip
    return light_std(std, scaling), f"{probing.probes} probe{'s' if probing.probes > 1 else ''} of the mean"


def expected_evaluations(kind: Kind, offered: Posterior, *, refreshes: int, sampling: Sampling, probing: Probing) -> int:
    """How often `estimate` evaluates the denoiser, for a guidance that offers this; a draw may take less."""
    means = 0 if offered.mean is None else offered.mean_evaluations
    probes = 0 if _tells_std(offered, probing) else probing.probes
    probes += kind == "sample" and probing.probes > 0
    counts = {
        "mean": means * (1 + refreshes + probes),
        "sample": sampling.evaluations + means * probes,
        "mean_of_k": sampling.evaluations * sampling.draws,
    }
    return counts[kind]


def estimate(
    kind: Kind, observation: Observation, denoiser: DenoiserFunction, guidance: Guidance, *, name: str, seed: int, refreshes: int,
    sampling: Sampling, probing: Probing, parts: DenoiserFunction | None = None,
) -> Estimate:  # fmt: skip
    """The restored frame as `kind` asks. Every draw's randomness is a function of `seed`, its number and the frame's `name`.

    `refreshes`: see `refreshes_of`. `parts`: the denoiser of small parts of a frame, if that is another.

    The standard deviation is that of the draws for `mean_of_k`. Otherwise it is what the prior has learned, or found by
    `response_std` if the guidance knows its mean.

    Raises:
        ValueError: the guidance cannot give this estimate.
    """
    device, refreshes = observation.device, refreshes_of(observation, refreshes)

    def drawn(number: int) -> Solution:
        return draw(
            observation, denoiser, guidance, sampler=choose("sampler", SAMPLERS, sampling.sampler), evaluations=sampling.evaluations,
            sigma_min=sampling.sigma_min,
            sigma_max=sampling.sigma_max, refreshes=refreshes, generator=generator_for(f"draw of {name}", seed, number, device),
            parts=parts,
        )  # fmt: skip

    if kind == "mean_of_k":
        light, std = running_moments(lambda number: light_of(drawn(number).x, observation), sampling.draws)
        return Estimate(light, std, f"{sampling.draws} draws")
    answer = mean(observation, denoiser, guidance, refreshes=refreshes, parts=parts) if kind == "mean" else drawn(0)
    spread = _probed(answer, kind, denoiser, guidance, observation.scaling, probing, generator_for(f"probes of {name}", seed, 0, device))
    light = light_of(answer.x, observation)
    black = None if answer.learned.black is None else tuple(answer.learned.black.tolist())
    if kind != "mean":
        return Estimate(light, *spread, black=black)
    own = guidance(denoiser, answer.measurement).std
    if own is not None:
        known = spread[0] if spread[1] == OF_THE_PRIOR else None
        std = light_std(own(answer.x), observation.scaling) if known is None else known
        light = without_faint_detail(light, std)
    remains, found = remains_of(answer.measurement, answer.x, observation.gains), 0
    if observation.structure.points:
        seen = points.find(answer.measurement, answer.x, observation.photons, observation.operator.zero)
        seen.add_to(light, observation.scaling.scale / TILE_SLOPE)
        found = len(seen)
    return Estimate(light, *spread, remains, found, black)

"""Restore one short exposure: measurement, guidance and sampler put together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction, standard_normal
from lowlight_kedro.diffusion.samplers import Sampler, finish, karras_sigmas, steps_within
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.guidance import Guidance
from lowlight_kedro.restoration.guidance.posterior import capabilities
from lowlight_kedro.restoration.measurement import Measurement
from lowlight_kedro.restoration.offsets import NO_OFFSETS
from lowlight_kedro.restoration.refresh import Exposure, Learned, Readout, Structure
from lowlight_kedro.sensor.tiles import from_tile_domain

__all__ = ["Answer", "Exposure", "Structure", "draw", "light_of", "mean", "posterior_mean", "posterior_sample"]

LOCAL_REACH = 4  # pixels around a site whose measured values give the first estimate of its noise


@dataclass(frozen=True)
class Answer:
    """x0 (1, 3, H, W), network units, and the measurement that it answers: with all that was learned before."""

    x: Tensor
    measurement: Measurement


def light_of(x: Tensor, readout: Readout) -> NDArray[np.float32]:
    """x0 (1, 3, H, W) as white-balanced linear RGB (3, H, W), with what is known to be clipped at or above the clipping level."""
    tile = readout.scaling.to_tile(readout.project(x)[0].float())
    return from_tile_domain(tile).cpu().numpy()  # type: ignore[no-any-return]


def mean_of(denoiser: DenoiserFunction, guidance: Guidance, measurement: Measurement) -> Tensor:
    """E[x0 | y].

    Raises:
        ValueError: the guidance can only sample.
    """
    posterior = guidance(denoiser, measurement)
    if posterior.mean is None:
        raise ValueError("this guidance does not know the posterior mean, it can only sample")
    return posterior.mean()


def _refreshed(
    readout: Readout, denoiser: DenoiserFunction, guidance: Guidance, x: Tensor, learned: Learned, count: int
) -> tuple[Tensor, Learned]:  # fmt: skip
    """`count` posterior means, each telling what the next one needs to know."""
    for _ in range(count):
        measurement = readout.measurement(x, learned)
        del x  # whole frames less while the prior works
        x = mean_of(denoiser, guidance, measurement)
        learned = readout.learn(measurement, x, learned)
        del measurement
    return x, learned


@torch.no_grad()
def mean(readout: Readout, denoiser: DenoiserFunction, guidance: Guidance, *, refreshes: int) -> Answer:
    """See `posterior_mean`."""
    # with one pass only, offsets have to count as noise of each photosite
    apart = readout.spread if refreshes else NO_OFFSETS
    x, learned = _refreshed(readout, denoiser, guidance, readout.first(LOCAL_REACH), Learned(apart), refreshes)
    measurement = readout.measurement(x, learned)
    del x
    return Answer(mean_of(denoiser, guidance, measurement), measurement)


def _drawn(learned: Learned, generator: torch.Generator) -> Learned:
    """Offsets drawn from their posterior: a sample of x0 given a sample of them is a sample of both."""
    if learned.offsets is None:
        return learned
    return replace(learned, offsets=replace(learned.offsets, b=learned.offsets.draw(generator)))


@torch.no_grad()
def draw(
    readout: Readout, denoiser: DenoiserFunction, guidance: Guidance, *, sampler: Sampler, evaluations: int, sigma_min: float,
    sigma_max: float, refreshes: int, generator: torch.Generator, on_step: Callable[[], object] = lambda: None,
) -> Answer:  # fmt: skip
    """See `posterior_sample`."""
    offered = capabilities(guidance, denoiser)
    if offered.draw is None and offered.denoiser is None:
        raise ValueError("this guidance cannot sample; set inference.estimate=mean")
    spent = refreshes * offered.mean_evaluations
    if offered.mean is not None and 0 < spent < evaluations:
        first, learned = _refreshed(readout, denoiser, guidance, readout.first(LOCAL_REACH), Learned(readout.spread), refreshes)
        evaluations -= spent
    else:
        first = readout.first(LOCAL_REACH)
        learned = readout.learn_from_local_mean(first)
    measurement = readout.measurement(first, _drawn(learned, generator))
    posterior = guidance(denoiser, measurement)

    def states() -> Iterator[Tensor]:
        if posterior.draw is not None:
            return posterior.draw(first, evaluations, generator)
        highest = max(sigma_max, 2 * float(readout.noise_level(first, learned.apart).max()))
        x = first + highest * standard_normal(first, generator)
        return sampler(posterior.denoiser, x, karras_sigmas(steps_within(sampler, evaluations), sigma_min, highest), generator)

    return Answer(finish(states(), on_step), measurement)


def posterior_mean(
    exposure: Exposure, denoiser: DenoiserFunction, scaling: Scaling, guidance: Guidance, *, refreshes: int, device: torch.device,
    structure: Structure = Structure(),  # noqa: B008 - frozen
) -> NDArray[np.float32]:  # fmt: skip
    """E[x0 | y] as white-balanced linear RGB (3, H, W), by a guidance that knows it.

    The noise level comes from the local mean first, then `refreshes` times from the estimate before, and with it what
    `structure` asks for: offsets, clipped photosites, outliers. These need at least one refresh.

    Raises:
        ValueError: the guidance can only sample.
    """
    readout = Readout(exposure, scaling, device, structure)
    return light_of(mean(readout, denoiser, guidance, refreshes=refreshes).x, readout)


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
    readout = Readout(exposure, scaling, device, structure)
    answer = draw(
        readout, denoiser, guidance, sampler=sampler, evaluations=evaluations, sigma_min=sigma_min, sigma_max=sigma_max,
        refreshes=refreshes, generator=generator, on_step=on_step,
    )  # fmt: skip
    return light_of(answer.x, readout)

"""Restore one short exposure: measurement, guidance and sampler put together."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction, standard_normal
from lowlight_kedro.diffusion.samplers import Sampler, finish, karras_sigmas, steps_within
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.guidance import Guidance
from lowlight_kedro.restoration.offsets import NO_OFFSETS
from lowlight_kedro.restoration.refresh import Exposure, Learned, Readout, Structure
from lowlight_kedro.sensor.tiles import from_tile_domain

__all__ = ["Exposure", "Structure", "posterior_mean", "posterior_sample"]

LOCAL_REACH = 4  # pixels around a site whose measured values give the first estimate of its noise


def _to_light(x: Tensor, scaling: Scaling) -> NDArray[np.float32]:
    return from_tile_domain(scaling.to_tile(x[0].float())).cpu().numpy()


def _passes(
    readout: Readout, denoiser: DenoiserFunction, guidance: Guidance, x: Tensor, count: int, learned: Learned
) -> tuple[Tensor, Learned] | None:
    """`count` posterior means, each refreshing what the next one needs to know; None if the guidance knows no mean."""
    for _ in range(count):
        measurement = readout.measurement(x, learned)
        mean = guidance(denoiser, measurement).mean
        if mean is None:
            return None
        del x  # a whole frame less while the prior works
        x = mean()
        learned = readout.learn(measurement, x, learned)
    return x, learned


@torch.no_grad()
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
    # with one pass only, offsets have to count as noise of each photosite
    apart = readout.spread if refreshes else NO_OFFSETS
    found = _passes(readout, denoiser, guidance, readout.first(LOCAL_REACH), 1 + refreshes, Learned(apart))
    if found is None:
        raise ValueError("this guidance does not know the posterior mean, it can only sample")
    return _to_light(readout.project(found[0]), scaling)


def _drawn(learned: Learned, generator: torch.Generator) -> Learned:
    """Offsets drawn from their posterior: a sample of x0 given a sample of them is a sample of both."""
    if learned.offsets is None:
        return learned
    return replace(learned, offsets=replace(learned.offsets, b=learned.offsets.draw(generator)))


@torch.no_grad()
def posterior_sample(
    exposure: Exposure, denoiser: DenoiserFunction, scaling: Scaling, guidance: Guidance, *, sampler: Sampler, evaluations: int,
    sigma_min: float, sigma_max: float, device: torch.device, generator: torch.Generator,
    on_step: Callable[[], object] = lambda: None, refreshes: int = 0, structure: Structure = Structure(),  # noqa: B008 - frozen
) -> NDArray[np.float32]:  # fmt: skip
    """One draw of P(x0 | y) as linear RGB (3, H, W), within so many `evaluations` of the denoiser.

    First, `refreshes` posterior means, one evaluation each, tell noise level, offsets, clipping and outliers, if the guidance
    knows the mean; otherwise the local mean tells noise level and offsets. Then a guidance with a sampler of its own uses that.
    Otherwise `sampler` goes from `sigma_max`, or twice the largest noise of the frame if that is more, to `sigma_min`. It begins
    at that estimate plus noise of the first level, which has to drown what the estimate gets wrong.

    Raises:
        ValueError: the guidance cannot sample.
    """
    readout = Readout(exposure, scaling, device, structure)
    first = readout.first(LOCAL_REACH)
    found = _passes(readout, denoiser, guidance, first, refreshes, Learned(readout.spread)) if 0 < refreshes < evaluations else None
    if found is not None:
        (first, learned), evaluations = found, evaluations - refreshes
    else:
        learned = readout.learn_from_local_mean(first)
    measurement = readout.measurement(first, _drawn(learned, generator))
    posterior = guidance(denoiser, measurement)
    if posterior.draw is not None:
        return _to_light(readout.project(finish(posterior.draw(first, evaluations, generator), on_step)), scaling)
    if posterior.denoiser is None:
        raise ValueError("this guidance cannot sample; set inference.estimate=mean")
    sigma_max = max(sigma_max, 2 * float(readout.noise_level(first, learned.apart).max()))
    x = first + sigma_max * standard_normal(first, generator)
    sigmas = karras_sigmas(steps_within(sampler, evaluations), sigma_min, sigma_max)
    return _to_light(readout.project(finish(sampler(posterior.denoiser, x, sigmas, generator), on_step)), scaling)

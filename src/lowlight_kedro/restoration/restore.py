"""Restore one short exposure: measurement, guidance and sampler put together."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction, standard_normal
from lowlight_kedro.diffusion.samplers import Sampler, finish, karras_sigmas, steps_within
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.guidance import Guidance
from lowlight_kedro.restoration.measurement import Measurement, local_mean, noise_map, observe
from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.frame import balanced
from lowlight_kedro.sensor.noise import NoiseModel
from lowlight_kedro.sensor.tiles import from_tile_domain

LOCAL_REACH = 4  # pixels around a site whose measured values give the first estimate of its noise


@dataclass(frozen=True)
class Exposure:
    """A short exposure ready to be restored.

    Attributes:
        signal: mosaic (H, W), 0 = black, 1 = white of the short exposure.
        white_balance: gains of R, G, B; the result is balanced.
        exposure_ratio: how much longer the exposure is that the result should look like.
        noise: the noise of the short exposure, in units of `signal`.
    """

    signal: NDArray
    cfa: Cfa
    white_balance: tuple[float, float, float]
    exposure_ratio: float
    noise: NoiseModel


def _observe(exposure: Exposure, scaling: Scaling, device: torch.device) -> tuple[Tensor, Tensor]:
    light = balanced(exposure.signal, exposure.cfa, exposure.white_balance) * np.float32(exposure.exposure_ratio)
    y, mask = observe(light, exposure.cfa, scaling)
    return y.to(device), mask.to(device)


def _measurement(y: Tensor, mask: Tensor, clean: Tensor, exposure: Exposure, scaling: Scaling) -> Measurement:
    """With the noise level that the exposure has where its clean light is `clean`."""
    return Measurement(y, mask, noise_map(clean, exposure.noise, exposure.exposure_ratio, exposure.white_balance, scaling))


def _to_light(x: Tensor, scaling: Scaling) -> NDArray[np.float32]:
    return from_tile_domain(scaling.to_tile(x[0].float())).cpu().numpy()


@torch.no_grad()
def posterior_mean(
    exposure: Exposure, denoiser: DenoiserFunction, scaling: Scaling, guidance: Guidance, *, refreshes: int, device: torch.device
) -> NDArray[np.float32]:
    """E[x0 | y] as white-balanced linear RGB (3, H, W), by a guidance that knows it.

    The noise level comes from the local mean first, then `refreshes` times from the estimate before.

    Raises:
        ValueError: the guidance can only sample.
    """
    y, mask = _observe(exposure, scaling, device)
    x = local_mean(y, mask, LOCAL_REACH)
    for _ in range(1 + refreshes):
        mean = guidance(denoiser, _measurement(y, mask, x, exposure, scaling)).mean
        if mean is None:
            raise ValueError("this guidance does not know the posterior mean, it can only sample")
        x = mean()
    return _to_light(x, scaling)


@torch.no_grad()
def posterior_sample(
    exposure: Exposure, denoiser: DenoiserFunction, scaling: Scaling, guidance: Guidance, *, sampler: Sampler, evaluations: int,
    sigma_min: float, start: float, device: torch.device, generator: torch.Generator,
    on_step: Callable[[], object] = lambda: None,
) -> NDArray[np.float32]:  # fmt: skip
    """One draw of P(x0 | y) as linear RGB (3, H, W), within so many `evaluations` of the denoiser.

    A guidance with a sampler of its own uses that. Otherwise `sampler` begins at sigma_max = `start` times the largest
    noise level of the frame, at the local mean of the measurement plus noise of that level: higher levels cost
    evaluations and tell nothing.

    Raises:
        ValueError: the guidance cannot sample.
    """
    y, mask = _observe(exposure, scaling, device)
    first = local_mean(y, mask, LOCAL_REACH)
    measurement = _measurement(y, mask, first, exposure, scaling)
    posterior = guidance(denoiser, measurement)
    if posterior.draw is not None:
        return _to_light(finish(posterior.draw(first, evaluations, generator), on_step), scaling)
    if posterior.denoiser is None:
        raise ValueError("this guidance cannot sample; set inference.estimate=mean")
    sigma_max = start * float(measurement.s.max())
    x = first + sigma_max * standard_normal(first, generator)
    sigmas = karras_sigmas(steps_within(sampler, evaluations), sigma_min, sigma_max)
    return _to_light(finish(sampler(posterior.denoiser, x, sigmas, generator), on_step), scaling)

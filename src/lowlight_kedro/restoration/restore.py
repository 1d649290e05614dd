"""Restore one short exposure: measurement, guidance and sampler put together."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction, standard_normal
from lowlight_kedro.diffusion.samplers import Sampler, karras_sigmas
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.guidance import SIGMA_UNKNOWN, Guidance
from lowlight_kedro.restoration.measurement import TILE_SLOPE, Measurement, local_mean, noise_map, observe
from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.frame import balanced
from lowlight_kedro.sensor.noise import NoiseModel

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


def _measure(exposure: Exposure, scaling: Scaling, device: torch.device) -> Measurement:
    light = balanced(exposure.signal, exposure.cfa, exposure.white_balance) * np.float32(exposure.exposure_ratio)
    y, mask = (part.to(device) for part in observe(light, exposure.cfa, scaling))
    return Measurement(y, mask, _noise_map(local_mean(y, mask, LOCAL_REACH), exposure, scaling))


def _noise_map(clean: Tensor, exposure: Exposure, scaling: Scaling) -> Tensor:
    return noise_map(clean, exposure.noise, exposure.exposure_ratio, exposure.white_balance, scaling)


def _to_light(x: Tensor, scaling: Scaling) -> NDArray[np.float32]:
    return ((scaling.to_tile(x[0].float()) + 1) / TILE_SLOPE).cpu().numpy()


@torch.no_grad()
def posterior_mean(
    exposure: Exposure, denoiser: DenoiserFunction, scaling: Scaling, guidance: Guidance, *, evaluations: int, device: torch.device
) -> NDArray[np.float32]:
    """E[x0 | y] as white-balanced linear RGB (3, H, W), by a guidance that is exact at sigma = `SIGMA_UNKNOWN` (`noise_map`).

    Each evaluation after the first takes the noise level from the estimate before it.
    """
    measurement = _measure(exposure, scaling, device)
    unknown = torch.full((1, 1, 1, 1), SIGMA_UNKNOWN, device=device)
    for evaluation in range(evaluations):
        if evaluation:
            measurement = Measurement(measurement.y, measurement.mask, _noise_map(x, exposure, scaling))
        x = guidance(denoiser, measurement)(torch.zeros_like(measurement.y), unknown)
    return _to_light(x, scaling)


@torch.no_grad()
def posterior_sample(
    exposure: Exposure, denoiser: DenoiserFunction, scaling: Scaling, guidance: Guidance, *, sampler: Sampler, steps: int,
    sigma_min: float, start: float, device: torch.device, generator: torch.Generator,
    on_step: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:  # fmt: skip
    """One draw of P(x0 | y) as linear RGB (3, H, W).

    Begins at sigma_max = `start` times the largest noise level of the frame, at the local mean of the measurement
    plus noise of that level: higher levels cost evaluations and tell nothing.
    """
    measurement = _measure(exposure, scaling, device)
    sigma_max = start * float(measurement.s.max())
    x = local_mean(measurement.y, measurement.mask, LOCAL_REACH)
    x = x + sigma_max * standard_normal(x, generator)
    posterior = guidance(denoiser, measurement)
    for x in sampler(posterior, x, karras_sigmas(steps, sigma_min, sigma_max), generator):  # noqa: B020
        on_step()
    return _to_light(x, scaling)

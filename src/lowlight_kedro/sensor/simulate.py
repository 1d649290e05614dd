"""Photographs through a camera's noise: raws of which the truth is known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa, sample
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.noise import NoiseModel
from lowlight_kedro.sensor.render import srgb_decode


@dataclass(frozen=True)
class Camera:
    """The simulated camera: levels in DN, `neutral` = camera RGB of white relative to green."""

    name: str
    black_level: float
    white_level: float
    neutral: tuple[float, float, float]


def scene_light(photograph: NDArray[np.uint8], camera: Camera, brightness: float) -> NDArray[np.float32]:
    """An 8-bit sRGB photograph (H, W, 3) as linear camera RGB (3, H, W); photograph white = `brightness`."""
    linear = srgb_decode(photograph.astype(np.float32) / 255) * brightness
    return (linear * np.asarray(camera.neutral)).transpose(2, 0, 1).astype(np.float32)


def expose(
    light: NDArray,
    cfa: Cfa,
    *,
    exposure_s: float,
    full_exposure_s: float,
    iso: float,
    noise: NoiseModel,
    camera: Camera,
    rng: np.random.Generator,
) -> Frame:
    """One raw frame of `light` (3, H, W; 1 = saturation at `full_exposure_s`): noise, rounding, clipping."""
    signal = sample(light, cfa) * (exposure_s / full_exposure_s)
    dn = noise.sample(signal, rng) * (camera.white_level - camera.black_level) + camera.black_level
    return Frame(
        mosaic_dn=np.clip(np.rint(dn), 0, camera.white_level).astype(np.uint16),
        cfa=cfa,
        black_level=np.full((len(cfa), len(cfa[0])), camera.black_level, np.float32),
        white_level=camera.white_level,
        exposure_s=exposure_s,
        iso=iso,
        camera=camera.name,
        white_balance=(1 / camera.neutral[0], 1 / camera.neutral[1], 1 / camera.neutral[2]),
        camera_to_srgb=np.eye(3, dtype=np.float32),
    )

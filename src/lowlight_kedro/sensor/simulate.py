"""Photographs through a camera's noise: raws of which the truth is known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa, sample, tile_pattern
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


def recording(camera: Camera) -> dict[str, float]:
    """What `CameraNoise` has to know to deliver this camera's DN: `step`, `white` and `floor`, units of white - black."""
    range_dn = camera.white_level - camera.black_level
    return {"step": 1 / range_dn, "white": 1.0, "floor": -camera.black_level / range_dn}


def _as_whole_dn(dn: NDArray, white_level: float) -> NDArray[np.uint16]:
    """Floating-point DN as integers; the rounding here undoes only errors of the arithmetic."""
    whole = np.rint(dn)
    if np.abs(whole - dn).max() > 1e-3 or whole.min() < 0 or whole.max() > white_level:
        raise ValueError(
            f"the noise model must deliver whole DN from 0 to {white_level:g}, got values from {dn.min():g} to {dn.max():g}; "
            "use CameraNoise(..., **recording(camera))"
        )
    return whole.astype(np.uint16)


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
    """One raw frame of `light` (3, H, W; 1 = saturation at `full_exposure_s`).

    Rounding to DN and clipping are the noise model's: `CameraNoise` with `step` and `floor`, see `recording`.

    Raises:
        ValueError: the noise model does not deliver whole DN between 0 and white.
    """
    signal = sample(light, cfa) * (exposure_s / full_exposure_s)
    channels = tile_pattern(np.asarray(cfa), signal.shape)
    dn = noise.sample(signal, rng, channels) * (camera.white_level - camera.black_level) + camera.black_level
    return Frame(
        mosaic_dn=_as_whole_dn(dn, camera.white_level),
        cfa=cfa,
        black_level=np.full((len(cfa), len(cfa[0])), camera.black_level, np.float32),
        white_level=camera.white_level,
        exposure_s=exposure_s,
        iso=iso,
        camera=camera.name,
        white_balance=(1 / camera.neutral[0], 1 / camera.neutral[1], 1 / camera.neutral[2]),
        camera_to_srgb=np.eye(3, dtype=np.float32),
    )

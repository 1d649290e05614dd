"""Photographs as what a camera sees: clean light in its colours, and raws through its noise, of which the truth is known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa, sample, tile_pattern
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.noise import NoiseModel
from lowlight_kedro.sensor.render import block_means, camera_to_srgb, srgb_decode


def clean_light(photograph: NDArray[np.uint8], factor: int, xyz_to_camera: NDArray) -> NDArray[np.float32]:
    """An 8-bit sRGB photograph (H, W, 3) as white-balanced linear camera RGB (3, H / factor, W / factor), 1 = its white.

    The curve is undone, pixels are averaged in linear light, and the colours are those of a camera with the given
    matrix XYZ(D65) -> camera (Brooks et al. 2019, "Unprocessing", do the same). Tone curves other than sRGB's stay.
    """
    linear = block_means(srgb_decode(photograph.astype(np.float32) / 255).transpose(2, 0, 1), factor)
    to_camera = np.linalg.inv(camera_to_srgb(np.asarray(xyz_to_camera, float).reshape(3, 3)))
    return np.clip(np.tensordot(to_camera, linear, axes=1), 0, 1).astype(np.float32)


def with_lateral_colour(light: NDArray[np.float32], red: float, blue: float) -> NDArray[np.float32]:
    """`light` (3, H, W) with red and blue magnified about the centre, as lenses do; by `red` and `blue` pixels at the corners.

    Cubic splines interpolate, which keep what is sharp; light is not negative.
    """
    from scipy.ndimage import affine_transform  # slow to import

    centre = (np.array(light.shape[1:]) - 1) / 2
    moved = light.copy()
    for channel, pixels in ((0, red), (2, blue)):
        if pixels:
            scale = np.full(2, 1 / (1 + pixels / np.hypot(*centre)))
            affine_transform(light[channel], scale, centre * (1 - scale), output=moved[channel], mode="nearest")
    return np.maximum(moved, 0)


def with_points(
    light: NDArray[np.float32], count: int, fwhm: tuple[float, float], peak: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.float32]:  # fmt: skip
    """`light` (3, H, W) and `count` stars or lamps upon it: Gaussian spots at random places, of colours from orange to blue.

    Args:
        fwhm: range of the full width at half maximum, pixels, drawn uniformly.
        peak: range of the brightest green value, units of `light`, drawn log-uniformly: there are more faint ones than bright ones.
    """
    result, (height, width) = light.copy(), light.shape[1:]
    for _ in range(count):
        row, column, hue = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(-1, 1)
        sd = rng.uniform(*fwhm) / np.sqrt(8 * np.log(2))
        green = np.exp(rng.uniform(*np.log(peak)))
        rows, columns = (np.exp(-0.5 * ((np.arange(side) - at) / sd) ** 2) for side, at in ((height, row), (width, column)))
        colour = green * np.exp(0.5 * hue * np.array([1.0, 0.0, -1.0]))
        result += (colour[:, None, None] * rows[:, None] * columns).astype(np.float32)
    return result


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

"""Finished photographs as clean light: what a camera would have seen, white-balanced."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

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

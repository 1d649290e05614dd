"""Finished photographs as clean light: what a camera would have seen, white-balanced."""

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.render import block_means, camera_to_srgb, srgb_decode


def clean_light(photograph: NDArray[np.uint8], factor: int, xyz_to_camera: NDArray) -> NDArray[np.float32]:
    """An 8-bit sRGB photograph (H, W, 3) as white-balanced linear camera RGB (3, H / factor, W / factor), 1 = its white.

    The curve is undone, pixels are averaged in linear light, and the colours are those of a camera with the given
    matrix XYZ(D65) -> camera (Brooks et al. 2019, "Unprocessing", do the same). Tone curves other than sRGB's stay.
    """
    linear = block_means(srgb_decode(photograph.astype(np.float32) / 255).transpose(2, 0, 1), factor)
    to_camera = np.linalg.inv(camera_to_srgb(np.asarray(xyz_to_camera, float).reshape(3, 3)))
    return np.clip(np.tensordot(to_camera, linear, axes=1), 0, 1).astype(np.float32)

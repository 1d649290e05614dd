"""From linear camera RGB to what a screen shows: the only place where values are clipped for good."""

import numpy as np
from numpy.typing import NDArray

SRGB_FROM_XYZ_D65 = np.array([[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]])


def srgb_encode(linear: NDArray) -> NDArray:
    """Linear light to the sRGB transfer curve, [0, 1] to [0, 1] (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 1e-8) ** (1 / 2.4) - 0.055)


def srgb_decode(encoded: NDArray) -> NDArray:
    """Its inverse."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0) + 0.055) / 1.055) ** 2.4)


def render(rgb: NDArray, camera_to_srgb: NDArray) -> NDArray[np.float32]:
    """White-balanced linear camera RGB (3, H, W) to display sRGB in [0, 1] (3, H, W).

    Channels are clipped at white before the colour matrix, so that a saturated light stays neutral.
    """
    linear = np.tensordot(camera_to_srgb.astype(rgb.dtype), np.clip(rgb, 0, 1), axes=1)
    return srgb_encode(np.clip(linear, 0, 1)).astype(np.float32)


def oriented(rgb: NDArray, orientation: int) -> NDArray:
    """A picture (3, H, W) turned upright: the very last step, after it the pattern of the sensor is gone.

    Args:
        rgb: the picture as the sensor lies.
        orientation: LibRaw's `flip`: 0 none, 3 half a turn, 5 a quarter counter-clockwise, 6 a quarter clockwise; as
            bits, 1 mirrors the columns, 2 mirrors the rows, and then 4 exchanges rows and columns.

    Raises:
        ValueError: `orientation` is not in 0 ... 7.
    """
    if orientation not in range(8):
        raise ValueError(f"orientation must be in 0 ... 7 (LibRaw's flip), got {orientation}")
    rgb = rgb[:, ::-1] if orientation & 2 else rgb
    rgb = rgb[:, :, ::-1] if orientation & 1 else rgb
    return np.ascontiguousarray(rgb.transpose(0, 2, 1) if orientation & 4 else rgb)


def camera_to_srgb(xyz_to_camera: NDArray) -> NDArray[np.float32]:
    """The matrix from white-balanced camera RGB to linear sRGB, given a DNG-like matrix XYZ(D65) -> camera.

    Rows of sRGB -> camera are scaled to sum 1, so that white-balanced grey stays grey (as dcraw does).
    A zero matrix (LibRaw knows none) gives the identity.
    """
    to_camera = xyz_to_camera[:3] @ np.linalg.inv(SRGB_FROM_XYZ_D65)
    sums = to_camera.sum(axis=1, keepdims=True)
    if not np.all(np.abs(sums) > 1e-6):
        return np.eye(3, dtype=np.float32)
    return np.linalg.inv(to_camera / sums).astype(np.float32)

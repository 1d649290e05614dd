"""From linear camera RGB to what a screen shows: the only place where values are clipped for good. Blown highlights fade to neutral."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from lowlight_kedro.bounds import Fraction, PositiveFraction, ProperFraction
from lowlight_kedro.sensor.cfa import UNFILTERED, Cfa, masks

SRGB_FROM_XYZ_D65 = np.array([[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]])
STRIP = 256  # rows rendered at a time: what is held beside a whole frame stays small
SAMPLED = 1024  # pixels along the longer side from which the brightness is judged


def srgb_encode(linear: NDArray) -> NDArray:
    """Linear light to the sRGB transfer curve, [0, 1] to [0, 1] (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 1e-8) ** (1 / 2.4) - 0.055)


def srgb_decode(encoded: NDArray) -> NDArray:
    """Its inverse."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0) + 0.055) / 1.055) ** 2.4)


@dataclass(frozen=True)
class Display:
    """How bright a picture is shown, and how its highlights end.

    Attributes:
        quantile: of the brightest channel of all pixels; its value decides.
        dark: a value below it means a dark picture, which is brightened.
        lift: how far: 0 not at all, 1 until the value is `dark`; between, a dark scene stays darker than a bright one.
        least, most: limits of the factor.
        knee: linear light above it is rolled off towards white, see `rolled_off`.
    """

    quantile: PositiveFraction
    dark: PositiveFraction
    lift: Fraction
    least: PositiveFraction
    most: Annotated[float, Ge(1)]
    knee: ProperFraction


def display_exposure(rgb: NDArray, display: Display, saturation: float = np.inf) -> float:
    """The factor on linear light (3, H, W) with which it is shown; 1 for a picture that is neither dark nor blown.

    With q the quantile: (2 - knee) / q where q lies above 2 - knee, which is what `rolled_off` shows as white;
    (dark / q)^lift where q lies below `dark`. The brightness shown, q times the factor, never falls as q rises.
    """
    step = 1 + max(rgb.shape[1:]) // SAMPLED
    brightest = np.minimum(rgb[:, ::step, ::step], saturation).max(axis=0)
    value = max(float(np.quantile(brightest, display.quantile)), np.finfo(np.float32).tiny)
    white = 2 - display.knee
    factor = white / value if value > white else (display.dark / value) ** display.lift if value < display.dark else 1.0
    return float(np.clip(factor, display.least, display.most))


def rolled_off(linear: NDArray, knee: float) -> NDArray:
    """Linear sRGB (3, H, W) whose highlights end softly: the ratios of the channels, so hue, stay.

    The brightest channel m becomes m - (m - knee)^2 / (4 (1 - knee)) above the knee: straight on at the knee, and 1
    with slope 0 at m = 2 - knee and beyond.
    """
    brightest = linear.max(axis=0)
    above = np.clip(brightest - knee, 0, 2 * (1 - knee))
    rolled = np.minimum(brightest, 2 - knee) - above**2 / (4 * (1 - knee))
    return linear * np.where(brightest > knee, rolled / np.maximum(brightest, knee), 1)


def _rendered(rgb: NDArray, matrix: NDArray, exposure: float, knee: float | None, saturation: float) -> NDArray[np.float32]:
    linear = np.tensordot(matrix, np.clip(rgb, 0, saturation) * rgb.dtype.type(exposure), axes=1)
    linear = linear if knee is None or knee >= 1 else rolled_off(np.maximum(linear, 0), knee)
    return srgb_encode(np.clip(linear, 0, 1)).astype(np.float32)


def render(
    rgb: NDArray, camera_to_srgb: NDArray, *, exposure: float = 1.0, knee: float | None = None, saturation: float = 1.0
) -> NDArray[np.float32]:
    """White-balanced linear camera RGB (3, H, W) to display sRGB in [0, 1] (3, H, W), a few rows at a time.

    Args:
        rgb: the light, floating point.
        camera_to_srgb: (3, 3).
        exposure: factor on the light, see `display_exposure`.
        knee: where highlights begin to be rolled off, or later, so that saturated light is white; None clips each channel.
        saturation: where the photosites saturate, in units of `rgb` before `exposure`: channels are clipped there before
            the colour matrix, so that a saturated light stays neutral.
    """
    knee = None if knee is None else max(knee, 2 - max(saturation * exposure, 1))
    shown, matrix = np.empty(rgb.shape, np.float32), camera_to_srgb.astype(rgb.dtype)
    for top in range(0, rgb.shape[1], STRIP):
        shown[:, top : top + STRIP] = _rendered(rgb[:, top : top + STRIP], matrix, exposure, knee, saturation)
    return shown


def block_means(rgb: NDArray, n: int, saturation: float = np.inf) -> NDArray:
    """Means of n x n pixels of (3, H, W), a row of blocks at a time; up to n - 1 rows and columns at the bottom and the right
    are left out. Values are clipped at `saturation` before, unless n is 1.
    """
    if n == 1:
        return rgb
    height, width = (max(side // n, 1) for side in rgb.shape[1:])
    rows, columns = min(n, rgb.shape[1]), min(n, rgb.shape[2])
    blocks = rgb[:, : height * rows, : width * columns].reshape(3, height, rows, width, columns)
    means = np.empty((3, height, width), rgb.dtype)
    for row in range(height):
        np.minimum(blocks[:, row], saturation).mean(axis=(1, 3), out=means[:, row])
    return means


def shrunk(rgb: NDArray, long_side: int, saturation: float = np.inf) -> NDArray:
    """`block_means` of linear light (3, H, W), the blocks the least that bring the longer side to `long_side` at most.

    Channels are clipped at `saturation` before: after it, edges of saturated light would take the colour of the white balance.
    """
    return block_means(rgb, -(-max(rgb.shape[1:]) // long_side), saturation)


def resized(rgb: NDArray, long_side: int, saturation: float = np.inf) -> NDArray:
    """Linear light (3, H, W) whose longer side has `long_side` pixels, or as many as before if they are fewer.

    Each pixel is a mean with weights that fall smoothly and are nowhere negative (Hamming window), so nothing rings. Channels are
    clipped at `saturation` before, see `shrunk`.
    """
    from PIL import Image

    height, width = rgb.shape[1:]
    scale = long_side / max(height, width)
    if scale >= 1:
        return rgb
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    planes = [Image.fromarray(np.minimum(plane, saturation).astype(np.float32)) for plane in rgb]
    return np.stack([np.asarray(plane.resize(size, Image.Resampling.HAMMING)) for plane in planes]).astype(rgb.dtype)


def square_shape(shape: tuple[int, int], aspect: float) -> tuple[int, int]:
    """Height and width of `square`."""
    height, width = shape
    return (height, round(width * aspect)) if aspect >= 1 else (round(height / aspect), width)


def square(rgb: NDArray, aspect: float) -> NDArray:
    """Light (3, H, W) of photosites `aspect` times as wide as high, with square pixels: the shorter direction is stretched (bilinear)."""
    from PIL import Image

    if aspect == 1:
        return rgb
    height, width = square_shape((rgb.shape[1], rgb.shape[2]), aspect)
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in rgb]
    return np.stack([np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes]).astype(rgb.dtype)


def fraction_outside(light: NDArray, low: NDArray | float = 0.0, high: NDArray | float = 1.0) -> dict[str, float]:
    """Fractions of the values below `low` and above `high`: what a file of that range cannot hold."""
    return {"below": float(np.mean(light < low)), "above": float(np.mean(light > high))}


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


REACH = 4  # pixels around a blown site: red and blue are interpolated over so many
FULL = 1 / 5  # fraction of blown green sites within them from which on a colour counts as unknown
BLOWN = 0.99  # of white


def _counts(where: NDArray[np.bool_], reach: int) -> NDArray[np.float64]:
    """How many sites within (2 reach + 1)^2 around each, cut off at the edges."""
    from scipy.ndimage import uniform_filter  # slow to import

    side = 2 * reach + 1
    return np.rint(side**2 * uniform_filter(where.astype(np.float64), side, mode="constant"))


def unknown_colour(signal: NDArray, cfa: Cfa) -> NDArray[np.float32]:
    """How far the colour of a pixel is unknown, 0 to 1 (H, W): by the fraction of blown green sites within REACH.

    Args:
        signal: of the photosites (H, W), 1 = white, or of three values a pixel (3, H, W).
        cfa: their filters.
    """
    green = masks(cfa, signal.shape[-2:])[1]
    blown = _counts(green & ((signal[1] if cfa == UNFILTERED else signal) >= BLOWN), REACH)
    return np.clip(blown / (FULL * np.maximum(_counts(green, REACH), 1)), 0, 1).astype(np.float32)


def faded(light: NDArray, signal: NDArray, cfa: Cfa) -> NDArray:
    """White-balanced light (3, H, W) whose red and blue go to green where the colour is unknown and green is the least or the greatest.

    A twig before a blown sky dims green sites that red and blue next to it, at white, do not show: it would be magenta. Where only red or
    only blue exceeds green, as in lamps, the colour stays. With R and B both above G (or both below), the nearer by e and the farther by
    f, they go by min(1, 2 e / f) of the way, so that nothing changes abruptly. Nothing changes away from blown sites.
    """
    unknown = unknown_colour(signal, cfa)
    rows, columns = np.nonzero(unknown)
    if not len(rows):
        return light
    red, green, blue = light[:, rows, columns]
    apart = np.stack([red - green, blue - green])
    nearer, farther = np.sort(np.abs(apart), axis=0)
    fraction = np.where(apart[0] * apart[1] > 0, np.minimum(2 * nearer / np.maximum(farther, 1e-12), 1), 0) * unknown[rows, columns]
    result = light.copy()
    result[0, rows, columns], result[2, rows, columns] = (green + (1 - fraction) * channel for channel in apart)
    return result

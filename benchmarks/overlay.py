"""One hand-held exposure laid over another, block by block: by which fractions of a pixel a block is moved, and whether it stands still.

Shifts are measured once, on green light of both frames demosaiced and blurred alike, so that no method of restoration decides where
the blocks lie.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline
from scipy.ndimage import binary_dilation, gaussian_filter

BLOCK = 128  # pixels a side
MARGIN = 24  # pixels around a block that its resampling and its neighbourhoods see
ORDER = 5  # of the splines
BLUR = 2.0  # standard deviation of the Gaussian before shifts are measured, pixels: nothing is left after it of a mosaic's own lattice
STEPS = 8  # of Gauss and Newton
FAR = 0.25  # pixels, standard deviation around the expected shift: decides where a block shows nothing that could tell
SATURATED, SPREAD = 0.85, 8  # of white, and how many pixels around a saturated one are not compared
LEAST = 0.5  # of a block that is to be usable
MISFIT = 0.02  # of the light that a block standing still may differ by, blurred; those of the bracket that do differ by 0.3 to 1.6 %


@dataclass(frozen=True)
class Block:
    """Where a block of the short frame lies in the long one.

    Attributes:
        top, left: its first row and column in the short frame.
        shift: (y, x), pixels: `long[y + dy, x + dx]` shows `short[y, x]`.
        misfit: what is left of the blurred difference, rms, over the rms of the blurred light.
        usable: (BLOCK, BLOCK), True where the long frame is not saturated nearby.
    """

    top: int
    left: int
    shift: tuple[float, float]
    misfit: float
    usable: NDArray[np.bool_]

    @property
    def whole(self) -> tuple[int, int]:
        """The shift in whole pixels."""
        return round(self.shift[0]), round(self.shift[1])

    @property
    def corner(self) -> tuple[int, int]:
        """First row and column of the pixels of the long frame that lie nearest to the block."""
        return self.top + self.whole[0], self.left + self.whole[1]

    @property
    def from_even(self) -> float:
        """How far the shift is from the nearest that lays sites of a Bayer mosaic on sites of the same channel, pixels."""
        return float(np.hypot(*(part - 2 * round(part / 2) for part in self.shift)))

    def of_short(self, image: NDArray, margin: int = 0) -> NDArray:
        """The block of an image (..., H, W) of the short frame, `margin` pixels more on each side, untouched."""
        return moved(image, self.top, self.left, (0.0, 0.0), margin)

    def of_long(self, image: NDArray, margin: int = 0) -> NDArray:
        """The same of an image of the long frame, resampled at the pixels of the short one."""
        return moved(image, self.top, self.left, self.shift, margin)

    def at_long(self, image: NDArray) -> NDArray:
        """The block of an image of the short frame, resampled at the pixels of the long one that begin at `corner`."""
        back = self.whole[0] - self.shift[0], self.whole[1] - self.shift[1]
        return moved(image, self.top, self.left, back)


def moved(image: NDArray, top: int, left: int, by: tuple[float, float], margin: int = 0) -> NDArray:
    """The block of `image` (..., H, W) whose pixel [y, x] is image[top + y + by_y, left + x + by_x], by splines of order ORDER.

    Raises:
        ValueError: the block and MARGIN pixels around it do not lie inside the image.
    """
    whole = round(by[0]), round(by[1])
    first, begin = top + whole[0] - MARGIN, left + whole[1] - MARGIN
    side = BLOCK + 2 * MARGIN
    if min(first, begin) < 0 or first + side > image.shape[-2] or begin + side > image.shape[-1]:
        raise ValueError(f"a block at {top}, {left} moved by {by}, with {MARGIN} pixels around it, leaves an image of {image.shape}")
    inside = slice(MARGIN - margin, MARGIN + BLOCK + margin)
    around = image[..., first : first + side, begin : begin + side]
    fraction = by[0] - whole[0], by[1] - whole[1]
    if fraction == (0, 0):
        return around[..., inside, inside]
    down, across = (make_interp_spline(np.arange(side), np.eye(side), k=ORDER)(np.arange(side)[inside] + part) for part in fraction)
    return (down @ around @ across.T).astype(image.dtype)


def found_shift(
    short: NDArray, long: NDArray, top: int, left: int, usable: NDArray[np.bool_], expected: tuple[float, float]
) -> tuple[tuple[float, float], float]:  # fmt: skip
    """Shift and misfit of a block of blurred images (H, W): least squares of gain * short - long(shift) over gain and shift.

    Args:
        expected: where the shift is looked for; it counts as one measurement with the standard deviation FAR. A misfit of infinity says
            that the block is not to be found within MARGIN.
    """
    light, at = short[top : top + BLOCK, left : left + BLOCK][usable].astype(float), np.array(expected, float)
    for _ in range(STEPS):
        around = moved(long, top, left, (at[0], at[1]), margin=1)
        slopes = (around[2:, 1:-1] - around[:-2, 1:-1])[usable] / 2, (around[1:-1, 2:] - around[1:-1, :-2])[usable] / 2
        there = around[1:-1, 1:-1][usable].astype(float)
        design = np.stack([light, -slopes[0], -slopes[1]], axis=1)
        normal, right = design.T @ design, design.T @ there
        rest = there - design @ np.linalg.solve(normal + 1e-12 * np.eye(3), right)
        pull = max(float(np.square(rest).mean()) * 4 * np.pi * BLUR**2, 1e-12) / FAR**2  # neighbours err together after the blur
        step = np.linalg.solve(normal + np.diag([1e-12, pull, pull]), right + pull * np.array([0, *(np.asarray(expected) - at)]))
        at = at + step[1:]
        if np.hypot(*(at - expected)) > MARGIN / 2:
            return (float(expected[0]), float(expected[1])), float("inf")
    rest = there - design @ step
    return (float(at[0]), float(at[1])), float(np.sqrt(np.square(rest).mean() / np.square(there).mean()))


def blocks(short: NDArray, long: NDArray, expected: tuple[float, float]) -> Iterator[Block]:
    """All blocks of two frames' green light (H, W), both as bright as the long one, that can be compared and stand still.

    Args:
        expected: the shift (y, x) of the whole frame.
    """
    unsaturated = ~binary_dilation(long >= SATURATED, np.ones((3, 3), bool), SPREAD)
    blurred = tuple(gaussian_filter(np.minimum(light, 1), BLUR) for light in (short, long))
    edge = MARGIN + int(np.ceil(max(map(abs, expected)))) + MARGIN // 2
    whole = round(expected[0]), round(expected[1])
    for top in range(edge, short.shape[0] - BLOCK - edge + 1, BLOCK):
        for left in range(edge, short.shape[1] - BLOCK - edge + 1, BLOCK):
            usable = moved(unsaturated, top, left, whole)
            if usable.mean() < LEAST:
                continue
            at, misfit = found_shift(*blurred, top, left, usable, expected)
            if misfit <= MISFIT:
                yield Block(top, left, at, misfit, moved(unsaturated, top, left, (round(at[0]), round(at[1]))))

"""One dark taken apart: black level, rows, columns and blocks, without the sites that stand out; and what is no dark at all.

Units: DN above the black level of the header.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import tile_pattern
from lowlight_kedro.sensor.frame import Frame, between, mosaic_only, range_dn

BLOCK = 12  # photosites a side, whole periods of Bayer and X-Trans: the glow is a number for each
BESIDE = 2  # waves along the row that tell one dark's glow from its rows
INLYING = 4.0  # standard deviations around the middle of its block within which a site counts for what it shares with others
LEAST_NOISE = 0.5  # DN: coarser than whole numbers nothing is
LIGHT = 0.05  # of white: the median of no dark lies above it
# A block that differs from those around it by so many standard deviations, and the fraction of blocks that do so in no dark.
PICTURE, STRANGE = 5.0, 0.04
CUT_OFF = 0.2  # fraction of sites exactly at the lowest value: the camera cut its noise off at black, half of it is lost


def spread_out(grid: NDArray, length: int, axis: int) -> NDArray:
    """Values of the middles of blocks (h, w), linear between them along an axis of `length` photosites; constant beyond the last."""
    return between(grid, (np.arange(length) + 0.5) / BLOCK - 0.5, axis)


def block_means(image: NDArray, count: NDArray | None = None) -> NDArray:
    """Mean over whole blocks (H // BLOCK, W // BLOCK); `count` 0 or 1 tells which sites count."""
    down, right = image.shape[0] // BLOCK, image.shape[1] // BLOCK

    def summed(values: NDArray) -> NDArray:
        return values[: down * BLOCK, : right * BLOCK].reshape(down, BLOCK, right, BLOCK).sum(axis=(1, 3), dtype=np.float64)

    return summed(image) / BLOCK**2 if count is None else summed(image * count) / np.maximum(summed(count), 1)


@dataclass(frozen=True)
class Survey:
    """What one dark shows, every part with the noise of one frame.

    Attributes:
        black: (p, q) mean of each channel.
        rows: (H, 1 + BESIDE) mean along each row, and its first waves along it.
        columns: (W,). blocks: means beside rows and columns.
        variance: (h, w) of single sites, by block.
    """

    black: NDArray
    rows: NDArray
    columns: NDArray
    blocks: NDArray
    variance: NDArray


def survey(dark: Frame) -> Survey:
    """A dark taken apart; sites that stand out of their block do not count.

    Raises:
        ValueError: it is no dark: it holds light, a picture, or noise that was cut off at black.
    """
    signal = excess_of(mosaic_only(dark))
    _require_dark(dark, signal)
    cfa, (height, width) = np.asarray(dark.cfa), signal.shape
    down, right = height // BLOCK, width // BLOCK
    cells = signal[: down * BLOCK, : right * BLOCK].reshape(down, BLOCK, right, BLOCK)
    middle = np.median(cells, axis=(1, 3)).astype(np.float32)
    offset = signal - spread_out(spread_out(middle, height, 0), width, 1)
    scale = np.quantile(np.abs(offset[::3, ::5]), 0.95) / 1.96
    keep = np.abs(offset) <= INLYING * max(float(scale), LEAST_NOISE)
    channel, level = tile_pattern(cfa, signal.shape), np.zeros(3)
    for number in range(3):
        level[number] = signal[keep & (channel == number)].mean(dtype=np.float64)
    rest = np.where(keep, signal - level.astype(np.float32)[channel], 0)
    waves = np.sqrt(2) * np.cos(np.pi * np.outer(np.arange(width) + 0.5, np.arange(1 + BESIDE)) / width)
    waves[:, 0] = 1
    rows = (rest @ waves.astype(np.float32)) / np.maximum(keep.sum(axis=1, keepdims=True), 1)
    columns = rest.sum(axis=0, dtype=np.float64) / np.maximum(keep.sum(axis=0), 1)
    beside = rest - (rows[:, :1] + columns).astype(np.float32)
    blocks = block_means(beside, keep)
    variance = block_means(np.square(beside - spread_out(spread_out(blocks.astype(np.float32), height, 0), width, 1)), keep)
    _require_no_picture(blocks, variance)
    return Survey(level[cfa], rows, columns, blocks, variance)


def excess_of(dark: Frame) -> NDArray[np.float32]:
    """DN above the header's black level (H, W)."""
    return dark.mosaic_dn - tile_pattern(dark.black_level, dark.mosaic_dn.shape)


def _require_dark(dark: Frame, signal: NDArray) -> None:
    if min(signal.shape) < 2 * BLOCK:
        raise ValueError(f"a dark must have at least {2 * BLOCK} x {2 * BLOCK} photosites, got {signal.shape[0]} x {signal.shape[1]}")
    brightness = float(np.median(signal[::3, ::5])) / range_dn(dark)
    if brightness > LIGHT:
        raise ValueError(
            f"it is no dark: its median is {brightness:.0%} of white, expected at most {LIGHT:.0%}; take darks with the lens cap on"
        )
    if float((dark.mosaic_dn == dark.mosaic_dn.min()).mean()) > CUT_OFF:
        raise ValueError("its noise is cut off at black (the camera subtracts its black level), so that its mean tells nothing")


def _require_no_picture(blocks: NDArray, variance: NDArray) -> None:
    """Glow is smooth; light that falls on a sensor is not."""
    if min(blocks.shape) < 4:
        return
    middle, around = blocks[1:-1, 1:-1], (blocks[:-2, 1:-1] + blocks[2:, 1:-1] + blocks[1:-1, :-2] + blocks[1:-1, 2:]) / 4
    strange = np.abs(middle - around) > PICTURE * np.sqrt(1.25 * variance[1:-1, 1:-1] / BLOCK**2)
    if strange.mean() > STRANGE:
        raise ValueError(f"it is no dark: it shows a picture in {strange.mean():.0%} of its blocks; take darks with the lens cap on")

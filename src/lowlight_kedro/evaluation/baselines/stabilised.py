"""Poisson-Gaussian noise made even, so that a denoiser for white Gaussian noise can be used."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class UnitDenoiser(Protocol):
    """Denoises planes with white noise of standard deviation 1; `colour`: three planes are the channels of one picture."""

    def __call__(self, planes: NDArray, *, colour: bool) -> NDArray:
        """(N, H, W) to the same."""


def stabilise(signal: NDArray, gain: float, read_noise: float) -> NDArray:
    """Generalised Anscombe transform (Starck et al. 1998): 2 sqrt(max(z + 3/8 + r^2, 0)), z = signal / gain, r = read_noise / gain."""
    return 2 * np.sqrt(np.maximum(signal / gain + 0.375 + (read_noise / gain) ** 2, 0))


def unstabilise(stabilised: NDArray, gain: float, read_noise: float) -> NDArray:
    """Its exact unbiased inverse in closed form (Makitalo and Foi 2013): the signal whose mean transform is `stabilised`."""
    d = np.maximum(stabilised, 1.0)  # below, the series diverges; signals above black lie at 2 sqrt(3/8) and more
    root = np.sqrt(1.5)
    electrons = d**2 / 4 + root / (4 * d) - 11 / (8 * d**2) + 5 * root / (8 * d**3) - 0.125 - (read_noise / gain) ** 2
    return electrons * gain


def split_planes(mosaic: NDArray) -> NDArray:
    """The four planes (4, H / 2, W / 2) of a Bayer mosaic (H, W)."""
    return np.stack([mosaic[row::2, column::2] for row in (0, 1) for column in (0, 1)])


def join_planes(planes: NDArray) -> NDArray:
    """Back from `split_planes`."""
    height, width = planes.shape[1:]
    return planes.reshape(2, 2, height, width).transpose(2, 0, 3, 1).reshape(2 * height, 2 * width)


def denoise_signal(signal: NDArray, gain: float, read_noise: float, denoiser: UnitDenoiser) -> NDArray:
    """A signal (3, H, W), or a Bayer mosaic (H, W) of even sides by its four planes, denoised; Var = gain signal + read_noise^2.

    Raises:
        ValueError: a mosaic of odd sides.
    """
    colour = signal.ndim == 3
    if not colour and any(side % 2 for side in signal.shape):
        raise ValueError(f"a Bayer mosaic has even sides, got {signal.shape}; cut a row or a column off")
    planes = signal if colour else split_planes(signal)
    denoised = unstabilise(denoiser(stabilise(planes, gain, read_noise), colour=colour), gain, read_noise)
    return (denoised if colour else join_planes(denoised)).astype(np.float32)

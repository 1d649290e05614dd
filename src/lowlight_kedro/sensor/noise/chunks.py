"""Evaluate a function of photosites piece by piece, so that memory does not grow with the frame."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Pointwise = Callable[[NDArray, NDArray], NDArray]


def in_chunks(function: Pointwise, observed: ArrayLike, signal: ArrayLike, size: int) -> NDArray[np.float64]:
    """`function(observed, signal)` of broadcast arrays, at most `size` photosites at a time."""
    observed, signal = np.broadcast_arrays(np.asarray(observed, float), np.asarray(signal, float))
    flat_observed, flat_signal, result = observed.ravel(), signal.ravel(), np.empty(observed.size)
    for start in range(0, result.size, size):
        part = slice(start, start + size)
        result[part] = function(flat_observed[part], flat_signal[part])
    return result.reshape(observed.shape)

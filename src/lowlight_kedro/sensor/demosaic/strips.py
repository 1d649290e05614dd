"""Work through a mosaic in strips of rows that stay in cache, with its border continued in the colours of the pattern.

What a strip computes for a pixel must depend on its neighbourhood only and take the same steps everywhere: then the
result is the same, bit by bit, for every height of the strips and any number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa

PLANE = 2**15  # sites of one phase in a strip, so that what is computed from them stays in a core's cache


def continued(lines: NDArray, length: int, before: int, after: int) -> NDArray[np.intp]:
    """Indices in [0, length) for the positions -before ... length + after - 1 of one axis.

    A position outside takes the line nearest to its mirror image that has its colours (`lines` (p, q): the colours of
    the p different lines). For a Bayer pattern this is the mirror image itself, the edge not repeated.

    Raises:
        ValueError: the axis is shorter than one period.
    """
    period = len(lines)
    if length < period:
        raise ValueError(f"each side of a mosaic must hold a colour filter period of {period}, got a side of {length}")
    positions, inside = np.arange(-before, length + after), np.arange(length)
    folded = positions % (2 * (length - 1))
    indices = np.minimum(folded, 2 * (length - 1) - folded)
    for at in np.flatnonzero((positions < 0) | (positions >= length)):
        alike = inside[(lines[inside % period] == lines[positions[at] % period]).all(axis=1)]
        indices[at] = alike[np.abs(alike - indices[at]).argmin()]
    return indices


@dataclass(frozen=True)
class Phases:
    """A strip split by phase of the pattern.

    Attributes:
        planes: (p, p, rows, columns), `planes[i, j]` holds the sites (i, j) of all periods, contiguous.
        margin: periods on each side that are there only to be looked at.
    """

    planes: NDArray[np.float32]
    margin: int

    @property
    def shape(self) -> tuple[int, int]:
        """Periods inside the margin, down and across."""
        rows, columns = self.planes.shape[2:]
        return rows - 2 * self.margin, columns - 2 * self.margin

    def at(self, row: int, column: int) -> NDArray[np.float32]:
        """The site (row, column) seen from each period inside the margin; may lie in a neighbouring period."""
        period = len(self.planes)
        down, across = row // period + self.margin, column // period + self.margin
        rows, columns = self.shape
        return self.planes[row % period, column % period, down : down + rows, across : across + columns]


def split(window: NDArray, period: int, margin: int) -> Phases:
    """A strip (H, W), its sides whole periods, by phase; `margin` in sites, whole periods too."""
    rows, columns = (side // period for side in window.shape)
    planes = window.reshape(rows, period, columns, period).transpose(1, 3, 0, 2)
    return Phases(np.ascontiguousarray(planes), margin // period)


def whole_periods(sites: int, period: int) -> int:
    """`sites` rounded up to whole periods."""
    return -(-sites // period) * period


def in_strips(mosaic: NDArray, cfa: Cfa, margin: int, estimate: Callable[[NDArray], NDArray], *, tall: int = 1) -> NDArray[np.float32]:
    """RGB (3, H, W) of a mosaic (H, W) from `estimate`, strip by strip.

    Args:
        mosaic: values of any real type.
        cfa: its colours.
        margin: sites around a strip that `estimate` looks at, whole periods.
        estimate: float32 window (h + 2 margin, w + 2 margin) at phase 0 to RGB (3, h, w); h and w are whole periods.
        tall: so many times the usual height, for an `estimate` that does much work in the margin too.
    """
    period, colours = len(cfa), np.asarray(cfa)
    height, width = mosaic.shape
    rows = continued(colours, height, margin, margin + -height % period)
    columns = continued(colours.T, width, margin, margin + -width % period)
    step = max(tall * PLANE * period // width, 1) * period
    rgb = np.empty((3, height, width), np.float32)
    for top in range(0, height, step):
        chosen = rows[top : top + step + 2 * margin]
        window = np.empty((len(chosen), len(columns)), np.float32)
        window[:, margin : margin + width] = mosaic[chosen]
        window[:, :margin] = window[:, margin + columns[:margin]]
        window[:, margin + width :] = window[:, margin + columns[margin + width :]]
        part = rgb[:, top : top + step]
        part[...] = estimate(window)[:, : part.shape[1], :width]
    return rgb

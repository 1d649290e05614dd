"""Malvar, He and Cutler 2004: gradient-corrected linear interpolation for Bayer mosaics.

"High-quality linear interpolation for demosaicing of Bayer-patterned color images", ICASSP 2004, figure 2. Each estimate is
the bilinear one plus a fraction of the Laplacian of the measured channel: 1/2 for green, 5/8 for red and blue at green sites,
3/4 for red at blue sites and blue at red ones. Written as differences, so that a flat colour stays exact to the bit.
"""

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.demosaic.strips import Phases, in_strips, split

REACH = 2


def _pair(phases: Phases, row: int, column: int, down: int, across: int) -> NDArray[np.float32]:
    """Sum of the two neighbours on opposite sides."""
    return phases.at(row - down, column - across) + phases.at(row + down, column + across)


def _laplacian(phases: Phases, row: int, column: int, others: NDArray) -> NDArray[np.float32]:
    """Four times the measured value less four `others` of the same channel."""
    difference = phases.at(row, column) * np.float32(4)
    difference -= others
    return difference


def _at_red_or_blue(phases: Phases, row: int, column: int) -> tuple[NDArray, NDArray]:
    """Green, and the one of red and blue that is not measured here."""
    same = _pair(phases, row, column, 2, 0)
    same += _pair(phases, row, column, 0, 2)
    laplacian = _laplacian(phases, row, column, same)
    green = _pair(phases, row, column, 1, 0)
    green += _pair(phases, row, column, 0, 1)
    green *= np.float32(1 / 4)
    opposite = _pair(phases, row, column, 1, 1)
    opposite += _pair(phases, row, column, 1, -1)
    opposite *= np.float32(1 / 4)
    laplacian *= np.float32(1 / 8)
    green += laplacian
    laplacian *= np.float32(3 / 2)
    opposite += laplacian
    return green, opposite


def _at_green(phases: Phases, row: int, column: int) -> tuple[NDArray, NDArray]:
    """The colour that lies left and right, and the one that lies above and below."""
    diagonal = _pair(phases, row, column, 1, 1)
    diagonal += _pair(phases, row, column, 1, -1)
    laplacian = _laplacian(phases, row, column, diagonal)
    laplacian += phases.at(row, column)
    across, down = _pair(phases, row, column, 0, 2), _pair(phases, row, column, 2, 0)
    estimates = []
    for near, along, against in ((_pair(phases, row, column, 0, 1), across, down), (_pair(phases, row, column, 1, 0), down, across)):
        curvature = against * np.float32(1 / 2)
        curvature -= along
        curvature += laplacian
        curvature *= np.float32(1 / 8)
        near *= np.float32(1 / 2)
        near += curvature
        estimates.append(near)
    return estimates[0], estimates[1]


def _strip(window: NDArray, cfa: Cfa) -> NDArray[np.float32]:
    phases = split(window, 2, REACH)
    rgb = np.empty((3, *(2 * periods for periods in phases.shape)), np.float32)
    for row in (0, 1):
        for column in (0, 1):
            here = rgb[:, row::2, column::2]
            own = cfa[row][column]
            if own == 1:
                first, second = cfa[row][1 - column], cfa[1 - row][column]
                here[first], here[second] = _at_green(phases, row, column)
            else:
                here[1], here[2 - own] = _at_red_or_blue(phases, row, column)
            here[own] = phases.at(row, column)
    return rgb


def malvar2004(mosaic: NDArray, cfa: Cfa) -> NDArray[np.float32]:
    """Demosaic any of the four Bayer phases; linear, measured values stay, the border is mirrored.

    Raises:
        ValueError: the pattern is not 2x2.
    """
    if len(cfa) != 2:
        raise ValueError("malvar2004 needs a 2x2 Bayer pattern; choose lmmse or directional_lmmse for X-Trans")
    return in_strips(mosaic, cfa, REACH, lambda window: _strip(window, cfa))

"""The long exposure as the truth of a short one: moved over it, and where the two can be compared."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.alignment import comparable_sites, nearest_phase_keeping
from lowlight_kedro.sensor.frame import Frame, crop, normalise

MARGIN = 24  # photosites around the part that is demosaiced, so that its border does not count

Part = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class Reference:
    """What a restored part of a short exposure is compared with.

    Attributes:
        light: (3, h, w) of the long exposure.
        inside: the rows and columns of the restored part that it covers.
        mask: (h, w), True where the frames stand still and are not saturated.
    """

    light: NDArray[np.float32]
    inside: tuple[slice, slice]
    mask: NDArray[np.bool_]

    def of(self, image: NDArray) -> NDArray:
        """The part of a restored image (3, H, W) that is compared."""
        return image[:, self.inside[0], self.inside[1]]


def part_of(frame: Frame, part: Part | None) -> Part:
    """`part` as `crop` takes it, starting at a colour filter period; the whole frame for None."""
    if part is None:
        return (0, 0, *frame.mosaic_dn.shape)
    top, left, height, width = part
    period = len(frame.cfa)
    return top - top % period, left - left % period, height, width


def _spans(part: Part, shape: tuple[int, int], shift: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last row, first and last column (exclusive) of the long frame that meet `part`."""
    spans = [
        (max(0, start + moved), min(length, start + moved + size))
        for start, size, length, moved in zip(part[:2], part[2:], shape, shift, strict=True)
    ]
    if any(stop <= start for start, stop in spans):
        raise ValueError(f"after a shift of {shift} the part {part} lies outside the long exposure of {shape}")
    return spans[0], spans[1]


def _demosaiced(frame: Frame, spans: tuple[tuple[int, int], tuple[int, int]], demosaic: Callable[[Frame], NDArray]) -> NDArray:
    """Light (3, h, w) of the rows and columns `spans`, as it is within the whole frame."""
    period = len(frame.cfa)
    starts = [max(0, (start - MARGIN) // period * period) for start, _ in spans]
    stops = [min(length, stop + MARGIN) for (_, stop), length in zip(spans, frame.mosaic_dn.shape, strict=True)]
    light = demosaic(crop(frame, starts[0], starts[1], stops[0] - starts[0], stops[1] - starts[1]))
    (top, bottom), (left, right) = ((start - begin, stop - begin) for (start, stop), begin in zip(spans, starts, strict=True))
    return light[:, top:bottom, left:right]


def refer(
    short: Frame, long: Frame, part: Part | None, shift: tuple[float, float], ratio: float | None, demosaic: Callable[[Frame], NDArray]
) -> Reference:
    """The reference of `part` of a short exposure.

    Args:
        part: of the short frame, as restored; None = all of it.
        shift: measured (y, x), photosites: `long[y + dy, x + dx]` shows `short[y, x]`. Rounded to whole pixels, not to
            colour filter periods, for demosaiced images have no phase.
        ratio: measured signal ratio; None = the pair was not checked, and everything but saturation is compared.
        demosaic: frame to white-balanced linear RGB.

    Raises:
        ValueError: part and shift leave nothing in common.
    """
    place, shape = part_of(short, part), long.mosaic_dn.shape
    moved = (round(shift[0]), round(shift[1]))
    spans = _spans(place, (shape[0], shape[1]), moved)
    starts = [start - step - begin for (start, _), step, begin in zip(spans, moved, place[:2], strict=True)]
    inside = tuple(slice(begin, begin + stop - start) for begin, (start, stop) in zip(starts, spans, strict=True))
    sites = comparable_sites(normalise(short), normalise(long), short.cfa, nearest_phase_keeping(shift, short.cfa), ratio)
    mask = sites[place[0] : place[0] + place[2], place[1] : place[1] + place[3]][inside]
    return Reference(_demosaiced(long, spans, demosaic), (inside[0], inside[1]), mask)

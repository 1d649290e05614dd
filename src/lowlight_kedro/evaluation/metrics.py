"""How near an image comes to the truth: the long exposure moved over a short one, where the two may be compared, and metrics; images
(3, H, W) in [0, 1], data_range 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.sensor.alignment import comparable_sites
from lowlight_kedro.sensor.frame import Frame, crop, normalise
from lowlight_kedro.sensor.registration import nearest_phase_keeping

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


Metric = Callable[[Tensor, Tensor, Tensor], Tensor]

BORDER = 5  # of the SSIM window, pixels
HALO = 2 * BORDER  # rows beyond a strip: the window, and its mirrored margin
STRIP = 128  # rows
MS_SSIM_LEAST = 11 * 2**4  # pixels: four halvings must leave a whole window


def psnr(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over `mask`, dB, data_range 1; images (1, 3, H, W), mask (H, W)."""
    return -10 * torch.log10((image - truth).square()[..., mask].mean())


def ssim(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004: 11x11 Gaussian window, sigma 1.5), data_range 1; images (1, 3, H, W).

    The mean of its map over `mask` (H, W), without the border of the image, where the window does not fit; a window on
    the mask's edge looks up to 5 pixels beyond it. nan where nothing is left. A strip of rows at a time: of a whole frame the
    moments alone take 700 bytes a pixel.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # a second, in every worker and command

    inside = torch.zeros_like(mask)
    inside[BORDER:-BORDER, BORDER:-BORDER] = mask[BORDER:-BORDER, BORDER:-BORDER]
    total = image.new_zeros(())
    for top in range(0, image.shape[-2], STRIP):
        first = max(top - HALO, 0)
        rows, own = slice(first, top + STRIP + HALO), slice(top - first, top - first + STRIP)
        _, full = structural_similarity_index_measure(image[..., rows, :], truth[..., rows, :], data_range=1.0, return_full_image=True)
        total += full[..., own, :][..., inside[top : top + STRIP]].sum()
    return total / (image.shape[1] * inside.sum())


class MetricUnavailableError(ValueError):
    """This metric cannot be had here; the message says why and how it can. The others can."""


def _still(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """`image` with the truth outside the mask, for metrics that know no mask: what is masked counts as equal."""
    return torch.where(mask, image, truth)


def ms_ssim(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Multi-scale structural similarity (Wang et al. 2003, five scales), data_range 1; images (1, 3, H, W).

    What `mask` (H, W) leaves out counts as equal, so the value is an upper bound where much is left out.

    Raises:
        MetricUnavailableError: a side is too short for five scales.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    if min(image.shape[-2:]) < MS_SSIM_LEAST:
        raise MetricUnavailableError(
            f"ms_ssim needs sides of at least {MS_SSIM_LEAST} pixels for its five scales, got {tuple(image.shape[-2:])}"
        )
    return multiscale_structural_similarity_index_measure(_still(image, truth, mask), truth, data_range=1.0)


def lpips(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Learned perceptual distance (Zhang et al. 2018, AlexNet), 0 = equal; images (1, 3, H, W). Outside `mask` they count as equal.

    Raises:
        MetricUnavailableError: its package or the weights of AlexNet are missing.
    """
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    try:
        return learned_perceptual_image_patch_similarity(_still(image, truth, mask), truth, net_type="alex", normalize=True)
    except (ImportError, OSError) as error:
        raise MetricUnavailableError(
            f"lpips needs AlexNet's ImageNet weights ({error}): pip install lowlight-kedro[lpips], then once, with a network, "
            "python -c \"import torchvision; torchvision.models.alexnet(weights='DEFAULT')\" (233 MB into torch's cache)"
        ) from error


METRICS: dict[str, Metric] = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim, "lpips": lpips}


def measure(image: NDArray, truth: NDArray, metrics: dict[str, Metric], mask: NDArray | None = None) -> dict[str, float]:
    """All `metrics` of `image` against `truth`, both clipped to [0, 1], over `mask` (H, W); nan where it is empty."""
    here, there = (torch.from_numpy(part).float().clamp(0, 1)[None] for part in (image, truth))
    where = torch.ones(image.shape[1:], dtype=torch.bool) if mask is None else torch.from_numpy(mask)
    return {name: float(metric(here, there, where)) for name, metric in metrics.items()}

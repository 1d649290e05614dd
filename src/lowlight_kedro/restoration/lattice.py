"""The lattice of two pixels that a demosaicing network leaves where hardly anything is known, taken out."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

STRIDE = 4  # cells of 2 x 2 pixels between places where the lattice is measured, over twice as many
FAINT = 0.2  # standard deviations: a regular difference of phases that is stronger may be a weave, and is left
CARRIERS = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])  # rows, columns and both, at the four pixels of a cell
TINY = 1e-20


def _detail(x: Tensor) -> Tensor:
    """x (1, 1, H, W) less its means by 1 2 1 along rows and columns, which hold no such lattice: nothing is left of a gradient.

    At the edges, where neighbours are missing, what the next pixel of the same phase says.
    """
    inside = x[..., 1:-1, 1:-1] - F.avg_pool2d(F.avg_pool2d(x, 2, 1), 2, 1)
    return F.pad(inside, (1, 1, 1, 1), mode="reflect")


def _pooled(x: Tensor) -> Tensor:
    """Means over 2 STRIDE cells, one in STRIDE, of what lies inside of the frame."""
    return F.avg_pool2d(x, 2 * STRIDE, STRIDE, STRIDE // 2, count_include_pad=False)


def _lattice(detail: Tensor, std: Tensor) -> Tensor:
    """What is faint and regular in `detail` (1, 1, H, W), sides multiples of 2 STRIDE."""
    signs = CARRIERS.to(detail)
    amplitudes = torch.einsum("kp,bphw->bkhw", signs / 4, F.pixel_unshuffle(detail, 2))
    mean, square = _pooled(amplitudes), _pooled(amplitudes.square())
    chance = (square - mean.square()) / (2 * STRIDE**2)  # neighbours are not independent: every second cell counts
    regular = (1 - chance / mean.square().clamp(min=TINY)).clamp(0, 1)
    faint = 1 / (1 + (mean.abs() / (FAINT * _pooled(F.avg_pool2d(std, 2))).clamp(min=TINY)) ** 4)
    found = F.interpolate(mean * regular * faint, scale_factor=float(STRIDE), mode="bilinear", align_corners=False)
    return F.pixel_shuffle(torch.einsum("kp,bkhw->bphw", signs, found), 2)


@torch.no_grad()
def without_lattice(light: NDArray[np.float32], std: NDArray[np.float32]) -> NDArray[np.float32]:
    """Light (C, H, W) without what differs regularly between the phases of 2 x 2 pixels and is faint against its standard deviation.

    A network errs a little differently at each phase of a mosaic. In the dark that is some per cent of the light, a lattice that is seen
    when shadows are lifted, though it is far less than what is unknown of each pixel. Measured over 16 x 16 pixels, the amplitude at each
    of the three highest frequencies is taken out as far as it is no chance (shrunk as James and Stein do, by the variance of its mean)
    and below FAINT standard deviations. Light that was measured well is left as it is.
    """
    height, width = light.shape[1:]
    if min(height, width) <= 2 * STRIDE:
        return light
    result = np.empty_like(light)
    beyond = (0, -width % (2 * STRIDE), 0, -height % (2 * STRIDE))  # mirrored at the last pixel, so that phases go on
    for channel in range(len(light)):
        one, its_std = (torch.from_numpy(x[channel])[None, None] for x in (light, std))
        found = _lattice(F.pad(_detail(one), beyond, mode="reflect"), F.pad(its_std, beyond, mode="reflect"))
        result[channel] = light[channel] - found[0, 0, :height, :width].numpy()
    return result

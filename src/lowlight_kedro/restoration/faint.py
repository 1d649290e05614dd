"""Fine detail of a posterior mean that is far fainter than what is unknown, and with it the lattice of a demosaicing network, taken out."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

OCTAVES = 3  # of scale, from pixels on
STRIDE = 2  # cells of 2 x 2 pixels between places where detail is measured, over twice as many along either side
FAINT = 0.1  # standard deviations: detail of this root mean square is taken out by half
STANDS_OUT = 0.3  # the same for detail alone in its surroundings, as a star is
FAINT_LATTICE = 0.2  # the same for what is regular; what is stronger may be a weave
CARRIERS = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])  # rows, columns and both, at the four pixels of a cell
ROWS, SEEN = 512, 64  # at a time, and how many more on either side, whole cells of every octave: what is found does not reach further
TINY = 1e-20


def _detail(x: Tensor) -> Tensor:
    """x (1, 1, H, W) less its means by 1 2 1 along rows and columns: nothing is left of a gradient, all of a lattice of two pixels.

    At the edges, where neighbours are missing, what the next pixel of the same phase says.
    """
    inside = x[..., 1:-1, 1:-1] - F.avg_pool2d(F.avg_pool2d(x, 2, 1), 2, 1)
    return F.pad(inside, (1, 1, 1, 1), mode="reflect")


def _pooled(x: Tensor) -> Tensor:
    """Means over 2 STRIDE cells, one in STRIDE, of what lies inside of the frame."""
    return F.avg_pool2d(x, 2 * STRIDE, STRIDE, STRIDE // 2, count_include_pad=False)


def _everywhere(x: Tensor) -> Tensor:
    """The inverse of `_pooled`, for what changes slowly."""
    return F.interpolate(x, scale_factor=float(STRIDE), mode="bilinear", align_corners=False)


def _below(amplitude: Tensor, bound: Tensor) -> Tensor:
    """Fraction that is taken out: 1 far below the bound, 1/2 there."""
    return 1 / (1 + (amplitude / bound.clamp(min=TINY)) ** 4)


def _finest(light: Tensor, std: Tensor) -> Tensor:
    """What is faint at the three highest frequencies of light (1, 1, H, W)."""
    height, width = light.shape[-2:]
    beyond = (0, -width % (4 * STRIDE), 0, -height % (4 * STRIDE))  # mirrored at the last pixel, so that phases go on
    detail, std = (F.pad(x, beyond, mode="reflect") for x in (_detail(light), std))
    signs = CARRIERS.to(light)
    amplitude = torch.einsum("kp,bphw->bkhw", signs / 4, F.pixel_unshuffle(detail, 2))
    mean, square, unknown = _pooled(amplitude), _pooled(amplitude.square()), _pooled(F.avg_pool2d(std, 2))
    chance = (square - mean.square()) / (2 * STRIDE) ** 2
    regular = (1 - chance / mean.square().clamp(min=TINY)).clamp(0, 1)
    lattice = _everywhere(mean * regular * _below(mean.abs(), FAINT_LATTICE * unknown))
    alone = _below(amplitude.abs(), STANDS_OUT * _everywhere(unknown))
    found = torch.lerp(lattice, amplitude, _everywhere(_below(square.sqrt(), FAINT * unknown)) * alone)
    return F.pixel_shuffle(torch.einsum("kp,bkhw->bphw", signs, found), 2)[..., :height, :width]


def _faint(light: Tensor, std: Tensor, octaves: int) -> Tensor:
    """What is faint in light (1, 1, H, W) at so many octaves."""
    height, width = light.shape[-2:]
    if min(height, width) < 4 * STRIDE or not octaves:
        return torch.zeros_like(light)
    finest = _finest(light, std)
    coarser = _faint(F.avg_pool2d(light - finest, 2), F.avg_pool2d(std, 2), octaves - 1)
    coarser = F.interpolate(coarser, scale_factor=2.0, mode="bilinear", align_corners=False)
    return finest + F.pad(coarser, (0, width % 2, 0, height % 2), mode="replicate")


@torch.no_grad()
def without_faint_detail(light: NDArray[np.float32], std: NDArray[np.float32]) -> NDArray[np.float32]:
    """A posterior mean (C, H, W) without the fine detail that is far fainter than its standard deviation.

    The mean of a scene's detail fades as the detail becomes unknown, and what a network errs does not: of detail of a tenth of a
    standard deviation most is error. Part of that is regular, because a network errs a little differently at each phase of a mosaic: in
    the dark some per cent of the light, a lattice of two pixels that is seen when shadows are lifted.

    At each octave the amplitudes at the three highest frequencies (rows, columns, both) are taken out where their root mean square over
    4 STRIDE x 4 STRIDE pixels lies below FAINT standard deviations, unless they stand out alone. Else still their mean is, as far as it is
    no chance (shrunk by the variance of a mean, as James and Stein do) and lies below FAINT_LATTICE. Light that was measured well is left
    as it is.
    """
    result, height = np.empty_like(light), light.shape[1]
    for top in range(0, height, ROWS):
        first, bottom = max(top - SEEN, 0), min(top + ROWS, height)
        for channel in range(len(light)):
            one, its_std = (torch.from_numpy(x[channel, first : bottom + SEEN])[None, None] for x in (light, std))
            faint = _faint(one, its_std, OCTAVES)[0, 0, top - first : bottom - first].numpy()
            result[channel, top:bottom] = light[channel, top:bottom] - faint
    return result

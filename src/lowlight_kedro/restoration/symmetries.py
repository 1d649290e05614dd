"""A denoiser made as symmetric as its data: the mean of its answers over mirrored and turned copies."""

from functools import reduce
from operator import add

from torch import Tensor, nn

from lowlight_kedro.diffusion.denoiser import DenoiserFunction

SYMMETRIES = (1, 2, 4, 8)  # none, left and right, top and bottom too, rows and columns too


def _mirrored(x: Tensor, number: int) -> Tensor:
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if number & bit]
    return x.flip(axes) if axes else x  # flip copies


def _swapped(x: Tensor, number: int) -> Tensor:
    return x.transpose(-1, -2) if number & 4 else x


def turned(x: Tensor, number: int) -> Tensor:
    """Symmetry `number` of a square: bit 0 mirrors columns, bit 1 rows, then bit 2 swaps the two. (..., H, W) to itself or (..., W, H)."""
    return _swapped(_mirrored(x, number), number)


def turned_back(x: Tensor, number: int) -> Tensor:
    """The inverse of `turned`."""
    return _mirrored(_swapped(x, number), number)


class Symmetric(nn.Module):
    """D averaged over the first `count` symmetries of a square, each undone; as many evaluations.

    Where data are as likely mirrored or turned, E[x0 | x] turns with its input; a network does so only nearly. The mean over all
    eight does exactly, and what errs otherwise in each copy averages out (Timofte et al. 2016; the self-ensemble of EDSR, Lim et
    al. 2017). Sigma maps, and with them mosaics, turn with the image.
    """

    def __init__(self, denoiser: DenoiserFunction, count: int) -> None:
        super().__init__()
        if count not in SYMMETRIES:
            raise ValueError(f"symmetries must be one of {SYMMETRIES}, got {count}")
        self.denoiser, self.count = denoiser, count

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x (B, C, H, W), sigma broadcastable to it."""
        sigma = sigma.expand(x.shape)
        answers = (turned_back(self.denoiser(turned(x, number), turned(sigma, number)), number) for number in range(self.count))
        return reduce(add, answers) / self.count

"""A prior made equivariant: a posterior scales with the light and turns with its image, and what a network answers does so only nearly."""

from functools import reduce
from operator import add

import numpy as np
from torch import Tensor, nn

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.diffusion.symmetries import turned, turned_back
from lowlight_kedro.restoration.observation import Exposure
from lowlight_kedro.restoration.settings import SYMMETRIES, Highlights
from lowlight_kedro.sensor.cfa import UNFILTERED, tile_pattern
from lowlight_kedro.sensor.frame import balanced

BLOCK = 24  # photosites, whole periods of Bayer and X-Trans: its mean hardly knows noise
LOUDEST = 0.2  # noise of black, white = 1: louder than this no prior of ours has learned


def familiar_ratio(exposure: Exposure, highlights: Highlights) -> float:
    """The exposure ratio at which `highlights.fraction` of the frame has a channel above `highlights.white`, whatever ratio is wanted.

    A prior of clean tiles has seen light in [0, 1]; beyond it knows nothing, and far below, its errors are small against white but
    not against what it sees. The posterior scales with the light: restoring at this ratio and multiplying by what is missing to the
    wanted one is the same problem where the prior knows the answer, and the wanted ratio changes nothing but the scale.

    Judged by means over BLOCK x BLOCK photosites. The noise of black stays below `LOUDEST`, so a black frame is not lifted without
    end. The wanted ratio itself for frames that are smaller than a block.
    """
    rows, columns = (side // BLOCK for side in exposure.signal.shape[-2:])
    if not rows or not columns:
        return exposure.exposure_ratio
    signal = exposure.signal[..., : rows * BLOCK, : columns * BLOCK]
    shading = None if exposure.shading is None else exposure.shading[..., : rows * BLOCK, : columns * BLOCK]
    light = balanced(signal, exposure.cfa, exposure.white_balance, shading).reshape(*signal.shape[:-2], rows, BLOCK, columns, BLOCK)
    if exposure.cfa == UNFILTERED:
        means = list(light.mean((-3, -1)))
    else:
        pattern = tile_pattern(np.asarray(exposure.cfa), (BLOCK, BLOCK))
        means = [np.einsum("aibj,ij->ab", light, (pattern == channel) / (pattern == channel).sum()) for channel in range(3)]
    brightest = float(np.quantile(np.max(means, axis=0), 1 - highlights.fraction)) / highlights.white
    noise = float(np.sqrt(exposure.noise.variance(np.zeros(())))) * max(exposure.white_balance)
    return 1 / max(brightest, noise / LOUDEST)


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

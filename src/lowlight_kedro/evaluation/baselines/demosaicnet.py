"""The learned demosaicers of the package `demosaicnet` (Gharbi et al. 2016, MIT) as networks of ours; they do not denoise."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.diffusion.networks.mosaic import MosaicNet, mosaic_net
from lowlight_kedro.sensor.cfa import Cfa, masks
from lowlight_kedro.sensor.demosaic.strips import continued

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

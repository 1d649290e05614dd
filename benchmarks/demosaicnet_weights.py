"""The learned demosaicers of the package `demosaicnet` (Gharbi et al. 2016, MIT) as networks of ours.

They are a peer in benchmarks/restoration.py, and what conf/mosaics begins with:

    pip install lowlight-kedro[baselines]
    python benchmarks/demosaicnet_weights.py bayer data/photographs     # writes 06_models/initial_prior.safetensors there

Its units are those of conf/mosaics.
"""

import argparse
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
import yaml
from torch import Tensor

from lowlight_kedro.datasets.checkpoint import CheckpointDataset
from lowlight_kedro.diffusion.checkpoint import FORMAT, Checkpoint
from lowlight_kedro.diffusion.networks.mosaic import MosaicNet, mosaic_net
from lowlight_kedro.diffusion.scaling import SIGMA_DATA, Scaling

ROOT = Path(__file__).parent.parent
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


def main() -> None:
    """Write the initial prior."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mosaic", choices=DEPTHS)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    training = yaml.safe_load((ROOT / "conf/mosaics/parameters.yml").read_text())["training"]
    scaling = Scaling(**training["scaling"])
    units = {"black": scaling.to_network(-1.0), "white": scaling.to_network(1.0)}
    told = {"mosaic": options.mosaic, **units, "width": 64, "depth": DEPTHS[options.mosaic], "sigma_data": SIGMA_DATA}
    description = {
        "format": FORMAT, "network": {"name": "mosaic_net", "options": told}, "corruption": {"name": "noise_map", "options": {}},
        "scaling": vars(scaling), "sigma_data": SIGMA_DATA, "P_mean": training["P_mean"], "P_std": training["P_std"], "images": 0,
    }  # fmt: skip
    path = options.data / "06_models/initial_prior.safetensors"
    CheckpointDataset(filepath=str(path)).save(Checkpoint(network(options.mosaic, **units).state_dict(), description))
    print(f"{path}; training.network.options.mosaic_net: {json.dumps(told)}")


if __name__ == "__main__":
    main()

"""The learned demosaicers of the package `demosaicnet` (Gharbi et al. 2016, MIT) as what conf/mosaics begins with:

    pip install lowlight-kedro[baselines]
    python benchmarks/demosaicnet_weights.py bayer data/photographs     # writes 06_models/initial_prior.safetensors there

Its units are those of conf/mosaics.
"""

import argparse
import json
from pathlib import Path

import yaml

from lowlight_kedro.datasets.checkpoint import CheckpointDataset
from lowlight_kedro.diffusion.checkpoint import FORMAT, Checkpoint
from lowlight_kedro.diffusion.scaling import SIGMA_DATA, Scaling
from lowlight_kedro.evaluation.baselines import DEPTHS, network

ROOT = Path(__file__).parent.parent


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

"""What a snapshot costs: checking, copying and writing a training state, against what an update costs.

python benchmarks/snapshots.py [--widths 64 128 192] [--repeats 5] [--folder .]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lowlight_kedro.datasets.checkpoint import CheckpointDataset
from lowlight_kedro.diffusion.checkpoint import pack
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.prior import prior_of
from lowlight_kedro.diffusion.training import State


def fresh(widths: list[int]) -> State:
    return State.fresh(Denoiser(NETWORKS["raw_unet"](widths=widths, blocks=3), 0.5))


def update(state: State, batch: int, side: int) -> None:
    x, sigma = torch.randn(batch, 3, side, side), torch.ones(batch, 1, 1, 1)
    state.denoiser(x, sigma).square().mean().backward()
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--widths", type=int, nargs="+", default=[64, 128, 192])
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--folder", type=Path, default=Path())
    chosen = arguments.parse_args()
    state = fresh(chosen.widths)
    update(state, 1, 64)
    packed = pack(state, {})
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        files = {name: CheckpointDataset(filepath=f"{folder}/{name}.safetensors") for name in ("state", "prior")}
        actions = {
            "update of 8 images of 64 x 64": lambda: update(state, 8, 64),
            "pack: all values finite?": lambda: pack(state, {}),
            "copy of the state": lambda: [tensor.clone() for tensor in packed.tensors.values()],
            "write the state": lambda: files["state"].save(packed),
            "write the running mean": lambda: files["prior"].save(prior_of(packed)),
        }
        taken = [{name: seconds(action) for name, action in actions.items()} for _ in range(chosen.repeats)]
    print(f"state of {sum(tensor.nbytes for tensor in packed.tensors.values()) / 1e6:.1f} MB; median (best) of {chosen.repeats}, seconds")
    for name in actions:
        figures = [row[name] for row in taken]
        print(f"{name:32} {statistics.median(figures):.3f} ({min(figures):.3f})")


if __name__ == "__main__":
    main()

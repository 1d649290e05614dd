"""How much memory a training pass keeps for its backward pass, per image: `python benchmarks/activations.py --env a40`.

Counts the bytes of the tensors that autograd saves, once each, weights left out; measured on the CPU, where autocast keeps
what it keeps on a GPU to within its choice of kernels. The optimiser's state and the weights are listed beside it.
"""

import argparse
from pathlib import Path

import torch
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from lowlight_kedro.diffusion.denoiser import Denoiser, denoising_loss
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.pipelines.training.options import TrainingOptions

ROOT = Path(__file__).parent.parent


def saved_bytes(denoiser: Denoiser, side: int, precision: str) -> int:
    """Bytes that one image of `side` pixels leaves for the backward pass."""
    weights = {parameter.data_ptr() for parameter in denoiser.parameters()}
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x0 = torch.randn(1, 3, side, side)
    sigma = torch.full((1, 1, 1, 1), 0.5)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
        denoising_loss(denoiser, x0, x0 + sigma * torch.randn_like(x0), sigma).mean()
    return sum(seen.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="a40")
    bootstrap_project(ROOT)
    with KedroSession.create(ROOT, env=parser.parse_args().env) as session:
        config = session.load_context().config_loader
        options = TrainingOptions.model_validate(config["parameters"]["training"])
        side = options.crop or config["globals"]["tile_size"]
    denoiser = Denoiser(NETWORKS[options.network.name](**options.network.chosen), 0.5)
    per_image = saved_bytes(denoiser, side, options.precision) / 2**30
    parameters = sum(weights.numel() for weights in denoiser.parameters())
    fixed = parameters * 4 * 5 / 2**30  # weights, gradients, two Adam moments, EMA
    print(f"{options.network.name} {options.network.chosen}")
    print(f"{parameters / 1e6:.1f} million parameters, {side} x {side}, {options.precision}")
    print(f"saved per image {per_image:.3f} GiB, per pass of {options.batch_gpu} {options.batch_gpu * per_image:.1f} GiB")
    print(f"weights, gradients, Adam and EMA {fixed:.2f} GiB")


if __name__ == "__main__":
    main()

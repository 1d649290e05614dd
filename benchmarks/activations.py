"""Peak memory of a training pass per image over networks, precision and checkpointing, and what each environment takes.

    python benchmarks/activations.py            # both tables, as markdown; one to two minutes
    python benchmarks/activations.py --env a40  # one environment

Counted, not measured: the tensors of a pass are followed without computing it, with autocast as on a GPU (`memory.count_pass`).
Left out is what libraries and a driver take for themselves: about half a GiB of context on a GPU, and workspaces of convolutions.
"""

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import tables
import torch
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from lowlight_kedro.diffusion.compute import checkpoint_blocks
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.memory import PassCost, count_pass
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.pipelines.training.options import TrainingOptions

ROOT = Path(__file__).parent.parent
GIB, MIB = 2**30, 2**20
TFLOPS, GB_PER_S = {"a40": 149.7, "h100": 989.0}, {"a40": 696, "h100": 3350}  # dense bf16 and memory, data sheets
SHARE = 0.4  # of the peak, what is aimed at
LOOKING = ("mosaic_net", "experts")  # networks that look at values, which a count has not
IMAGES = (16, 32)  # of the passes whose difference is the cost of an image


def cost(name: str, options: dict[str, Any], images: int, side: int, precision: str, checkpointing: bool) -> PassCost:
    """Of a pass through a network of the table."""
    with torch.device("meta"):
        denoiser = Denoiser(NETWORKS[name](**options), 0.5)
    if checkpointing:
        checkpoint_blocks(denoiser)
    return count_pass(denoiser, images, side, precision, as_on_gpu=True)


def settings(environment: str) -> tuple[TrainingOptions, int]:
    """Training options and the side of a training image."""
    with KedroSession.create(ROOT, env=environment) as session:
        config = session.load_context().config_loader
        options = TrainingOptions.model_validate(config["parameters"]["training"])
        return options, options.crop or config["globals"]["tile_size"]


def environments() -> list[str]:
    """Those that train a network of their own which can be counted, and `base`."""
    own = [path.parent.name for path in sorted((ROOT / "conf").glob("*/parameters.yml")) if "\n  network:" in path.read_text()]
    return ["base", *(name for name in own if settings(name)[0].network.name not in LOOKING)]


def networks(names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each kind with the options of `base`, and what environments choose besides."""
    seen: list[tuple[str, dict[str, Any]]] = list(settings("base")[0].network.options.items())
    for name in names:
        chosen = settings(name)[0].network
        if (chosen.name, chosen.chosen) not in seen:
            seen.append((chosen.name, chosen.chosen))
    yield from ((name, options) for name, options in seen if name in NETWORKS)


def per_image_table(names: list[str]) -> None:
    """MiB per image: one row per network and size, one column per precision and checkpointing."""
    ways = list(product(("fp32", "bf16"), (False, True)))
    tables.head("network", "parameters", "side", "TFLOP per image", *(f"{p}{', checkpointing' if c else ''}" for p, c in ways))
    for (name, options), side in product(networks(names), (256, 128)):
        cells, flops = [], []
        for precision, checkpointing in ways:
            few, more = (cost(name, options, images, side, precision, checkpointing) for images in IMAGES)
            cells.append(f"{(more.working - few.working) / (IMAGES[1] - IMAGES[0]) / MIB:.0f} MiB")
            flops.append(few.flops / IMAGES[0] / 1e12)
        widths = "/".join(map(str, options["widths"]))
        tables.row(f"{name} {widths}, {options['blocks']}", f"{few.parameters / 1e6:.1f} M", side, f"{flops[0]:.3f}", *cells)


def speed(environment: str, counted: PassCost) -> str:
    """Images per second at `SHARE` of the peak, and what memory traffic without any fusion would allow."""
    if environment not in TFLOPS:
        return "-"
    compute = SHARE * TFLOPS[environment] * 1e12 / (counted.flops / counted.images)
    traffic = GB_PER_S[environment] * 1e9 / (counted.moved / counted.images)
    return f"{compute:.0f} (traffic: {traffic:.0f})"


def environment_table(names: list[str]) -> None:
    """What a pass of each environment takes, as it is and with checkpointing the other way round."""
    parts = ("activations", "weights, gradients, Adam, EMA", "peak", "img/s at 40 %")
    tables.head("environment", "pass", "precision", "checkpointing", *parts)
    for name in names:
        options, side = settings(name)
        images = options.batch_size if options.batch_gpu == "auto" else options.batch_gpu
        precision, chosen = options.compute.precision, options.compute.checkpointing
        for checkpointing in (chosen, not chosen):
            counted = cost(options.network.name, options.network.chosen, images, side, precision, checkpointing)
            memory = (counted.working, counted.total() - counted.working, counted.total())
            gib = (f"{part / GIB:.2f} GiB" for part in memory)
            tables.row(name, f"{images} x {side}²", precision, "yes" if checkpointing else "no", *gib, speed(name, counted))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", help="only this environment")
    only = parser.parse_args().env
    bootstrap_project(ROOT)
    names = [only] if only else environments()
    if not only:
        print("Peak of a training pass per image, gradients of activations included")
        per_image_table(names)
        print("\nWhole passes; the second row of an environment is with checkpointing the other way round")
    environment_table(names)


if __name__ == "__main__":
    main()

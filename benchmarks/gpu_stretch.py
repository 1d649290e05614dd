"""One stretch of training by the clock, for a machine with a GPU that is lent for minutes; the next stretch goes on where it ended.

    python benchmarks/gpu_stretch.py pack --photographs FOLDER --out PACKED --megabytes 45    # photographs that fit what may travel
    PYTHONPATH=src python benchmarks/gpu_stretch.py train --photographs PACKED --expert bayer --begin PRIOR --minutes 8 --out OUT
    PYTHONPATH=src python benchmarks/gpu_stretch.py train --photographs PACKED --expert bayer --resume OUT --minutes 8 --out OUT

It needs torch, numpy, pandas, scipy, pillow, pyyaml and safetensors, and neither Kedro nor a network. PRIOR, which may be the shipped one,
tells the network and its units; photographs, noise and weights of the loss are those of conf/photographs (`general`) or, for the noise,
conf/mosaics (`bayer`, `xtrans`). Only photographs of the split `train` are used. Tiles lie on the device, and a pass draws its noise at
once. The learning rate falls to 0 over `--total-kimg`, or over this stretch where that is not given.

OUT gets `prior.safetensors` (the running mean, 16 bits) and, for going on, the weights, their mean and Adam's moments, a file each, every
minute and at the end. Not run on a GPU yet; on a CPU:

    ... train --photographs FOLDER --expert bayer --begin PRIOR --device cpu --batch 8 --crop 64 --minutes 0.5 --most 6 --out OUT
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from lowlight_kedro.datasets.safetensors_file import KEY, read_checkpoint
from lowlight_kedro.diffusion.checkpoint import FORMAT, Checkpoint, identity, pack, unpack
from lowlight_kedro.diffusion.compute import Compute, gpu_arithmetic, prepare
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.draws import Corruption, PassDraws, index_batches
from lowlight_kedro.diffusion.ema import halflife
from lowlight_kedro.diffusion.networks import built_network
from lowlight_kedro.diffusion.networks.mosaic import phases
from lowlight_kedro.diffusion.prior import begin_with, network_choice, prior_of, separated
from lowlight_kedro.diffusion.scaling import SIGMA_DATA, Scaling
from lowlight_kedro.diffusion.training import Schedule, State, Update, train_step
from lowlight_kedro.restoration.corruption import MOSAICS, noise_map
from lowlight_kedro.sensor.cfa import masks
from lowlight_kedro.sensor.scenes import split_of
from lowlight_kedro.sensor.simulate import clean_light, with_lateral_colour, with_points
from lowlight_kedro.sensor.tiles import TILE_SLOPE, cut

ROOT = Path(__file__).parent.parent
TILE = 128
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
FILES = ("weights", "ema", "step", "exp_avg", "exp_avg_sq")  # of a state: each below what one file may have


def pictures(folder: Path) -> list[Path]:
    """All pictures below a folder, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def pack_photographs(folder: Path, out: Path, megabytes: float) -> None:
    """Copy photographs, in an order drawn at random, until the folder is so large; names stay, since they tell split and shrinking."""
    paths, size = pictures(folder), 0.0
    for number in np.random.default_rng(0).permutation(len(paths)):
        path = paths[number]
        size += path.stat().st_size / 1e6
        if size > megabytes:
            break
        target = out / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    print(f"{len(pictures(out))} of {len(paths)} photographs in {out}")


def configured(name: str, group: str) -> dict[str, Any]:
    """A group of parameters of an environment, over those of `base`; the groups in it are merged as Kedro's OmegaConf does."""

    def merged(low: Any, high: Any) -> Any:
        if not (isinstance(low, dict) and isinstance(high, dict)):
            return high
        return low | {key: merged(low[key], value) if key in low else value for key, value in high.items()}

    base = yaml.safe_load((ROOT / f"conf/base/parameters_{group}.yml").read_text())
    return merged(base, yaml.safe_load((ROOT / f"conf/{name}/parameters.yml").read_text()))[group]


def tiles_of(path: Path, name: str, options: dict[str, Any]) -> NDArray[np.float16]:
    """Light of one photograph in the colours of one camera, (N, 3, TILE, TILE): as the photographs pipeline makes it, by other draws."""
    rng, points = np.random.default_rng(crc32(name.encode())), options["points"]
    shrink = next((factor for pattern, factor in options["shrink"].items() if fnmatch(name, pattern)), 1)
    matrix = list(options["cameras"].values())[rng.integers(len(options["cameras"]))]
    with Image.open(path) as picture:
        light = clean_light(np.asarray(picture.convert("RGB")), shrink, np.reshape(matrix, (3, 3)))
    if rng.uniform() < 0.5:
        light = with_lateral_colour(light, *rng.uniform(-options["lateral_colour"], options["lateral_colour"], 2))
    found = [np.empty((0, 3, TILE, TILE), np.float16)]
    for _, tile in cut(light, TILE, TILE) if min(light.shape[1:]) >= TILE else ():
        if rng.uniform() < points["fraction"]:
            tile = with_points(tile, int(rng.integers(points["count"][0], points["count"][1] + 1)), points["fwhm"], points["peak"], rng)
        if tile.std() >= options["min_std"]:
            found.append((tile * np.exp(rng.uniform(*np.log(options["exposures"])))).clip(0, 1).astype(np.float16)[None])
    return np.concatenate(found)


def training_tiles(folder: Path, most: int | None) -> Tensor:
    """Light (N, 3, TILE, TILE) of the photographs of the split `train`."""
    options = configured("photographs", "photographs")
    named = {path.relative_to(folder).with_suffix("").as_posix(): path for path in pictures(folder)}
    chosen = [(path, name) for name, path in named.items() if split_of(name, "hash", options["fractions"], options["splits"]) == "train"]
    with ThreadPoolExecutor() as pool:
        return torch.from_numpy(np.concatenate(list(pool.map(lambda one: tiles_of(*one, options), chosen[:most]))))


def corruption_of(expert: str, denoiser: Denoiser, scaling: Scaling) -> tuple[Corruption, dict[str, Any]]:
    """The noise that an expert learns, and how a checkpoint tells it."""
    source = configured("photographs" if expert == "general" else "mosaics", "training")
    options, levels = source["corruption"]["options"]["noise_map"], {key: source[key] for key in ("P_mean", "P_std")}
    if expert != "general":
        pattern = getattr(denoiser.network, "pattern", None)  # a `mosaic_net` is given all its mosaics in one phase
        whole = torch.from_numpy(masks(MOSAICS[expert], (24, 24)))[None]
        phase = None if pattern is None else list(phases(whole, pattern.cpu())[0])
        options |= {"mosaics": [expert], "phase": phase}
    told = {"corruption": {"name": "noise_map", "options": options}, **levels}
    return noise_map(scaling=scaling, **levels, **options), told


def saved(state: State, description: dict[str, Any], out: Path) -> None:
    """The state in `FILES` and a prior of its running mean, each file whole or not at all."""
    packed = pack(state, description)
    prior = Checkpoint({name: tensor.half() for name, tensor in prior_of(packed).tensors.items()}, prior_of(packed).description)
    own = {name: name.rsplit(".", 1)[1] if name.startswith("adam.") else name.split(".", 1)[0] for name in packed.tensors}
    parts = {file: {name: tensor for name, tensor in packed.tensors.items() if own[name] == file} for file in FILES}
    for file, tensors in {"prior": prior.tensors, **parts}.items():
        told = prior.description if file == "prior" else packed.description
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, out / f"{file}.part", {KEY: json.dumps(told)})
        (out / f"{file}.part").replace(out / f"{file}.safetensors")


def resumed(folder: Path) -> Checkpoint:
    """What `saved` wrote, as one training state."""
    parts = [read_checkpoint(folder / f"{file}.safetensors") for file in FILES]
    return Checkpoint({name: tensor for part in parts for name, tensor in part.tensors.items()}, parts[0].description, str(folder))


def begun(arguments: argparse.Namespace, device: torch.device) -> tuple[State, dict[str, Any], Corruption]:
    """The state to go on with, what identifies its run, and its noise."""
    earlier = resumed(arguments.resume) if arguments.resume else None
    source = earlier or separated(read_checkpoint(arguments.begin), arguments.expert)
    network_choice(source)
    state, scaling = (
        State.fresh(Denoiser(built_network(source.description), SIGMA_DATA).to(device)),
        Scaling(**source.description["scaling"]),
    )
    corruption, told = corruption_of(arguments.expert, state.denoiser, scaling)
    description = {"format": FORMAT, "network": source.description["network"], "scaling": vars(scaling), "sigma_data": SIGMA_DATA}
    description |= {"batch_size": arguments.batch, "crop": arguments.crop, "seed": arguments.seed, **told}
    if earlier is None:
        begin_with(state, source)
    else:
        description = identity(earlier.description) | description
        unpack(earlier, state, {key: value for key, value in description.items() if key != "averages"})
    return state, description, corruption


def plan(arguments: argparse.Namespace, device: torch.device) -> Schedule:
    """Everything but the learning rate, which follows the clock."""
    return Schedule(
        total_kimg=arguments.total_kimg or 1e6, batch_size=arguments.batch, batch_gpu=arguments.batch, learning_rate=arguments.rate,
        ramp_kimg=arguments.ramp_kimg, decay_kimg=None, cooldown=0, averages=halflife(kimg=arguments.mean_kimg, rampup=0.3),
        kimg_per_tick=1e6, snapshot_ticks=1, check_updates=50, max_gradient=1.0, crop=arguments.crop,
        precision="bf16" if device.type == "cuda" else "fp32", seed=arguments.seed,
    )  # fmt: skip


def updates(
    state: State, tiles: Tensor, corruption: Corruption, schedule: Schedule, scaling: Scaling, arguments: argparse.Namespace, end: float
) -> Iterator[Update]:
    """Updates until the time or the images are up."""
    started = time.monotonic()
    for indices in index_batches(len(tiles), schedule.seed, state.images, schedule.batch_size, schedule.total_images):
        done = (time.monotonic() - started) / (end - started)
        if done >= 1:
            return
        left = 1 - (state.images / schedule.total_images if arguments.total_kimg else done)
        yield train_step(
            state, [tiles[torch.tensor(indices, device=tiles.device)]], replace(schedule, learning_rate=arguments.rate * left), scaling,
            corruption, tiles.device, lambda light: TILE_SLOPE * light.float() - 1, draw=PassDraws,
        )  # fmt: skip


def train(arguments: argparse.Namespace) -> None:
    """Train until the time is up."""
    began, device = time.monotonic(), torch.device(arguments.device)
    tiles = training_tiles(arguments.photographs, arguments.most).to(device)
    state, description, corruption = begun(arguments, device)
    compute = Compute("bf16" if device.type == "cuda" else "fp32", tf32=True, channels_last=True)
    prepare(state.denoiser, list(state.averages.values()), state.optimizer, compute)
    print(f"{len(tiles)} tiles, {state.images} images so far; ready after {time.monotonic() - began:.0f} s", flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    schedule, losses, first, started, last = plan(arguments, device), [], state.images, time.monotonic(), time.monotonic()
    scaling = Scaling(**description["scaling"])
    with gpu_arithmetic(compute):
        for update in updates(state, tiles, corruption, schedule, scaling, arguments, began + 60 * arguments.minutes):
            losses.append(update.loss)
            if time.monotonic() - last > 60:
                tell(losses, state.images, (state.images - first) / (time.monotonic() - started))
                saved(state, description, arguments.out)
                losses, last = [], time.monotonic()
    tell(losses, state.images, (state.images - first) / (time.monotonic() - started))
    saved(state, description, arguments.out)


def tell(losses: list[Tensor], images: int, each: float) -> None:
    """A line of what was reached; reading the losses waits for the device."""
    loss = float(torch.stack(losses).mean()) if losses else math.nan
    print(f"{images / 1000:.1f} kimg, loss {loss:.4f}, {each:.0f} img/s", flush=True)


def main() -> None:
    """Pack, or train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing, training = commands.add_parser("pack"), commands.add_parser("train")
    for command in (packing, training):
        command.add_argument("--photographs", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True)
    packing.add_argument("--megabytes", type=float, default=45)
    training.add_argument("--expert", choices=[*MOSAICS, "general"], required=True)
    source = training.add_mutually_exclusive_group(required=True)
    source.add_argument("--begin", type=Path, help="a prior to begin with: one of experts, or one of this network alone")
    source.add_argument("--resume", type=Path, help="OUT of an earlier stretch")
    training.add_argument("--minutes", type=float, required=True)
    training.add_argument("--total-kimg", type=float)
    training.add_argument("--batch", type=int, default=128)
    training.add_argument("--crop", type=int, default=96)
    training.add_argument("--rate", type=float, default=4e-4)
    training.add_argument("--ramp-kimg", type=float, default=20)
    training.add_argument("--mean-kimg", type=float, default=100, help="half-life of the running mean")
    training.add_argument("--most", type=int, default=None, help="photographs")
    training.add_argument("--device", default="cuda")
    training.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.command == "pack":
        pack_photographs(arguments.photographs, arguments.out, arguments.megabytes)
    else:
        train(arguments)


if __name__ == "__main__":
    main()

"""One stretch of training by the clock, for a machine with a GPU that is lent for minutes; the next stretch goes on where it ended.

    python benchmarks/gpu_stretch.py pack --photographs FOLDER --out PACKED --megabytes 45    # photographs that fit what may travel
    PYTHONPATH=src python benchmarks/gpu_stretch.py train --photographs PACKED --expert bayer --begin PRIOR --minutes 8 --out OUT
    PYTHONPATH=src python benchmarks/gpu_stretch.py train --photographs PACKED --expert bayer --resume OUT --minutes 8 --out OUT

It needs torch, numpy, scipy, pillow, pyyaml and safetensors, and neither Kedro nor a network. Network, noise and weights of the loss are
those of conf/mosaics (`bayer`, `xtrans`) or conf/photographs (`general`); PRIOR may be the shipped one. Tiles lie on the device, and a
pass draws its noise, crop and turn at once, so the host has a few calls per update to make, whatever the batch. The learning rate falls
to 0 over `--total-kimg`, or over this stretch where that is not given.

OUT gets `prior.safetensors` (the running mean, 16 bits) and, for going on, the weights, their mean and Adam's moments, a file each, every
minute and at the end. The noise of an update is a function of the seed and the image count. Not run on a GPU yet; on a CPU:

    ... train --photographs FOLDER --expert bayer --begin PRIOR --device cpu --batch 8 --crop 64 --minutes 0.5 --most 6 --out OUT
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import Denoiser, denoising_loss
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.scaling import SIGMA_DATA, Scaling
from lowlight_kedro.restoration.corruption import noise_map
from lowlight_kedro.sensor.photographs import clean_light, with_lateral_colour, with_points

ROOT = Path(__file__).parent.parent
TILE = 128
ADAM = ("step", "exp_avg", "exp_avg_sq")
EXPERTS = {"bayer": ((0, 1), 15), "xtrans": ((1, 1), 11)}  # phase in which the network is given its mosaics, and its depth
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def pictures(folder: Path) -> list[Path]:
    """All pictures below a folder, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def pack(folder: Path, out: Path, megabytes: float) -> None:
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


def configured(name: str) -> dict[str, Any]:
    """A file of the configuration."""
    return yaml.safe_load((ROOT / "conf" / name).read_text())


def tiles_of(path: Path, folder: Path, options: dict[str, Any]) -> NDArray[np.float16]:
    """Light of one photograph in the colours of one camera, (N, 3, TILE, TILE): what the photographs pipeline makes of it."""
    rng = np.random.default_rng(crc32(path.name.encode()))
    shrink = 2 if path.relative_to(folder).as_posix().startswith("bsds500") else 1
    matrix = list(options["cameras"].values())[rng.integers(len(options["cameras"]))]
    with Image.open(path) as picture:
        light = clean_light(np.asarray(picture.convert("RGB")), shrink, np.reshape(matrix, (3, 3)))
    if rng.uniform() < 0.5:
        light = with_lateral_colour(light, *rng.uniform(-2, 2, 2))
    rows, columns = light.shape[1] // TILE, light.shape[2] // TILE
    cut = (
        light[:, : rows * TILE, : columns * TILE].reshape(3, rows, TILE, columns, TILE).transpose(1, 3, 0, 2, 4).reshape(-1, 3, TILE, TILE)
    )
    kept = [with_points(tile, 15, (1.0, 3.0), (0.01, 3.0), rng) if rng.uniform() < 0.04 else tile for tile in cut if tile.std() > 1e-3]
    low, high = np.log(0.03), 0.0
    return (
        np.stack([tile * np.exp(rng.uniform(low, high)) for tile in kept]).astype(np.float16)
        if kept
        else np.empty((0, 3, TILE, TILE), np.float16)
    )


class PassDraws:
    """Random numbers of a whole pass at once, a function of the seed and the number of its first image; as `diffusion.order.Draws`."""

    def __init__(self, seed: int, first: int, count: int, device: torch.device) -> None:
        self._few, self._fields = (
            torch.Generator().manual_seed(seed * 2**32 + first),
            torch.Generator(device).manual_seed(seed * 2**32 + first),
        )
        self._count = count

    def uniform(self, *shape: int) -> Tensor:
        """(B, *shape) in [0, 1), on the CPU."""
        return torch.rand(self._count, *shape, generator=self._few)

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) of mean 0 and variance 1, on the CPU."""
        return torch.randn(self._count, *shape, generator=self._few)

    def field(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape and type of `like`, on its device."""
        return torch.randn(like.shape, generator=self._fields, device=like.device, dtype=like.dtype)


@dataclass
class Run:
    """What is trained, and how far it is."""

    denoiser: Denoiser
    mean: Denoiser
    optimizer: torch.optim.Optimizer
    description: dict[str, Any]
    images: int = 0

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """What `resume` needs, by file."""
        names = [name for name, _ in self.denoiser.network.named_parameters()]
        moments = self.optimizer.state_dict()["state"]
        of_adam = {key: {names[number]: state[key] for number, state in moments.items()} for key in ADAM}
        return {"weights": self.denoiser.network.state_dict(), "mean": self.mean.network.state_dict(), **of_adam}

    def save(self, out: Path) -> None:
        """The state and a prior of the running mean, each file whole or not at all."""
        header = {"lowlight_kedro": json.dumps(self.description | {"images": self.images})}
        prior = {name: value.half() for name, value in self.mean.network.state_dict().items()}
        for name, tensors in {"prior": prior, **self.parts()}.items():
            save_file({key: value.contiguous().cpu() for key, value in tensors.items()}, out / f"{name}.part", header)
            (out / f"{name}.part").replace(out / f"{name}.safetensors")

    def resume(self, folder: Path) -> None:
        """From what `save` wrote."""
        held = {part: read(folder / f"{part}.safetensors") for part in ("weights", "mean", *ADAM)}
        self.images = held["weights"][1]["images"]
        self.denoiser.network.load_state_dict(held["weights"][0])
        self.mean.network.load_state_dict(held["mean"][0])
        state = self.optimizer.state_dict()
        for number, (name, _) in enumerate(self.denoiser.network.named_parameters()):
            if name in held["step"][0]:
                state["state"][number] = {key: held[key][0][name] for key in ADAM}
        self.optimizer.load_state_dict(state)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a file."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in list(file.keys())}, json.loads(file.metadata()["lowlight_kedro"])


def begin(arguments: argparse.Namespace, scaling: Scaling, device: torch.device) -> tuple[Run, Any]:
    """A run at image 0, with the weights of its part of a prior, and its corruption."""
    expert = arguments.expert
    source = configured(f"{'mosaics' if expert in EXPERTS else 'photographs'}/parameters.yml")["training"]
    base = configured("base/parameters_training.yml")["training"]["corruption"]["options"]["noise_map"]
    noise = base | source["corruption"]["options"]["noise_map"]
    if expert in EXPERTS:
        phase, depth = EXPERTS[expert]
        noise |= {"mosaics": [expert], "phase": phase}
        units = {"black": scaling.to_network(-1.0), "white": scaling.to_network(1.0)}
        name, options = "mosaic_net", {"mosaic": expert, "depth": depth, **units}
    else:
        defaults = configured("base/parameters_training.yml")["training"]["network"]["options"]["pyramid_unet"]
        name, options = "pyramid_unet", defaults | source["network"]["options"]["pyramid_unet"]
    denoiser, mean = (Denoiser(NETWORKS[name](**options), SIGMA_DATA).to(device) for _ in range(2))
    denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if arguments.begin:
        prefix, (tensors, _) = f"mosaics.{expert}.network." if expert in EXPERTS else "general.", read(arguments.begin)
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)} or tensors
        denoiser.network.load_state_dict({key: value.float() for key, value in own.items()})
    mean.network.load_state_dict(denoiser.network.state_dict())
    description = {
        "format": 1, "network": {"name": name, "options": options}, "corruption": {"name": "noise_map", "options": noise},
        "scaling": vars(scaling),
        "P_mean": source["P_mean"], "P_std": source["P_std"], "sigma_data": SIGMA_DATA,
    }  # fmt: skip
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=arguments.rate, fused=True)
    corruption = noise_map(P_mean=source["P_mean"], P_std=source["P_std"], scaling=scaling, **noise)
    return Run(denoiser, mean.requires_grad_(False), optimizer, description), corruption


def batches(tiles: Tensor, run: Run, batch: int, crop: int, seed: int) -> Iterator[tuple[Tensor, PassDraws]]:
    """Batches of light for ever, each cut and turned as a whole, with the randomness of its noise."""
    while True:
        draws = PassDraws(seed, run.images, batch, tiles.device)
        chosen = tiles[(draws.uniform() * len(tiles)).long().to(tiles.device)].float()
        top, left, flip, turn = draws.uniform(4)[0].tolist()
        room = TILE - crop + 1
        light = chosen[..., int(top * room) :, int(left * room) :][..., :crop, :crop]
        light = light.flip(-1) if flip < 0.5 else light
        yield light.rot90(int(turn * 4), (-2, -1)).contiguous(memory_format=torch.channels_last), draws


def update(run: Run, x0: Tensor, noisy: Any, rate: float, keep: float, precision: torch.dtype | None) -> Tensor:
    """One update of the weights and their running mean; returns the loss, on the device."""
    with torch.autocast(x0.device.type, precision or torch.bfloat16, enabled=precision is not None):
        loss = denoising_loss(run.denoiser, x0, noisy.x, noisy.sigma, noisy.weight).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.denoiser.parameters(), 1.0)
    run.optimizer.param_groups[0]["lr"] = rate
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for slow, fast in zip(run.mean.network.parameters(), run.denoiser.network.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)
    return loss.detach()


def train(arguments: argparse.Namespace) -> None:
    """Train until the time is up."""
    began, device = time.monotonic(), torch.device(arguments.device)
    end = began + 60 * arguments.minutes
    options, paths = configured("base/parameters_photographs.yml")["photographs"], pictures(arguments.photographs)[: arguments.most]
    with ThreadPoolExecutor() as pool:
        cut = np.concatenate(list(pool.map(partial(tiles_of, folder=arguments.photographs, options=options), paths)))
    tiles = torch.from_numpy(cut).to(device)
    scaling = Scaling(float(2 * cut.mean(dtype=np.float64) - 1), float(2 * cut.std(dtype=np.float64) / SIGMA_DATA))
    told = arguments.resume / "weights.safetensors" if arguments.resume else arguments.begin if arguments.expert == "general" else None
    scaling = Scaling(**read(told)[1]["scaling"]) if told else scaling  # units in which this network has learned
    print(f"{len(tiles)} tiles after {time.monotonic() - began:.0f} s; {scaling}", flush=True)
    run, corruption = begin(arguments, scaling, device)
    if arguments.resume:
        run.resume(arguments.resume)
    arguments.out.mkdir(parents=True, exist_ok=True)
    started, first, saved, losses, waited = time.monotonic(), run.images, time.monotonic(), [], 0.0
    precision = torch.bfloat16 if device.type == "cuda" else None
    for light, draws in batches(tiles, run, arguments.batch, arguments.crop, arguments.seed):
        asked = time.monotonic()
        done = (asked - started) / max(end - started, 1e-9) if arguments.total_kimg is None else run.images / (1000 * arguments.total_kimg)
        if asked >= end or done >= 1:
            break
        x0 = scaling.to_network(2 * light - 1)
        noisy = corruption(x0, draws)
        waited += time.monotonic() - asked
        rate = arguments.rate * min((run.images - first + arguments.batch) / (1000 * arguments.ramp_kimg), 1) * (1 - done)
        losses.append(update(run, x0, noisy, rate, 0.5 ** (arguments.batch / (1000 * arguments.mean_kimg)), precision))
        run.images += arguments.batch
        if time.monotonic() - saved > 60:
            tell(losses, run, first, started, waited)
            run.save(arguments.out)
            losses, saved = [], time.monotonic()
    tell(losses, run, first, started, waited)
    run.save(arguments.out)


def tell(losses: list[Tensor], run: Run, first: int, started: float, waited: float) -> None:
    """A line of what was reached; reading the losses waits for the device."""
    loss = float(torch.stack(losses).mean()) if losses else math.nan
    seconds = time.monotonic() - started
    each = (run.images - first) / seconds
    print(
        f"{run.images / 1000:.0f} kimg, loss {loss:.4f}, {each:.0f} img/s, host {waited / seconds:.0%} of the time making batches",
        flush=True,
    )


def main() -> None:
    """Pack, or train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing, training = commands.add_parser("pack"), commands.add_parser("train")
    for command in (packing, training):
        command.add_argument("--photographs", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True)
    packing.add_argument("--megabytes", type=float, default=45)
    training.add_argument("--expert", choices=[*EXPERTS, "general"], required=True)
    training.add_argument("--begin", type=Path, help="a prior to begin with: one of experts, or one of this network alone")
    training.add_argument("--resume", type=Path)
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
        pack(arguments.photographs, arguments.out, arguments.megabytes)
    else:
        train(arguments)


if __name__ == "__main__":
    main()

"""A short training on this machine: minutes, images/s, loss, memory, wait for data, and the ratio to a plain torch loop.

    python benchmarks/training.py [--networks raw_unet pyramid_unet ddpmpp] [--kimg 10] [--precision bf16] [--threads 2]

Each network trains in a process of its own by the package's loop, on made-up tiles in packed files. The peer is a plain
loop with the same network, batch, noise and data, one `.pt` per tile: Adam without `fused`, the EMA as a Python loop,
`loss.item()` at each step, float32. It takes turns with ours, a few batches each, so that other work on the machine meets both.
CPU minutes are what all threads worked: on a machine that is shared they tell more than the clock.
"""

import argparse
import copy
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tables
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lowlight_kedro.datasets.edm_pt import EDMPTDataset
from lowlight_kedro.datasets.stacks import decode, write_stack
from lowlight_kedro.datasets.tiles import write_tile
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.draws import CORRUPTIONS
from lowlight_kedro.diffusion.ema import halflife
from lowlight_kedro.diffusion.memory import parameter_count
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.training import Schedule, State, train
from lowlight_kedro.pipelines.training.loading import batch_source
from lowlight_kedro.pipelines.training.options import LoaderOptions

NO_WORKERS = LoaderOptions(workers=0, pin_memory=False, persistent_workers=False, prefetch_factor=2)
SCALING, SIGMA_DATA, P_MEAN, P_STD = Scaling(-0.3, 0.5), 0.5, -1.2, 1.2


def write_tiles(folder: Path, count: int, side: int, per_stack: int = 64) -> Path:
    """Smooth random fields with edges: packed files, the same as `.pt` each, and the metadata; returns its path."""
    rng, tiles = np.random.default_rng(0), []
    for start in range(0, count, per_stack):
        coarse = torch.from_numpy(rng.uniform(-1, 1, (min(per_stack, count - start), 3, 5, 5)).astype(np.float32))
        smooth = F.interpolate(coarse, (side, side), mode="bicubic").clamp(-1, 1)
        stack = torch.where(smooth[:, :1] > smooth[:, 1:2], smooth, smooth.roll(1, 1)).numpy()
        write_stack(folder / f"{start:06d}.npy", stack)
        for number, tile in enumerate(stack):
            write_tile(folder / f"pt/{start + number}.pt", tile)
        tiles += [{"tile_id": f"{start + i}", "is_clean": True, "stack": f"{start:06d}.npy", "index": i} for i in range(len(stack))]
    (folder / "metadata.json").write_text(json.dumps({"tiles": tiles}))
    return folder / "metadata.json"


def fresh_state(name: str, options: dict, device: torch.device) -> State:
    torch.manual_seed(0)
    return State.fresh(Denoiser(NETWORKS[name](**options), SIGMA_DATA).to(device))


@dataclass
class Run:
    """What a training, or several pieces of it, took."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    waited: float = 0.0
    images: int = 0
    losses: list[float] = field(default_factory=list)

    @property
    def speed(self) -> float:
        return self.images / self.seconds


def timed(batches: Callable[..., Iterator], run: Run) -> Callable[..., Iterator]:
    """The same batches; `run.waited` grows by what the loop waits for them, start of the workers left out."""

    def read(*span: int) -> Iterator:
        source, first = iter(batches(*span)), True
        while True:
            start = time.perf_counter()
            batch = next(source, None)
            run.waited += 0 if first else time.perf_counter() - start
            first = False
            if batch is None:
                return
            yield batch

    return read


def train_some(
    state: State, tiles: EDMPTDataset, schedule: Schedule, loader: LoaderOptions, device: torch.device, images: int, run: Run
) -> None:
    """The package's own loop over the next `images`; the one place here that calls it."""
    corruption = CORRUPTIONS["uniform"](P_mean=P_MEAN, P_std=P_STD, scaling=SCALING)
    batches = timed(batch_source(tiles, [], schedule.batch_size, schedule.seed, loader), run)
    begun, start, cpu = state.images, time.perf_counter(), time.process_time()
    for _ in train(
        state, batches, schedule, decode=decode, scaling=SCALING, corruption=corruption, device=device, validate=lambda _: {},
        on_step=lambda now: run.losses.extend(now.losses[-1:]), should_stop=lambda: state.images - begun >= images,
    ):  # fmt: skip
        pass
    run.seconds += time.perf_counter() - start
    run.cpu_seconds += time.process_time() - cpu
    run.images += state.images - begun


class PlainTiles(Dataset):
    """One `.pt` per tile, as the predecessor reads them."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return torch.load(self.folder / f"{index}.pt", weights_only=True)


class PlainLoop:
    """EDM's training as a script would have it (Karras et al. 2022, table 1)."""

    def __init__(self, network: nn.Module, tiles: PlainTiles, schedule: Schedule, device: torch.device) -> None:
        self.network, self.ema, self.schedule, self.device = network.to(device), copy.deepcopy(network).to(device), schedule, device
        self.optimizer = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate, foreach=False, fused=False)
        self.batches = self.endless(tiles)

    def endless(self, tiles: PlainTiles) -> Iterator[Tensor]:
        while True:
            yield from DataLoader(tiles, self.schedule.batch_size, shuffle=True, drop_last=True)

    def loss(self, tiles: Tensor) -> Tensor:
        x0 = (tiles.to(self.device) - SCALING.mean) / SCALING.scale
        side = self.schedule.crop or x0.shape[-1]
        x0 = x0[..., :side, :side].flip(-1) if torch.rand(()) < 0.5 else x0[..., :side, :side]
        sigma = (torch.randn(len(x0), 1, 1, 1, device=self.device) * P_STD + P_MEAN).exp()
        total = sigma**2 + SIGMA_DATA**2
        c_skip, c_out, c_in = SIGMA_DATA**2 / total, sigma * SIGMA_DATA / total.sqrt(), 1 / total.sqrt()
        noisy = x0 + sigma * torch.randn_like(x0)
        denoised = c_skip * noisy + c_out * self.network(c_in * noisy, (sigma.log() / 4).expand_as(noisy))
        return (total / (sigma * SIGMA_DATA) ** 2 * (denoised - x0) ** 2).mean()

    def train_some(self, images: int, run: Run) -> None:
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(-(-images // self.schedule.batch_size)):
            self.optimizer.zero_grad()
            loss = self.loss(next(self.batches))
            loss.backward()
            self.optimizer.step()
            for old, new in zip(self.ema.parameters(), self.network.parameters(), strict=True):
                old.data.mul_(0.999).add_(new.data, alpha=0.001)
            run.losses.append(loss.item())
            run.images += self.schedule.batch_size
        run.seconds += time.perf_counter() - start
        run.cpu_seconds += time.process_time() - cpu


def measure(name: str, network: dict, schedule: Schedule, folder: Path, side: int, turns: int, threads: int) -> str:
    """One line of the table."""
    schedule = replace(schedule, averages=halflife(kimg=1, rampup=0.05))  # functions do not go from one process to another
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tiles = EDMPTDataset(folder, folder / "metadata.json", image_size=side)
    state, ours = fresh_state(name, network, device), Run()
    train_some(state, tiles, schedule, NO_WORKERS, device, schedule.total_images, ours)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    plain = PlainLoop(NETWORKS[name](**network), PlainTiles(folder / "pt", len(tiles)), schedule, device)
    state, images, ratios = fresh_state(name, network, device), 4 * schedule.batch_size, []
    schedule = replace(schedule, total_kimg=(turns + 1) * images / 1000)
    for turn in range(turns + 1):
        mine, theirs = Run(), Run()
        train_some(state, tiles, schedule, NO_WORKERS, device, images, mine)
        plain.train_some(images, theirs)
        if turn:  # the first warms up
            ratios.append((mine.speed / theirs.speed, theirs.cpu_seconds / mine.cpu_seconds))
    clock, cpu = np.median(ratios, axis=0) if ratios else (np.nan, np.nan)
    weights, tenth = parameter_count(state.denoiser) / 1e6, max(len(ours.losses) // 10, 1)
    return [
        name, f"{weights:.2f}", f"{ours.seconds / 60:.2f}", f"{ours.cpu_seconds / 60:.2f}", f"{ours.speed:.1f}",
        f"{np.mean(ours.losses[:tenth]):.3f} -> {np.mean(ours.losses[-tenth:]):.3f}", f"{peak:.0f}",
        f"{ours.waited / ours.seconds:.2%}", f"{clock:.2f}", f"{cpu:.2f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["raw_unet", "pyramid_unet", "ddpmpp"], choices=sorted(NETWORKS))
    parser.add_argument("--widths", nargs="+", type=int, default=[32, 64, 96])
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--kimg", type=float, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--tiles", type=int, default=512)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=15, help="of ours and the peer, four batches each; 0: no peer")
    arguments = parser.parse_args()
    schedule = Schedule(
        total_kimg=arguments.kimg, batch_size=arguments.batch, batch_gpu=arguments.batch, learning_rate=1e-3, ramp_kimg=0.5,
        cooldown=0.6, averages={}, decay_kimg=None, check_updates=1, kimg_per_tick=1, snapshot_ticks=1_000_000,
        max_gradient=1.0, crop=None, precision=arguments.precision, seed=0,
    )  # fmt: skip
    network = {"widths": arguments.widths, "blocks": arguments.blocks}
    print(
        f"{arguments.kimg:g} kimg of {arguments.side} x {arguments.side}, batch {arguments.batch}, {network}, {arguments.precision}, ",
        end="",
    )
    print(f"{arguments.threads} threads of {multiprocessing.cpu_count()} cores, torch {torch.__version__}")
    figures = ("minutes", "CPU minutes", "images/s", "loss, first to last tenth", "peak MB", "wait", "x peer", "x peer, CPU")
    tables.head("network", "M weights", *figures)
    with tempfile.TemporaryDirectory() as name:
        write_tiles(Path(name), arguments.tiles, arguments.side)
        for which in arguments.networks:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own:  # memory is counted per process
                job = own.submit(measure, which, network, schedule, Path(name), arguments.side, arguments.turns, arguments.threads)
                tables.row(*job.result())


if __name__ == "__main__":
    main()

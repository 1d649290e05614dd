"""The DataLoader settings for this machine: `python benchmarks/dataloader.py --env photographs [--tiles FOLDER --metadata FILE]`.

Batches of the environment come from packed tile files (made in a temporary folder where none are given) through the
package's own reader, and from one `.pt` per tile with `torch.load` and a plain Dataset, the peer, under the same settings in
turns. First as fast as they come; then to a training that takes each batch away and works on it for batch size / speed
seconds: the fraction of that time in which it waits for data is what counts. `--speed` states that training, images/s; without
it the environment's network is trained for a few batches on this machine. A training on the GPU leaves the cores to the
workers, so it sleeps here; one on the CPU works on them, so it computes here (matrix products, for as long).

`persistent_workers` makes no difference to ours: a run is one pass of the loader. Pinned memory is tried where CUDA is.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

import numpy as np
import tables
import torch
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from torch.utils.data import DataLoader
from training import PlainTiles, Run, fresh_state, train_some, write_tiles  # beside this script

from lowlight_kedro.datasets.edm_pt import EDMPTDataset
from lowlight_kedro.datasets.stacks import decode
from lowlight_kedro.datasets.tiles import write_tile
from lowlight_kedro.pipelines.training.loading import batch_source
from lowlight_kedro.pipelines.training.options import LoaderOptions, TrainingOptions

ROOT = Path(__file__).parent.parent
PREFETCH = (2, 4)


def environment(name: str) -> tuple[TrainingOptions, int]:
    """Parameters of the training and the tile size of an environment."""
    bootstrap_project(ROOT)
    with KedroSession.create(ROOT, env=name) as session:
        config = session.load_context().config_loader
        return TrainingOptions.model_validate(config["parameters"]["training"]), config["globals"]["tile_size"]


def settings(cores: int) -> list[LoaderOptions]:
    """No workers, then 1, 2, 4, ... up to the cores, with each prefetch factor; pinned and not where there is CUDA."""
    workers = [count for count in (1, 2, 4, 8, 16, 32, 64) if count <= cores]
    pinned = (False, True) if torch.cuda.is_available() else (False,)
    some = [(count, prefetch) for count, prefetch in product(workers, PREFETCH)]
    return [
        LoaderOptions(workers=count, pin_memory=pin, persistent_workers=count > 0, prefetch_factor=prefetch)
        for pin, (count, prefetch) in product(pinned, [(0, 2), *some])
    ]


def ours(tiles: EDMPTDataset, batch: int, images: int, loader: LoaderOptions) -> Iterable[torch.Tensor]:
    """Tiles as they are stored; the one place here that calls the package's reader."""
    return (stored for _, stored in batch_source(tiles, [], batch, 0, loader)(0, images))


def peer(tiles: PlainTiles, batch: int, images: int, loader: LoaderOptions) -> Iterable[torch.Tensor]:
    sampler = [[i % len(tiles) for i in range(first, first + batch)] for first in range(0, images, batch)]
    prefetch = {"prefetch_factor": loader.prefetch_factor} if loader.workers else {}
    return DataLoader(tiles, batch_sampler=sampler, num_workers=loader.workers, pin_memory=loader.pin_memory, **prefetch)


def consumed(batches: Iterable[torch.Tensor], train: Callable[[torch.Tensor], None]) -> tuple[float, float]:
    """(images/s, fraction of the time spent waiting), from the second batch on: the first is the start of the workers."""
    source = iter(batches)
    next(source)
    start, waited, images = time.perf_counter(), 0.0, 0
    while True:
        asked = time.perf_counter()
        batch = next(source, None)
        waited += time.perf_counter() - asked
        if batch is None:
            total = time.perf_counter() - start
            return images / total, waited / total
        images += len(batch)
        train(batch)


def trainer(speed: float, device: torch.device) -> Callable[[torch.Tensor], None]:
    """Takes len(batch) / speed seconds: asleep where a GPU would work, else on the processor."""
    factor = torch.randn(192, 192)

    def work(batch: torch.Tensor) -> None:
        if device.type != "cpu":
            time.sleep(len(batch) / speed)
            return
        decode(batch)
        end = time.thread_time() + len(batch) / speed
        while time.thread_time() < end:
            factor @ factor

    return work


def training_speed(options: TrainingOptions, tiles: EDMPTDataset, device: torch.device) -> float:
    """Images/s of the environment's network on data that is read by the loop itself."""
    state, loader = fresh_state(options.network.name, options.network.chosen, device), settings(0)[0]
    schedule = options.schedule(options.batch_size if options.batch_gpu == "auto" else options.batch_gpu)
    for _ in range(2):  # the first warms up
        run = Run()
        train_some(state, tiles, schedule, loader, device, 3 * options.batch_size, run)
    return run.images / (run.seconds - run.waited)


def unpack(tiles: EDMPTDataset, folder: Path) -> PlainTiles:
    for number in range(len(tiles)):
        write_tile(folder / f"{number}.pt", tiles[number][0].numpy())
    return PlainTiles(folder, len(tiles))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="base")
    parser.add_argument("--tiles", type=Path, help="folder of packed tiles; made up where missing")
    parser.add_argument("--metadata", type=Path)
    parser.add_argument("--count", type=int, default=512, help="tiles that are read over and over")
    parser.add_argument("--images", type=int, default=2048, help="read as fast as they come, per setting and turn")
    parser.add_argument("--seconds", type=float, default=3.0, help="of training per setting and turn")
    parser.add_argument("--speed", type=float, help="of the training, images/s; measured here where missing")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    options, side = environment(arguments.env)
    device, batch = torch.device("cuda" if torch.cuda.is_available() else "cpu"), options.batch_size
    with tempfile.TemporaryDirectory() as name:
        if arguments.tiles is None:
            arguments.tiles, arguments.metadata = Path(name), write_tiles(Path(name), arguments.count, side)
        packed = EDMPTDataset(arguments.tiles, arguments.metadata, image_size=side).first(arguments.count)
        single = unpack(packed, Path(name) / "single")
        speed = arguments.speed or training_speed(options, packed, device)
        train = trainer(speed, device if arguments.speed is None else torch.device("meta"))
        images = {"fast": arguments.images // batch * batch, "paced": (max(round(arguments.seconds * speed / batch), 3) + 1) * batch}
        found: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for _, (number, loader) in product(range(arguments.rounds), enumerate(settings(os.cpu_count() or 1))):
            for who, read, data in (("ours", ours, packed), ("peer", peer, single)):
                fastest, _ = consumed(read(data, batch, images["fast"], loader), lambda _: None)
                _, fraction = consumed(read(data, batch, images["paced"], loader), train)
                found.setdefault((number, who), []).append((fastest, fraction))
    medians = {key: np.median(rows, axis=0) for key, rows in found.items()}
    paced = "asleep, as on a GPU" if arguments.speed else f"measured on {device.type}"
    print(f"{arguments.env}: {len(packed)} tiles of {side} x {side}, batches of {batch}, {os.cpu_count()} cores; ", end="")
    print(f"training at {speed:.0f} images/s ({paced})")
    tables.head("workers", "prefetch", "pinned", "images/s", "wait", "peer: images/s", "wait")
    for number, loader in enumerate(settings(os.cpu_count() or 1)):
        (a, b), (c, d) = medians[number, "ours"], medians[number, "peer"]
        prefetch = loader.prefetch_factor if loader.workers else "-"
        tables.row(loader.workers, prefetch, "yes" if loader.pin_memory else "no", f"{a:,.0f}", f"{b:.2%}", f"{c:,.0f}", f"{d:.2%}")
    fractions = [medians[number, "ours"][1] for number in range(len(settings(os.cpu_count() or 1)))]
    best = settings(os.cpu_count() or 1)[next(i for i, fraction in enumerate(fractions) if fraction <= min(fractions) + 0.005)]
    print("\nThe first within half a percent of the least wait, for parameters.yml:\n\ntraining:")
    told = ", ".join(f"{key}: {str(value).lower()}" for key, value in best.model_dump().items())
    print(f"  loader: {{{told}}}")


if __name__ == "__main__":
    main()

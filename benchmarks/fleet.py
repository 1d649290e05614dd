"""Thousands of raws and a million tiles: does every stage cost the same per raw and per tile? `python benchmarks/fleet.py`.

The first table runs every node of preprocessing, validation, inference (the prior that comes with the package, one evaluation) and
evaluation on 1/16, 1/4 and all of `--raws` small raws (64 x 96 photosites, half of them long exposures, tiles of 32), each size in a
process of its own, with a single worker. The second does without files what is done with the metadata of 1/100, 1/10 and all of
`--tiles` tiles, 500 to a frame: describe, write and read it, fingerprint it, check it, choose a split, and hand that split to a
worker of a loader that inherits nothing.

In the cells CPU seconds, and MB at the peak beyond what the process had before the node. `slope` is that of seconds against number between
the last two sizes on logarithmic scales: 1 is a straight line, 2 a square, below 1 a start that does not count yet.
"""

import argparse
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import tables

ROOT = Path(__file__).resolve().parent.parent
SHAPE, TILE, PER_FRAME = (64, 96), 32, 500
PIPELINES = ("preprocessing", "validation", "inference", "evaluation")
Cost = dict[str, tuple[float, float]]  # stage: seconds, MB


def resident(name: str) -> float:
    """`VmRSS` or `VmHWM` of this process, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


@contextmanager
def counted(found: Cost, stage: str) -> Iterator[None]:
    """Note what the body took."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before, begin = resident("VmRSS"), time.process_time()
    yield
    found[stage] = time.process_time() - begin, max(resident("VmHWM") - before, 0)


def write_raws(folder: Path, count: int) -> None:
    """Pairs of SID's layout: smooth light, through the noise of the A7S II at ISO 1600."""
    from lowlight_kedro.datasets.dng import write_dng
    from lowlight_kedro.sensor.cfa import BAYER_RGGB
    from lowlight_kedro.sensor.frame import Frame

    for scene in range(count // 2):
        rng = np.random.default_rng(scene)
        light = np.kron(rng.uniform(0.02, 0.3, (4, 6)), np.ones((16, 16))) * 15871
        for kind, seconds in (("long", 10.0), ("short", 1.0)):
            signal = light * seconds / 10
            dn = np.rint(512 + signal + rng.normal(0, np.sqrt(1.53 * signal + 40))).clip(0, 16383).astype(np.uint16)
            frame = Frame(
                dn, BAYER_RGGB, np.full((2, 2), 512, np.float32), 16383.0, exposure_s=seconds, iso=1600.0, camera="Sony ILCE-7SM2",
                white_balance=(2.0, 1.0, 1.6), camera_to_srgb=np.eye(3, dtype=np.float32),
            )  # fmt: skip
            write_dng(folder / "Sony" / kind / f"0{scene:04d}_00_{seconds:g}s.dng", frame)


def cost_of_nodes(raws: Path, count: int, data: Path, wanted: list[str]) -> Cost:
    """Every node of the `wanted` pipelines by itself, on the first `count` raws."""
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project
    from kedro.pipeline import Pipeline
    from kedro.runner import SequentialRunner

    from lowlight_kedro.pipeline_registry import register_pipelines

    own = data / "01_raw"
    for path in sorted(raws.rglob("*.dng"), key=lambda path: (path.name[:8], path.name))[:count]:
        (own / path.relative_to(raws)).parent.mkdir(parents=True, exist_ok=True)
        (own / path.relative_to(raws)).symlink_to(path)
    logging.disable(logging.WARNING)
    bootstrap_project(ROOT)
    few = {"preprocessing": {"tiles": {"stride": TILE, "data_types": ["long", "short"]}, "split": {"rule": "first_digit"}}}
    everything = {"device": "cpu", "select": {"splits": ["train", "val", "test"]}}
    told = {"raw": str(own), "data": str(data), "tile_size": TILE, **few, "inference": everything}
    found: Cost = {}
    with KedroSession.create(ROOT, env="shipped", runtime_params=told) as session:
        catalog, pipelines = session.load_context().catalog, register_pipelines()
        for node in (node for name in wanted for node in pipelines[name].nodes):
            with counted(found, node.name):
                SequentialRunner().run(Pipeline([node]), catalog)
    return found


def described(number: int) -> dict[str, Any]:
    """What preprocessing keeps of a frame: its facts, and of each of its tiles."""
    rng, name = np.random.default_rng(number), f"{number:05d}_00_10s"
    figures = rng.uniform(-1, 1, (PER_FRAME, 3)).tolist()
    tiles = [
        {
            "tile_id": f"Sony_long_{name}_r{place // 25:02d}_c{place % 25:02d}", "row": place // 25, "column": place % 25,
            "top": place // 25 * 256, "left": place % 25 * 256, "clipped_fraction": 0.0, "mean": mean, "std": std, "min": -1.0, "max": most,
            "saturated_fraction": 0.0, "stack": f"long/Sony_long_{name}.npy", "index": place,
        }
        for place, (mean, std, most) in enumerate(figures)
    ]  # fmt: skip
    return {
        "frame": f"Sony/long/{name}", "scene_id": f"{number:05d}", "split": "train" if number % 10 else "val", "data_type": "long",
        "is_clean": True, "exposure_s": 10.0, "exposure_ratio": 1.0, "iso": 1600.0, "camera": "Sony ILCE-7SM2", "cfa": "RGGB",
        "black_level": 512.0, "white_level": 16383.0, "white_balance": [2.0, 1.0, 1.6], "scale": 1, "tiles": tiles,
    }  # fmt: skip


def cost_of_tiles(count: int, folder: Path) -> Cost:
    """What is done with the metadata of `count` tiles."""
    import pandas as pd

    from lowlight_kedro.datasets.edm_pt import EDMPTDataset, TileSetDataset
    from lowlight_kedro.pipelines.preprocessing.nodes import describe_files
    from lowlight_kedro.sensor import tile_metadata
    from lowlight_kedro.sensor.tile_metadata import fingerprint, tile_table

    found: Cost = {}
    entry = TileSetDataset(path=str(folder), metadata_json=str(folder / "metadata.json"), image_size=256)
    records = folder / "records"
    records.mkdir()
    for number in range(count // PER_FRAME):
        (records / f"{number:05d}.json").write_text(json.dumps(described(number)))
    with counted(found, "describe the frames, from their records"):
        files, index, _ = describe_files((path.name, json.loads(path.read_text())) for path in sorted(records.iterdir()))
    with counted(found, "write the metadata"):
        entry.save({"files": files})
    with counted(found, "write the index (CSV)"):
        index.to_csv(folder / "index.csv", index=False)
    del files, index
    with counted(found, "read the metadata"):
        metadata = entry.load().metadata
    with counted(found, "fingerprint"):
        fingerprint(metadata)
    with counted(found, "check names, splits, places"):
        table = tile_table(metadata)
        assert not tile_metadata.check_names(table) + tile_metadata.check_splits(table) + tile_metadata.check_places(table)
    del metadata, table
    with counted(found, "split for training"):
        tiles = EDMPTDataset(folder, folder / "metadata.json", "train")
    assert len(tiles) == pd.read_csv(folder / "index.csv", usecols=["split"]).eq("train").sum().item()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as worker:
        without, begin = worker.submit(imported).result(), time.perf_counter()
        peak = worker.submit(peak_with, tiles).result()
        found["hand it to a worker"] = time.perf_counter() - begin, peak - without
    return found


def imported() -> float:
    """MB of a process that has imported what reads tiles."""
    import lowlight_kedro.datasets.edm_pt  # noqa: F401

    return resident("VmRSS")


def peak_with(tiles: Any) -> float:
    """The peak of this process, which was given `tiles`, MB."""
    assert len(tiles)
    return resident("VmHWM")


def show(title: str, sizes: list[int], costs: list[Cost], unit: str) -> None:
    """A row per stage."""
    tables.head(title, *(f"{size:,}: s, MB" for size in sizes), f"ms per {unit}", "slope")
    for stage in costs[-1]:
        seconds, memory = zip(*(cost[stage] for cost in costs), strict=True)
        slope = log(max(seconds[-1], 1e-3) / max(seconds[-2], 1e-3)) / log(sizes[-1] / sizes[-2])
        cells = (f"{s:.2f}, {m:.0f}" for s, m in zip(seconds, memory, strict=True))
        tables.row(stage, *cells, f"{1000 * seconds[-1] / sizes[-1]:.3g}", f"{slope:.2f}" if seconds[-1] >= 0.5 else "-")


def alone(function: Callable[..., Cost], *arguments: Any) -> Cost:
    """In a process of its own, so that memory is counted from the start."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own:
        return own.submit(function, *arguments).result()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raws", type=int, default=2000, help="0: only tiles")
    parser.add_argument("--pipelines", nargs="+", choices=PIPELINES, default=PIPELINES, help="in this order, each needs those before")
    parser.add_argument("--tiles", type=int, default=1_000_000, help="0: only raws")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.raws:
            write_raws(folder / "raws", asked.raws)
            sizes = [asked.raws // 16, asked.raws // 4, asked.raws]
            show(
                "node",
                sizes,
                [alone(cost_of_nodes, folder / "raws", size, folder / f"data{size}", asked.pipelines) for size in sizes],
                "raw",
            )
        if asked.tiles:
            sizes = [asked.tiles // 100, asked.tiles // 10, asked.tiles]
            for size in sizes:
                (folder / f"tiles{size}").mkdir()
            show("metadata of tiles", sizes, [alone(cost_of_tiles, size, folder / f"tiles{size}") for size in sizes], "tile")


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"  # bars of progress of the processes
    warnings.simplefilter("ignore")
    sys.exit(main())

"""Preprocessing: raw to tiles against LibRaw's copy of the mosaic, one and two workers, the cost of keeping work, peak memory.

    python benchmarks/preprocessing.py [--frames 12] [--megapixels 24]

Frames are random mosaics written as DNG into a temporary folder; tiles go there too. Each run is timed from the first to
the last file, start of the workers included and apart.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import tables
import yaml
from decode import copied, cost  # beside this script

from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.jobs import JobsDataset
from lowlight_kedro.datasets.raw import RawFolderDataset
from lowlight_kedro.jobs import EXECUTORS, Jobs
from lowlight_kedro.pipelines.options import ExecutorOptions
from lowlight_kedro.pipelines.preprocessing.nodes import cut_tiles
from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions
from lowlight_kedro.sensor.cfa import BAYER_RGGB
from lowlight_kedro.sensor.frame import Frame

ROOT = Path(__file__).parents[1]


def make_raws(folder: Path, count: int, megapixels: float) -> None:
    side = int((megapixels * 1e6 / 1.5) ** 0.5) // 2 * 2
    rng = np.random.default_rng(0)
    for number in range(count):
        frame = Frame(
            mosaic_dn=rng.integers(400, 8000, (side, side * 3 // 2), dtype=np.uint16), cfa=BAYER_RGGB,
            black_level=np.full((2, 2), 512, np.float32), white_level=16383.0, exposure_s=10.0, iso=100.0, camera="benchmark",
            white_balance=(2.0, 1.0, 1.5), camera_to_srgb=np.eye(3, dtype=np.float32),
        )  # fmt: skip
        write_dng(folder / f"{number:05d}_00_10s.dng", frame)


def options() -> PreprocessingOptions:
    text = (ROOT / "conf/base/parameters_preprocessing.yml").read_text().replace("${globals:tile_size}", "256")
    return PreprocessingOptions.model_validate(yaml.safe_load(text)["preprocessing"])


def jobs_of(folder: Path) -> Jobs:
    raws = RawFolderDataset(filepath=str(folder)).load()
    rows = [
        {"frame": name, "path": str(raw.path), "scene": name, "split": "train", "data_type": "long"} | raw.header()
        for name, raw in raws.items()
    ]
    pairs = pd.DataFrame(columns=["short", "exposure_ratio"])
    return cut_tiles(raws, pd.DataFrame(rows), pairs, options(), ExecutorOptions(name="sequential"))


def results(folder: Path) -> JobsDataset:
    tile, record = "lowlight_kedro.datasets.tiles.TileDataset", "lowlight_kedro.datasets.atomic.AtomicJSONDataset"
    return JobsDataset(parts={
        "tiles": {"path": str(folder / "tiles"), "dataset": tile},
        "record": {"path": str(folder / "records"), "dataset": record, "filename_suffix": ".json"},
    }, many=["tiles"])  # fmt: skip


def timed(jobs: Jobs, workers: int, out: Path) -> tuple[float, float]:
    """Seconds in all, and from the first finished file to the last."""
    finished: list[float] = []

    def executor(function, items, shared):
        for result in EXECUTORS["processes"](function, items, shared, workers=workers):
            finished.append(time.perf_counter())
            yield result

    start = time.perf_counter()
    results(out).save(Jobs(jobs.jobs, jobs.shared, executor, f"{workers} workers", "raw"))
    return time.perf_counter() - start, finished[-1] - finished[workers - 1]


def peak_memory(folder: Path) -> float:
    """MB of a process of its own that preprocesses one frame."""
    results(folder / "memory").save(Jobs(jobs_of(folder).jobs[:1], options(), EXECUTORS["sequential"], "memory", "raw"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--memory", help="only measure the peak memory with the raws of this folder")
    arguments = parser.parse_args()
    if arguments.memory:
        print(f"{peak_memory(Path(arguments.memory)):.0f}")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_raws(folder / "raw", arguments.frames, arguments.megapixels)
        jobs = jobs_of(folder / "raw")
        figures = {workers: timed(jobs, workers, folder / f"out{workers}") for workers in (1, 2)}
        first, megapixels = jobs.jobs[0], arguments.megapixels
        copy = cost(lambda: copied(first.sources[0].path), 5, megapixels)
        tiles = cost(lambda: first.compute(jobs.shared), 5, megapixels)
        start = time.perf_counter()
        results(folder / "out1").save(Jobs(jobs.jobs, jobs.shared, partial(EXECUTORS["sequential"]), "again", "raw"))
        again = time.perf_counter() - start
        memory = subprocess.run(
            [sys.executable, __file__, "--memory", str(folder / "raw")], capture_output=True, text=True, check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ).stdout.split()[-1]  # fmt: skip
    print(f"{arguments.frames} frames of {arguments.megapixels:g} MP, {os.cpu_count()} cores")
    print(f"CPU time, one core: raw_image_visible.copy() {copy:.1f} ms/MP, raw to encoded tiles {tiles:.1f} ms/MP, {tiles / copy:.1f} x")
    tables.head("workers", "seconds, start included", "MP/s after the first files", "ratio")
    rates = {workers: (arguments.frames - workers) * arguments.megapixels / steady for workers, (_, steady) in figures.items()}
    for workers, (total, _) in figures.items():
        tables.row(workers, f"{total:.1f}", f"{rates[workers]:.1f}", f"{rates[workers] / rates[1]:.2f}")
    print(f"all kept from before: {again:.2f} s; peak memory of one frame: {memory} MB")


if __name__ == "__main__":
    main()

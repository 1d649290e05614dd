"""How long a raw takes to linear RGB, and how much memory to tiles: `python benchmarks/decode.py`.

A made-up 24 MP DNG of each pattern, ms of CPU time per megapixel on one core, best of the runs. The yardstick is LibRaw's own
decoding with `raw_image_visible.copy()`; the peers are LibRaw's LINEAR, PPG and AHD from the same file. Memory is the peak
resident size of a new process that decodes one frame, demosaics it and cuts it into tiles as the preprocessing pipeline does.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tables

from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.libraw import developed
from lowlight_kedro.datasets.raw import read_frame
from lowlight_kedro.sensor import tiles
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, Cfa, tile_pattern
from lowlight_kedro.sensor.demosaic import DEMOSAICERS, demosaic
from lowlight_kedro.sensor.frame import Frame, balanced, normalise

SHAPE = (4000, 6000)
MEGAPIXELS = SHAPE[0] * SHAPE[1] / 1e6
PATTERNS: dict[str, Cfa] = {"Bayer": BAYER_RGGB, "X-Trans": XTRANS}
PEERS = ("LINEAR", "PPG", "AHD")


def write_raw(path: Path, cfa: Cfa) -> None:
    """A 14-bit raw of waves of light with noise."""
    random = np.random.default_rng(0)
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    light = 2000 * (1 + np.sin(rows / 9) * np.sin(columns / 13)) * (1 - 0.3 * (tile_pattern(np.asarray(cfa), SHAPE) != 1))
    dn = np.clip(512 + light + random.normal(0, 20, SHAPE), 0, 16383).astype(np.uint16)
    black = np.full((len(cfa),) * 2, 512, np.float32)
    write_dng(path, Frame(dn, cfa, black, 16383.0, 1.0, 100.0, "Made Up", (2.0, 1.0, 1.6), np.eye(3, dtype=np.float32)))


def cost(action: Callable[[], Any], repeats: int, megapixels: float = MEGAPIXELS) -> float:
    """Smallest CPU time, ms per megapixel."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = action()
        times.append(time.process_time() - start)
        del result
    return min(times) * 1000 / megapixels


def copied(path: Path) -> np.ndarray:
    """What any user of rawpy pays."""
    import rawpy

    with rawpy.imread(str(path)) as raw:
        return raw.raw_image_visible.copy()


def speeds(pattern: str, path: Path, repeats: int) -> None:
    """Rows of the table for one pattern."""
    frame = read_frame(path)
    mosaic = balanced(normalise(frame), frame.cfa, frame.white_balance)
    yardstick = cost(lambda: copied(path), repeats)

    def row(step: str, milliseconds: float) -> None:
        tables.row(pattern, step, f"{milliseconds:.1f}", f"{milliseconds / yardstick:.1f}")

    row("decode and copy (the yardstick)", yardstick)
    row("decode to `Frame`", cost(lambda: read_frame(path), repeats))
    row("normalise and balance", cost(lambda: balanced(normalise(frame), frame.cfa, frame.white_balance), repeats))
    for name, demosaicer in DEMOSAICERS.items():
        if len(frame.cfa) == 2 or name != "malvar2004":
            row(f"{name}, the mosaic alone", cost(lambda: demosaicer(mosaic, frame.cfa), repeats))  # noqa: B023 - called at once
            row(f"**{name}**, file to linear RGB", cost(lambda: demosaic(read_frame(path), demosaicer), repeats))  # noqa: B023
    for name in PEERS:
        row(f"**libraw:{name}**, file to linear RGB", cost(lambda: developed(path, name), repeats))  # noqa: B023


def peak_mb() -> float:
    """Peak resident size of this process; Linux hands `ru_maxrss` of the parent down, `VmHWM` starts anew."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def cut(path: Path, name: str) -> None:
    """Decode, demosaic, scale and cut one frame, all tiles kept; prints the peak resident size in MB."""
    import lowlight_kedro.pipelines.preprocessing.nodes  # noqa: F401 - torch, pandas and kedro take their share

    before = peak_mb()
    rgb = demosaic(read_frame(path), DEMOSAICERS[name]) * np.float32(1)
    kept = [(place, tiles.to_tile_domain(pixels), tiles.clipped_fraction(pixels)) for place, pixels in tiles.cut(rgb, 256, 256)]
    print(f"{peak_mb():.0f} MB for {len(kept)} tiles, {before:.0f} MB of it by the imports")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="the memory only")
    parser.add_argument("--cut", nargs=2, metavar=("RAW", "DEMOSAICER"), help="the memory of one frame, in this process")
    asked = parser.parse_args()
    if asked.cut:
        cut(Path(asked.cut[0]), asked.cut[1])
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        paths = {pattern: Path(folder) / f"{pattern}.dng" for pattern in PATTERNS}
        for pattern, path in paths.items():
            write_raw(path, PATTERNS[pattern])
        for pattern, name in (("Bayer", "malvar2004"), ("X-Trans", "directional_lmmse")):
            command = [sys.executable, __file__, "--cut", str(paths[pattern]), name]
            print(f"{pattern}, {name}: {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}")
        if not asked.memory:
            tables.head("pattern", "step", "ms per MP", "times the yardstick")
            for pattern, path in paths.items():
                speeds(pattern, path, asked.repeats)


if __name__ == "__main__":
    main()

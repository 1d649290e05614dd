"""Tiles per second, one process, one thread, warm: `python benchmarks/tile_reading.py`.

Makes tiles in a temporary folder, then reads them in the same random batches with every reader, interleaved. Shows the
median of the rounds by the process' own time (nothing waits for a disk here, so it is the wall clock of an idle machine),
its ratio to the peer, `torch.load(weights_only=True)` of one `.pt` per tile, and by the wall clock of this machine as it is.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from lowlight_kedro.datasets.edm_pt import EDMPTDataset
from lowlight_kedro.datasets.stacks import decode
from lowlight_kedro.datasets.tiles import TileFolderDataset

Reader = Callable[[list[int]], object]


def write_all(folder: Path, tiles: np.ndarray, per_stack: int) -> None:
    """The same tiles in every format."""
    count = len(tiles)
    stacks = {f"long/{start:06d}.npy": tiles[start : start + per_stack] for start in range(0, count, per_stack)}
    TileFolderDataset(filepath=str(folder / "stacks")).save(stacks)
    TileFolderDataset(filepath=str(folder / "pt")).save({f"{k}.pt": tile for k, tile in enumerate(tiles)})
    np.save(folder / "float32.npy", tiles)
    (folder / "safetensors").mkdir()
    for k, tile in enumerate(torch.from_numpy(tiles)):
        save_file({"tile": tile.contiguous()}, folder / f"safetensors/{k}.safetensors")
    stacked = [{"tile_id": f"{k}", "is_clean": True, "stack": name, "index": i} for name, part in stacks.items() for i in range(len(part))
               for k in (int(name[5:11]) + i,)]  # fmt: skip
    (folder / "stacks.json").write_text(json.dumps({"tiles": stacked}))
    (folder / "pt.json").write_text(json.dumps({"tiles": [{"tile_id": f"{k}", "is_clean": True} for k in range(count)]}))


def readers(folder: Path, side: int) -> dict[str, Reader]:
    """(indices) -> a batch, by name."""
    stacks = EDMPTDataset(folder / "stacks", folder / "stacks.json", image_size=side)
    single = EDMPTDataset(folder / "pt", folder / "pt.json", image_size=side)
    mapped = np.load(folder / "float32.npy", mmap_mode="r")
    return {
        "peer: torch.load(weights_only) per tile": lambda batch: torch.stack(
            [torch.load(folder / f"pt/{k}.pt", weights_only=True) for k in batch]
        ),
        "peer: safetensors per tile": lambda batch: torch.stack(
            [load_file(folder / f"safetensors/{k}.safetensors")["tile"] for k in batch]
        ),
        "peer: np.load memmap of float32, copied": lambda batch: torch.from_numpy(mapped[batch]),
        "ours: .pt per tile": lambda batch: decode(single.stored(batch)),
        "ours: stacks, dataset[i] one by one": lambda batch: [stacks[k] for k in batch],
        "ours: stacks, batch as float32": stacks.__getitems__,
        "ours: stacks, batch as 16 bits": stacks.stored,
        "ours: stacks, batch as 16 bits, decoded after": lambda batch: decode(stacks.stored(batch)),
    }


def tiles_per_second(read: Reader, order: np.ndarray, batch: int) -> tuple[float, float]:
    """By the process' time and by the wall clock."""
    start, wall = time.process_time(), time.perf_counter()
    for first in range(0, len(order), batch):
        read(order[first : first + batch].tolist())
    return len(order) / (time.process_time() - start), len(order) / (time.perf_counter() - wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=512)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--per-stack", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    tiles = rng.uniform(-1, 1, (options.tiles, 3, options.side, options.side)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_all(folder, tiles, options.per_stack)
        found = readers(folder, options.side)
        speeds: dict[str, list[tuple[float, float]]] = {reader: [] for reader in found}
        for number in range(options.rounds + 1):
            order = rng.permutation(options.tiles)
            for reader, read in found.items():
                speed = tiles_per_second(read, order, options.batch)
                if number:  # the first round warms the page cache
                    speeds[reader].append(speed)
    medians = {reader: np.median(measured, axis=0) for reader, measured in speeds.items()}
    peer = medians["peer: torch.load(weights_only) per tile"][0]
    print(f"{options.tiles} tiles {options.side} x {options.side} x 3, batches of {options.batch}, {options.per_stack} tiles per stack")
    for reader, (own, wall) in medians.items():
        print(f"{reader:47} {own:8,.0f} tiles/s  {own / peer:6.2f} x   wall clock {wall:8,.0f}")


if __name__ == "__main__":
    main()

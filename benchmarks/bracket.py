"""Is a restored frame nearer to a longer one than the scaled input? `python benchmarks/bracket.py --short A --long B --restored C`.

A and B are raws of one scene, C the restoration of A (`07_model_output/linear`, TIFF). Blocks of 256 x 256 of the first green plane,
where no demosaicing comes in: each is moved over the long exposure by whole places, scaled by one number, and compared where the long
exposure is not saturated. Blocks whose ratio is more than an eighth off the median moved, and do not count. PSNR in dB, 1 = white of B.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from lowlight_kedro.datasets.raw import RawFile
from lowlight_kedro.sensor.frame import normalise

BLOCK, REACH, SATURATED = 256, 4, 0.9


def fitted(image: NDArray, truth: NDArray, inside: NDArray) -> tuple[float, float]:
    """Mean squared error of the best multiple of `image`, and the factor."""
    factor = float((image * truth)[inside].sum() / np.square(image)[inside].sum())
    return float(np.square(image * factor - truth)[inside].mean()), factor


def compare(short: NDArray, restored: NDArray, long: NDArray) -> list[tuple[float, float, float]]:
    """PSNR of the scaled and of the restored block, and the ratio, for each block that can be compared."""
    found = []
    tops, lefts = (range(2 * REACH, side - BLOCK - 2 * REACH, BLOCK) for side in short.shape)
    for top, left in product(tops, lefts):
        here = np.s_[top : top + BLOCK, left : left + BLOCK]
        tried = []
        for down, right in product(range(-REACH, REACH + 1), repeat=2):
            truth = long[top + down : top + down + BLOCK, left + right : left + right + BLOCK]
            inside = truth < SATURATED
            if inside.mean() > 0.5:
                tried.append((*fitted(short[here], truth, inside), truth, inside))
        if tried:
            error, ratio, truth, inside = min(tried, key=lambda one: one[0])
            found.append((-10 * np.log10(error), -10 * np.log10(fitted(restored[here], truth, inside)[0]), ratio))
    middle = np.median([ratio for *_, ratio in found]) if found else 0
    return [block for block in found if abs(block[2] / middle - 1) < 1 / 8]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("short", "long", "restored"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    frame, longer = RawFile(options.short)(), RawFile(options.long)()
    row, column = next(place for place in product(range(len(frame.cfa)), repeat=2) if frame.cfa[place[0]][place[1]] == 1)
    plane = np.s_[row :: len(frame.cfa), column :: len(frame.cfa)]
    light = tifffile.imread(options.restored)
    green = light[..., 1] / (np.iinfo(light.dtype).max if light.dtype.kind == "u" else 1)
    blocks = np.array(compare(normalise(frame)[plane].astype(float), green[plane], normalise(longer)[plane].astype(float)))
    better = int((blocks[:, 1] > blocks[:, 0]).sum())
    print(f"{len(blocks)} blocks, ratio {np.median(blocks[:, 2]):.3f}; restored is nearer in {better}")
    scaled, restored = blocks[:, :2].mean(axis=0)
    print(f"mean PSNR: scaled {scaled:.2f}, restored {restored:.2f} dB")


if __name__ == "__main__":
    main()

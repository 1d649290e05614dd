"""How well each demosaicer recovers clean photographs: `python benchmarks/demosaicing.py`; `--tune` for the LMMSE's constants.

A photograph is shrunk by 2 in linear light (so that the traces of JPEG and of the camera's own demosaicing fall away), brought
to the white-balanced colours of a camera (Nikon D5000), sampled as a mosaic and demosaiced. CPSNR in dB, all three channels
together, peak 1, mean over the photographs; in linear camera RGB, and in sRGB after rendering. `libraw:*` are the peers.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np
import tables
from numpy.typing import NDArray
from PIL import Image

from lowlight_kedro.datasets.libraw import PREFIX, available, libraw_demosaicer
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, Cfa, sample
from lowlight_kedro.sensor.demosaic import DEMOSAICERS, Demosaicer, scale_of
from lowlight_kedro.sensor.render import render, srgb_decode

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("LOWLIGHT_TEST_DATA", ROOT.parent / "shared" / "data"))
REPORTED = ("wallpapers", "plasma", "urban100_1_80")
TUNED_ON = ("sunhays80", "bsds500_train_val")
# White-balanced camera RGB of a Nikon D5000 to linear sRGB, as LibRaw has it.
CAMERA_TO_SRGB = np.array([[1.827, -0.655, -0.172], [-0.007, 1.332, -0.325], [0.063, -0.401, 1.338]], np.float32)
BORDER = 8  # pixels that are not counted
PATTERNS: dict[str, Cfa] = {"Bayer": BAYER_RGGB, "X-Trans": XTRANS}


def shrunk(rgb: NDArray, factor: int) -> NDArray:
    """Means of blocks of an image (H, W, 3)."""
    height, width = (side // factor * factor for side in rgb.shape[:2])
    return rgb[:height, :width].reshape(height // factor, factor, width // factor, factor, 3).mean(axis=(1, 3))


def linear(encoded: NDArray, side: int) -> NDArray[np.float32]:
    """An 8-bit sRGB photograph (H, W, 3) to camera RGB (3, h, w): half the size, the middle `side` pixels."""
    light = shrunk(srgb_decode(encoded[..., :3].astype(np.float32) / 255), 2)
    top, left = (max(0, length - side) // 2 for length in light.shape[:2])
    middle = light[top : top + side, left : left + side].transpose(2, 0, 1)
    return np.tensordot(np.linalg.inv(CAMERA_TO_SRGB), middle, axes=1).astype(np.float32)


def photographs(folders: tuple[str, ...], each: int, side: int) -> Iterator[NDArray[np.float32]]:
    """Evenly chosen photographs of each folder; scikit-image's where there are none."""
    found = [sorted((SHARED / "photos" / folder).rglob("*.[jp][pn]g")) for folder in folders]
    if not any(found):
        from skimage import data

        print(f"no photographs in {SHARED / 'photos'}: scikit-image's instead")
        yield from (linear(photograph(), side) for photograph in (data.astronaut, data.coffee, data.chelsea, data.rocket))
        return
    for paths in found:
        for path in paths[:: max(1, len(paths) // each)][:each]:
            with Image.open(path) as image:
                yield linear(np.asarray(image.convert("RGB")), side)


def cpsnr(estimate: NDArray, truth: NDArray) -> tuple[float, float]:
    """In linear camera RGB and in sRGB, dB."""
    inside = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    pairs = [(estimate, truth), (render(estimate, CAMERA_TO_SRGB), render(truth, CAMERA_TO_SRGB))]
    first, second = (float(-10 * np.log10(np.mean((one[inside] - other[inside]) ** 2))) for one, other in pairs)
    return first, second


def mean_cpsnr(demosaicer: Callable, cfa: Cfa, images: list[NDArray]) -> NDArray:
    return np.mean([cpsnr(demosaicer(sample(truth, cfa), cfa), truth) for truth in images], axis=0)


def demosaicers(cfa: Cfa) -> dict[str, Demosaicer]:
    """Those that fit the pattern and keep the size, and LibRaw's."""
    fitting = {name: function for name, function in DEMOSAICERS.items() if scale_of(function, cfa) == 1}
    if len(cfa) == 6:
        del fitting["malvar2004"]
    return fitting | {PREFIX + name: libraw_demosaicer(name) for name in available(len(cfa))}


def report(images: list[NDArray]) -> None:
    """One markdown table, best last."""
    print(f"{len(images)} photographs of about {images[0].shape[1]} x {images[0].shape[2]} pixels")
    tables.head("pattern", "demosaicer", "CPSNR linear, dB", "CPSNR sRGB, dB")
    for pattern, cfa in PATTERNS.items():
        found = {name: mean_cpsnr(demosaicer, cfa, images) for name, demosaicer in demosaicers(cfa).items()}
        for name, (in_linear, in_srgb) in sorted(found.items(), key=lambda item: item[1][0]):
            tables.row(pattern, name, f"{in_linear:.2f}", f"{in_srgb:.2f}")


def tune(images: list[NDArray]) -> None:
    """The constants of the LMMSE model, swept."""
    model = import_module("lowlight_kedro.sensor.demosaic.lmmse")
    print(f"{len(images)} photographs")
    tables.head("pattern", "CORRELATION", "STRETCH", "SQUARINGS", "CPSNR linear, dB", "CPSNR sRGB, dB")
    swept = product(PATTERNS.items(), (0.75, 0.85, 0.9, 0.95), (1.5, 2.25, 4.0), (1, 2, 3))
    for (pattern, cfa), correlation, stretch, squarings in swept:
        if squarings != 2 and (correlation, stretch) != (0.9, 2.25):
            continue
        model.CORRELATION, model.STRETCH, model.SQUARINGS = correlation, stretch, squarings  # type: ignore[attr-defined]
        model.filters.cache_clear()
        in_linear, in_srgb = mean_cpsnr(DEMOSAICERS["directional_lmmse"], cfa, images)
        tables.row(pattern, correlation, stretch, squarings, f"{in_linear:.2f}", f"{in_srgb:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true", help=f"sweep the LMMSE's constants on {', '.join(TUNED_ON)}")
    parser.add_argument("--each", type=int, default=10, help="photographs of each folder")
    parser.add_argument("--side", type=int, default=512, help="pixels")
    asked = parser.parse_args()
    images = list(photographs(TUNED_ON if asked.tune else REPORTED, asked.each, asked.side))
    (tune if asked.tune else report)(images)


if __name__ == "__main__":
    main()

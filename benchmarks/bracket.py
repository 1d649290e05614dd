"""What a real camera's frame becomes, beside a longer exposure: `python benchmarks/bracket.py SHORT LONG --ratio 4 [--kept FOLDER]`.

Two raws of one scene, hand-held. Methods: `lowlight restore` as it comes (noise and all from the short frame alone), LibRaw's demosaicers,
demosaicnet, FFDNet with demosaicnet, and RawTherapee in several ways of denoising; all of the short frame, `ratio` times brighter.

Blocks of 128 x 128 pixels are laid over each other by fractions of a pixel (benchmarks/overlay.py), the same for all methods; those that
moved or are saturated in the long frame do not count. The light of each block and channel is brought to that of the long exposure by the
ratio of both raws there, because neither the shutter nor the light is even; and each method's channels by three numbers to the brightness
of the short raw over the whole frame, because RawTherapee's own scale is not told.

What is the truth? `sites`: each channel only where the long exposure measured it, on its own mosaic, which no demosaicer has touched;
there the methods are resampled. Against two demosaicings of the long exposure, which are resampled, the methods stand as people see them.
All have the noise of the long exposure: `only the noise of the truth` is what a perfect method would have, the truth with that noise again.

PSNR in dB and SSIM are means over blocks, with half of the 95 % interval. At sites "sRGB" is its curve on each channel. `ahead`: by how
much the first method is ahead of this one in sRGB at sites, paired by block, and in how many of them. Where the shift is nearly even, both
frames measured the same channel at nearly the same places, and sites say little about demosaicing; `measured elsewhere` are blocks whose
shift is 0.7 pixels and more from an even one, where they do.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from overlay import BLOCK, Block, blocks
from peers import demosaicer
from PIL import Image
from rawtherapee import called
from restoration import half_interval
from tables import show

import lowlight_kedro as ll
from lowlight_kedro.datasets.rawtherapee import PLAIN, Denoising, rawtherapee
from lowlight_kedro.evaluation.baselines import BASELINES, denoise_signal
from lowlight_kedro.evaluation.metrics import BORDER, measure, psnr, ssim
from lowlight_kedro.exposure import noise_of
from lowlight_kedro.sensor.cfa import masks
from lowlight_kedro.sensor.frame import Frame, balanced, normalise
from lowlight_kedro.sensor.noise import PoissonGaussian
from lowlight_kedro.sensor.registration import binned, register
from lowlight_kedro.sensor.render import render, srgb_encode

OURS, NOISE = "lowlight restore", "only the noise of the truth"
TRUTHS = ("libraw:DHT", "directional_lmmse")  # of the long exposure
DENOISING = (PLAIN, Denoising("Lab", "shal", 20, 15), Denoising("Lab", "shal", 40, 20))  # best PSNR and best SSIM of four
LIFTED = 4.0  # 2 EV
ELSEWHERE = 0.7  # pixels between the shift and an even one: there the long exposure measured what the short one did not
CROPS = {"stones": (1650, 1720), "windows": (1500, 850), "pipe": (1700, 2250), "door": (2380, 2050)}  # top, left: of sample2.dng
SIDE, ZOOM, GAP, MIDDLE = 192, 2, 8, 0.4


def of_mosaic(frame: Frame, ratio: float, demosaic: str) -> NDArray:
    """White-balanced light (3, H, W), `ratio` times brighter."""
    return demosaicer(demosaic)(balanced(normalise(frame) * np.float32(ratio), frame.cfa, frame.white_balance), frame.cfa)


def denoised(frame: Frame, ratio: float, noise: PoissonGaussian, denoiser: str) -> NDArray:
    """Denoised behind a variance-stabilising transform, then by demosaicnet."""
    signal = denoise_signal(normalise(frame), noise.gain, noise.read_noise, BASELINES[denoiser]) * np.float32(ratio)
    return demosaicer("demosaicnet")(balanced(signal, frame.cfa, frame.white_balance), frame.cfa)


def methods(frame: Frame, ratio: float) -> dict[str, Callable[[], NDArray]]:
    """What is compared: the light of each, white-balanced (3, H, W)."""
    noise, _ = noise_of(frame)
    assert isinstance(noise, PoissonGaussian)
    found = {OURS: lambda: ll.restore(frame, ratio=ratio).light}
    found |= {name: partial(of_mosaic, frame, ratio, name) for name in ("libraw:DHT", "libraw:AHD", "demosaicnet")}
    found["ffdnet+demosaicnet"] = partial(denoised, frame, ratio, noise, "ffdnet")
    signal = normalise(frame)
    return found | {called(way): partial(rawtherapee, signal, frame.cfa, frame.white_balance, ratio, way) for way in DENOISING}


def kept(folder: Path | None, name: str, make: Callable[[], NDArray]) -> NDArray:
    """What `make` gives, from the file that an earlier run left in `folder`, or left there for a later one."""
    path = folder and folder / f"{name.replace('/', '_').replace(' ', '_')}.npy"
    if path and path.is_file():
        return np.load(path, mmap_mode="r")
    light = np.asarray(make(), np.float32)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, light)
    return light


def total(light: NDArray, block: Block) -> NDArray:
    """Sums of the channels over what can be compared."""
    return light[:, block.usable].sum(axis=1, dtype=float)


@dataclass(frozen=True)
class Truth:
    """The long exposure as the truth.

    Attributes:
        mosaic: its white-balanced mosaic (H, W).
        demosaiced: the same by each of TRUTHS, (3, H, W).
    """

    mosaic: NDArray
    demosaiced: Mapping[str, NDArray]

    @classmethod
    def of(cls, signal: NDArray, frame: Frame) -> "Truth":
        """From the signal of the long frame."""
        mosaic = balanced(signal, frame.cfa, frame.white_balance)
        return cls(mosaic, {name: demosaicer(name)(mosaic, frame.cfa) for name in TRUTHS})


@dataclass(frozen=True)
class Pair:
    """A short frame laid over a long one, and the truth.

    Attributes:
        blocks: where they lie.
        brightness: of each block the sums of R, G, B of the short frame, `ratio` times brighter, and of the long one (blocks, 2, 3).
        truth: the long exposure; `again`: with its own noise once more.
        measured: which channel its sites measured (3, H, W).
        to_srgb: the matrix that shows it.
    """

    blocks: list[Block]
    brightness: NDArray
    truth: Truth
    again: Truth
    measured: NDArray[np.bool_]
    to_srgb: NDArray

    def gains(self, light: NDArray) -> NDArray:
        """Factors (blocks, 3, 1, 1) of a method's light: to the short frame's brightness in all, then to the long one's by block."""
        own = np.array([total(block.of_short(light), block) for block in self.blocks])
        short, long = self.brightness[:, 0], self.brightness[:, 1]
        return (long / short * short.sum(0) / own.sum(0))[:, :, None, None]

    def at_sites(self, block: Block, values: NDArray) -> NDArray:
        """Of values (..., BLOCK, BLOCK) at the pixels of the long frame those that it measured there and that can be compared."""
        top, left = block.corner
        where = self.measured[:, top : top + BLOCK, left : left + BLOCK] & block.usable
        return np.broadcast_to(values, where.shape)[where]

    def recorded(self, block: Block, truth: Truth) -> NDArray:
        """What the long exposure measured there."""
        top, left = block.corner
        return self.at_sites(block, truth.mosaic[top : top + BLOCK, left : left + BLOCK])


def laid_over(short: Frame, long: Frame, ratio: float) -> Pair:
    """Where the blocks of `short` lie in `long`, and what they may be compared with."""
    signal, noise = normalise(long), noise_of(long)[0]
    once_more = noise.sample(signal, np.random.default_rng(0)).astype(np.float32)
    scaled, there = of_mosaic(short, ratio, "malvar2004"), of_mosaic(long, 1.0, "malvar2004")
    expected = register(*(binned(np.minimum(light[1], 1), 2) for light in (scaled, there))).shift
    found = list(blocks(scaled[1], there[1], (2 * expected[0], 2 * expected[1])))
    brightness = np.array([[total(block.of_short(scaled), block), total(block.of_long(there), block)] for block in found])
    measured, matrix = masks(long.cfa, signal.shape), np.asarray(long.camera_to_srgb)
    return Pair(found, brightness, Truth.of(signal, long), Truth.of(once_more, long), measured, matrix)


def decibel(values: NDArray, truth: NDArray) -> float:
    """PSNR, both clipped to [0, 1]."""
    return float(-10 * np.log10(np.square(values.clip(0, 1) - truth.clip(0, 1)).mean()))


def figures(pair: Pair, block: Block, at_sites: NDArray, pixels: Mapping[str, NDArray], exposure: float) -> dict[str, float]:
    """Of one block: values at the sites that the long exposure measured, and light (3, H, W) with a border beside each demosaiced truth."""
    measured = pair.recorded(block, pair.truth)
    shown = (srgb_encode((values * exposure).clip(0, 1)) for values in (at_sites, measured))
    found = {"sites, linear": decibel(at_sites * exposure, measured * exposure), "sites, sRGB": decibel(*shown)}
    usable = np.pad(block.usable, BORDER)
    for name, light in pixels.items():
        pictures = (render(part, pair.to_srgb, exposure=exposure) for part in (light, block.of_long(pair.truth.demosaiced[name], BORDER)))
        told = measure(*pictures, {"psnr": psnr, "ssim": ssim}, usable)
        found |= {name: told["psnr"], f"{name}, SSIM": told["ssim"]}
    return found


def rows(pair: Pair, parts: Mapping[str, tuple[set[int], float]], name: str, light: NDArray | None) -> Iterator[dict]:
    """Figures of a method on every block of every part of the frame; without light those that the noise of the truth leaves."""
    gains = np.ones((len(pair.blocks), 1, 1, 1)) if light is None else pair.gains(light)
    for number, (block, gain) in enumerate(zip(pair.blocks, gains.astype(np.float32), strict=True)):
        if light is None:
            values = pair.recorded(block, pair.again)
            pixels = {truth: block.of_long(pair.again.demosaiced[truth], BORDER) for truth in TRUTHS}
        else:
            values = pair.at_sites(block, block.at_long(light) * gain)
            pixels = dict.fromkeys(TRUTHS, block.of_short(light, BORDER) * gain)
        by_exposure = {
            exposure: figures(pair, block, values, pixels, exposure)
            for exposure in {exposure for members, exposure in parts.values() if number in members}
        }
        for part, (members, exposure) in parts.items():
            if number in members:
                yield {"blocks": part, "method": name, "block": number} | by_exposure[exposure]


def parts_of(pair: Pair) -> dict[str, tuple[set[int], float]]:
    """Numbers of blocks, and how much brighter they are looked at."""
    green = [block.of_long(pair.truth.demosaiced[TRUTHS[0]])[1][block.usable] for block in pair.blocks]
    third = len(green) // 3
    dark = set(np.argsort([light.mean() for light in green])[:third].tolist())
    detailed = set(np.argsort([-srgb_encode(light).std() for light in green])[:third].tolist())
    elsewhere = {number for number in detailed if pair.blocks[number].from_even >= ELSEWHERE}
    return {"whole frame": (set(range(len(green))), 1.0), "third with most contrast": (detailed, 1.0),
            "of these, measured elsewhere": (elsewhere, 1.0), "darkest third, 2 EV brighter": (dark, LIFTED)}  # fmt: skip


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """A row per part of the frame and method."""
    lines = {}
    for part, of_part in found.groupby("blocks", sort=False):
        by_method = {name: rows.set_index("block") for name, rows in of_part.groupby("method", sort=False)}
        for name, own in by_method.items():
            told = {"sites, linear": f"{own['sites, linear'].mean():.2f}"}
            told["sites, sRGB"] = f"{own['sites, sRGB'].mean():.2f} ± {half_interval(own['sites, sRGB']):.2f}"
            told |= {f"{truth}, sRGB": f"{own[truth].mean():.2f} / {own[f'{truth}, SSIM'].mean():.4f}" for truth in TRUTHS}
            lead = by_method[OURS]["sites, sRGB"] - own["sites, sRGB"]
            told["ahead"] = "" if name in (OURS, NOISE) else f"{lead.mean():+.2f} ± {half_interval(lead):.2f}, {(lead > 0).mean():.0%}"
            lines[part, name] = told
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(["blocks", "method"])


def crops(pair: Pair, lights: Mapping[str, NDArray], folder: Path) -> None:
    """Of each of CROPS all methods and the aligned long exposure, twice as large, 2 EV brighter or until it is mid-grey."""
    for name, (top, left) in CROPS.items():
        nearest = min(pair.blocks, key=lambda block: np.hypot(block.top + BLOCK / 2 - top, block.left + BLOCK / 2 - left))
        whole = [round(part) for part in nearest.shift]
        tiles = [light[:, top : top + SIDE, left : left + SIDE] for light in lights.values()]
        tiles.append(pair.truth.demosaiced[TRUTHS[0]][:, top + whole[0] : top + whole[0] + SIDE, left + whole[1] : left + whole[1] + SIDE])
        exposure = min(LIFTED, MIDDLE / float(tiles[-1].mean()))
        shown = [render(tile, pair.to_srgb, exposure=exposure).repeat(ZOOM, 1).repeat(ZOOM, 2) for tile in tiles]
        gap = np.ones((3, ZOOM * SIDE, GAP), np.float32)
        picture = np.concatenate([part for tile in shown for part in (tile, gap)][:-1], axis=2)
        Image.fromarray(np.rint(picture.transpose(1, 2, 0) * 255).astype(np.uint8)).save(folder / f"{name.replace(' ', '_')}.png")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("short", type=Path)
    parser.add_argument("long", type=Path)
    parser.add_argument("--ratio", type=float, default=4.0, help="how much longer the long exposure is")
    parser.add_argument("--kept", type=Path, help="a folder where the light of each method lies or will lie, and for crops to look at")
    parser.add_argument("--csv", type=Path, help="the figures of every block as a file")
    options = parser.parse_args()
    short, long = ll.read_raw(options.short), ll.read_raw(options.long)
    pair = laid_over(short, long, options.ratio)
    shifts, misfits = np.array([block.shift for block in pair.blocks]), [block.misfit for block in pair.blocks]
    ratios = pair.brightness[:, 1].sum(1) / pair.brightness[:, 0].sum(1) * options.ratio
    print(f"{len(pair.blocks)} blocks; shifts {shifts.min(0).round(2)} to {shifts.max(0).round(2)} pixels, misfit {np.median(misfits):.1%} "
          f"(median), ratio {np.quantile(ratios, 0.05):.2f} to {np.quantile(ratios, 0.95):.2f} (90 % of blocks)")  # fmt: skip
    parts, lights, lines = parts_of(pair), {}, []
    for name, make in methods(short, options.ratio).items():
        lights[name] = kept(options.kept, name, make)
        lines += rows(pair, parts, name, lights[name])
    lines += rows(pair, parts, NOISE, None)
    found = pd.DataFrame(lines)
    show(summary(found.sort_values("blocks", key=lambda names: names.map(list(parts).index), kind="stable")))
    if options.csv:
        found.to_csv(options.csv, index=False)
    if options.kept:
        crops(pair, lights, options.kept)


if __name__ == "__main__":
    main()

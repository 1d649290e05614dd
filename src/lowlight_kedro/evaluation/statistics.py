"""What a set of scores tells: means with intervals by scene, strata, and differences between methods on the same frames.

Frames of one scene are no independent trials: the same lamps, the same textures. So intervals come from the bootstrap over
scenes (Efron and Tibshirani 1993, chapter 8), and a set with one scene has none.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

RESAMPLES = 2000
KEYS = ("protocol", "region", "scaling", "metric")  # what a number must share with another to be compared
STRATA = ("ratio", "iso", "light")
LIGHT_EDGES = (0.03, 0.12)  # mean of the long exposure, 1 = white: dark below the first, bright above the second


def light_stratum(mean: float) -> str:
    """`dark`, `medium` or `bright`, by the mean of the long exposure."""
    return ("dark", "medium", "bright")[int(np.searchsorted(LIGHT_EDGES, mean, side="right"))]


def interval(values: NDArray, scenes: Sequence[str], *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`, whole scenes drawn with replacement; (nan, nan) with one scene.

    Each draw's mean is over its frames, as the mean over a published set is.
    """
    frame = pd.DataFrame({"scene": list(scenes), "value": np.asarray(values, np.float64)}).groupby("scene")["value"].agg(["sum", "count"])
    if len(frame) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(frame), size=(RESAMPLES, len(frame)))
    means = frame["sum"].to_numpy()[drawn].sum(1) / frame["count"].to_numpy()[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _summary(scores: pd.DataFrame) -> dict[str, float]:
    low, high = interval(scores["value"].to_numpy(), scores["scene"].astype(str).tolist())
    return {
        "frames": scores["frame"].nunique(), "scenes": scores["scene"].nunique(), "mean": float(scores["value"].mean()),
        "low": low, "high": high, "least": float(scores["value"].min()),
    }  # fmt: skip


def _strata(scores: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """All of it, then each value of each stratum that has more than one."""
    yield "all", "all", scores
    for kind in STRATA:
        if scores[kind].nunique() > 1:
            for value, part in scores.groupby(kind, sort=True):
                yield kind, f"{value:g}" if isinstance(value, (int, float)) else str(value), part


def summarised(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean, 95 % interval by scene and least of each method, protocol, scaling and metric, over all and by stratum.

    Args:
        scores: a row for each number, with the columns KEYS, STRATA, method, frame, scene, value.
    """
    rows = []
    for stratum, value, part in _strata(scores[np.isfinite(scores["value"]) | np.isposinf(scores["value"])]):
        for keys, group in part.groupby([*KEYS, "method"], sort=False):
            rows.append(dict(zip([*KEYS, "method"], keys, strict=True)) | {"stratum": stratum, "of": value} | _summary(group))
    return pd.DataFrame(rows)


def differences(scores: pd.DataFrame, reference: str) -> pd.DataFrame:
    """How much each other method is above `reference` on the same frames: mean of paired differences, its interval, fraction of wins.

    Frames that only one of the two has do not count.

    Raises:
        ValueError: `reference` is no method of the scores.
    """
    methods = list(dict.fromkeys(scores["method"]))
    if reference not in methods:
        raise ValueError(f"the reference method must be one of {', '.join(methods)}, got {reference!r}")
    rows = []
    for keys, group in scores.groupby(list(KEYS), sort=False):
        table = group.pivot_table(index=["scene", "frame"], columns="method", values="value", aggfunc="first")
        for method in [name for name in methods if name != reference and name in table and reference in table]:
            gain = (table[method] - table[reference]).dropna()
            if gain.empty:
                continue
            low, high = interval(gain.to_numpy(), gain.index.get_level_values("scene").astype(str).tolist())
            rows.append(dict(zip(KEYS, keys, strict=True)) | {
                "method": method, "against": reference, "frames": len(gain), "difference": float(gain.mean()), "low": low, "high": high,
                "better": float((gain > 0).mean()), "least": float(gain.min()),
            })  # fmt: skip
    return pd.DataFrame(rows)

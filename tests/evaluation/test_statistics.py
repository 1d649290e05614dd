"""Intervals by scene, strata, paired differences."""

import numpy as np
import pandas as pd
import pytest

from lowlight_kedro.evaluation.statistics import differences, interval, light_stratum, summarised

KEYS = {"protocol": "sid_raw", "region": "full frame", "scaling": "plain", "metric": "psnr"}


def scores(values, method="ours", scenes=None, **changes):
    scenes = scenes or [f"s{number}" for number in range(len(values))]
    rows = [
        KEYS | {"method": method, "frame": f"f{number}", "scene": scene, "value": value, "ratio": 100.0, "iso": 1600.0, "light": "dark"}
        for number, (value, scene) in enumerate(zip(values, scenes, strict=True))
    ]
    return pd.DataFrame(rows).assign(**changes)


def test_the_interval_holds_the_true_mean_as_often_as_it_says(rng):
    """Twenty scenes of three frames, scene effects larger than those of frames; of 300 sets about 95 % (percentiles: a little fewer)."""
    scenes = [f"s{number}" for number in range(20) for _ in range(3)]
    held, narrow = 0, 0
    for _ in range(300):
        values = np.repeat(rng.normal(30, 2, 20), 3) + rng.normal(0, 0.5, 60)
        low, high = interval(values, scenes)
        held += low <= 30 <= high
        low, high = interval(values, [str(number) for number in range(60)])  # frames taken for independent
        narrow += low <= 30 <= high
    assert 0.88 < held / 300 < 0.98
    assert narrow / 300 < 0.82


def test_one_scene_has_a_mean_and_no_interval():
    row = summarised(scores([30.0, 32.0], scenes=["a", "a"])).iloc[0]
    assert (row["mean"], row["frames"], row["scenes"]) == (31.0, 2, 1)
    assert np.isnan([row["low"], row["high"]]).all()


def test_strata_are_means_of_their_own_frames():
    table = pd.concat([scores([30.0, 32.0]), scores([40.0, 44.0], ratio=300.0).assign(frame=["g0", "g1"])])
    found = summarised(table).set_index(["stratum", "of"])["mean"]
    assert found["all", "all"] == 36.5
    assert (found["ratio", "100"], found["ratio", "300"]) == (31.0, 42.0)
    assert "iso" not in found.index.get_level_values(0)  # of one value there are no strata
    assert [light_stratum(mean) for mean in (0.01, 0.05, 0.5)] == ["dark", "medium", "bright"]


def test_paired_differences_are_narrower_than_the_scores():
    """Scenes differ by 10 dB, the methods by 1.0 to 1.4 on each."""
    base = np.array([20.0, 25.0, 30.0, 35.0, 40.0])
    table = pd.concat([scores(base, "scaled"), scores(base + np.linspace(1.0, 1.4, 5))])
    found = differences(table, "scaled").iloc[0]
    assert found["difference"] == pytest.approx(1.2)
    assert 1.0 <= found["low"] < 1.2 < found["high"] <= 1.4
    assert (found["better"], found["frames"]) == (1.0, 5)
    assert differences(pd.concat([scores(base, "scaled"), scores(base[:2] + 1)]), "scaled").iloc[0]["frames"] == 2
    with pytest.raises(ValueError, match="must be one of ours, got 'bm3d'"):
        differences(scores(base), "bm3d")

"""The same pipelines on a real camera's raws: a handheld bracket of a Nikon D5000."""

from dataclasses import replace

import pandas as pd

from lowlight_kedro.datasets.decoding import read_frame
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.sensor.frame import crop


def test_the_bracket_goes_through_every_pipeline(empty_project, bracket):
    empty_project = replace(empty_project, tile_size=256)
    empty_project.configure()
    empty_project.raw.mkdir(parents=True)
    for name in ("sample1.dng", "sample2.dng"):  # a fifth of the frame
        write_dng(empty_project.raw / name, crop(read_frame(bracket / name), 900, 800, 1280, 2048))
    everything_trains = {"rule": "hash", "scenes": {"scene": "train"}}
    empty_project.run(
        preprocessing={"split": everything_trains, "tiles": {"stride": 256, "data_types": ["long"]}},
        validation={"on_content": "drop"},
        training={"total_kimg": 0.2},
        sensor={"noise": {"gain": 2e-4, "read_noise": 1e-3}},
        inference={"select": {"splits": ["train"]}, "crop": [300, 200, 512, 768]},
    )
    pairs = pd.read_csv(empty_project.data / "03_primary/pairs.csv")
    assert pairs[["short", "long"]].to_numpy().tolist() == [["sample2", "sample1"]]
    assert abs(pairs["exposure_ratio"][0] - 4) < 1e-3
    assert (pairs["verdict"][0], pairs["shift_y"][0], pairs["shift_x"][0]) == ("ok", 2, 4)
    assert abs(pairs["measured_ratio"][0] - 3.96) < 0.03
    index = pd.read_csv(empty_project.data / "03_primary/index.csv")
    assert (len(index), index["camera"].unique().tolist(), index["cfa"].unique().tolist()) == (
        5 * 8,
        ["NIKON D5000"],
        ["GBRG"],
    )
    assert (empty_project.data / "07_model_output/preview/sample2.png").stat().st_size > 10_000
    table = pd.read_csv(empty_project.data / "08_reporting/evaluation.csv")
    assert table["restored_psnr_linear"].between(10, 60).all()  # the prior is hardly trained: no claim of quality
    assert table["scaled_psnr_linear"][0] > 27  # laid over it; 17 dB as shot (benchmarks/pairs.py, whole frame)
    assert 0.5 < table["compared_fraction"][0] < 1

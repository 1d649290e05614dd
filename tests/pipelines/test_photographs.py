"""Tiles from photographs: clean light in camera colours, each tile under an exposure of its own."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError
from PIL import Image
from pydantic import ValidationError

from lowlight_kedro.datasets.photographs import PhotographFolderDataset
from lowlight_kedro.datasets.stacks import decode
from lowlight_kedro.pipelines.photographs import PhotographOptions, _cut_photograph, describe_photographs
from lowlight_kedro.sensor.render import block_means, camera_to_srgb, render, srgb_decode
from lowlight_kedro.sensor.simulate import clean_light, with_lateral_colour, with_points
from lowlight_kedro.sensor.tiles import from_tile_domain
from tests.pipelines.conftest import PARAMETERS

A7S = [0.5838, -0.1430, -0.0246, -0.3497, 1.1477, 0.2297, -0.0748, 0.1885, 0.5778]
OPTIONS = {
    "size": 32, "stride": 32, "shrink": {"old*": 2}, "exposures": [0.1, 1.0], "min_std": 1e-3, "lateral_colour": 0.0,
    "points": {"fraction": 0.0, "count": [3, 40], "fwhm": [1.0, 3.0], "peak": [0.01, 3.0]}, "cameras": {"A7S": A7S},
    "fractions": {"train": 1.0, "val": 0.0, "test": 0.0}, "splits": {"held_out": "test"}, "seed": 0,
}  # fmt: skip


def photograph(shape=(96, 128), seed=0, low=40, high=200):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(low, high, (shape[0] // 8, shape[1] // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


class Source:
    path = Path("somewhere.png")

    def __init__(self, pixels):
        self._pixels = pixels

    def __call__(self):
        return self._pixels


def cut(name="a", pixels=None, **changes):
    result = _cut_photograph(name, Source(photograph() if pixels is None else pixels), PhotographOptions(**OPTIONS | changes))
    stack = next(iter(result["tiles"].values()))
    return result["record"], from_tile_domain(decode(stack))


def test_clean_light_rendered_again_is_the_photograph():
    pixels = photograph(low=90, high=170)  # colours that the camera's gamut holds
    matrix = np.reshape(A7S, (3, 3))
    again = render(clean_light(pixels, 1, matrix), camera_to_srgb(matrix))
    assert np.abs(again.transpose(1, 2, 0) * 255 - pixels).max() < 0.05


def test_lateral_colour_moves_red_and_blue_and_leaves_green():
    """A fine grid of lines: what the corner's lines move by is what was asked for, what lies in the middle stays."""
    side, wave = 201, 24.0
    rows, columns = np.mgrid[:side, :side].astype(np.float64)
    grid = (0.5 + 0.2 * np.cos(2 * np.pi * rows / wave) * np.cos(2 * np.pi * columns / wave)).astype(np.float32)
    moved = with_lateral_colour(np.stack([grid] * 3), 1.5, -2.0)
    np.testing.assert_array_equal(moved[1], grid)
    centre = (side - 1) / 2
    for channel, pixels in ((0, 1.5), (2, -2.0)):
        scale = 1 + pixels / np.hypot(centre, centre)
        there = [(axis - centre) / scale + centre for axis in (rows, columns)]
        expected = 0.5 + 0.2 * np.cos(2 * np.pi * there[0] / wave) * np.cos(2 * np.pi * there[1] / wave)
        np.testing.assert_allclose(moved[channel][4:-4, 4:-4], expected[4:-4, 4:-4], atol=2e-4)


def test_points_add_the_light_of_gaussian_spots():
    rng = np.random.default_rng(0)
    dark = np.full((3, 400, 400), 0.01, np.float32)
    one = with_points(dark, 1, (2.0, 2.0), (0.5, 0.5), np.random.default_rng(3)) - dark
    sd = 2.0 / np.sqrt(8 * np.log(2))
    assert one[1].sum() == pytest.approx(0.5 * 2 * np.pi * sd**2, rel=0.01)
    assert 0.6 < one[0].sum() / one[1].sum() < 1.7
    many = with_points(dark, 200, (1.0, 3.0), (0.01, 3.0), rng)
    assert (many >= dark).all()
    assert len(np.unique(np.argwhere(many[1] > 0.02)[:, 0] // 40)) == 10  # everywhere


def test_some_tiles_have_points_and_half_of_the_photographs_lateral_colour():
    """What a tile without detail gains is the points; green of tiles without points is the photograph's own."""
    plain, _ = cut("a", np.full((96, 128, 3), 90, np.uint8), min_std=0.0)
    dotted, _ = cut("a", np.full((96, 128, 3), 90, np.uint8), min_std=0.0, points=OPTIONS["points"] | {"fraction": 0.5})
    spreads = np.array([tile["std"] for tile in dotted["tiles"]])
    assert len(plain["tiles"]) == len(dotted["tiles"]) == 12
    assert 2 <= (spreads > 5 * max(tile["std"] for tile in plain["tiles"]) / 4).sum() <= 10
    changed = 0
    for name in "abcdefgh":
        (_, before), (_, after) = (cut(name, lateral_colour=pixels, exposures=[1.0, 1.0]) for pixels in (0.0, 2.0))
        changed += not np.array_equal(before[:, 0], after[:, 0])
        np.testing.assert_array_equal(before[:, 1], after[:, 1])
    assert 0 < changed < 8


def test_grey_stays_grey_and_colours_pale_as_a_camera_sees_them():
    grey = np.full((8, 8, 3), 128, np.uint8)
    light = clean_light(grey, 1, np.asarray(A7S))
    np.testing.assert_allclose(light, srgb_decode(np.float32(128 / 255)), rtol=1e-5)
    red = clean_light(np.full((8, 8, 3), (200, 20, 20), np.uint8), 1, np.asarray(A7S))[:, 0, 0]
    assert 1.5 < red[0] / red[1] < 0.8 * srgb_decode(200 / 255) / srgb_decode(20 / 255)


def test_shrinking_averages_light_and_drops_the_rest():
    image = np.random.default_rng(0).random((3, 9, 11))
    small = block_means(image, 2)
    assert small.shape == (3, 4, 5)
    np.testing.assert_allclose(small[:, 1, 2], image[:, 2:4, 4:6].mean((1, 2)))
    np.testing.assert_allclose(small.mean(), image[:, :8, :10].mean())


def test_each_tile_has_an_exposure_of_its_own_within_the_range():
    light = clean_light(photograph(), 1, np.asarray(A7S))
    record, tiles = cut()
    factors = [
        tile.mean() / light[:, r["top"] : r["top"] + 32, r["left"] : r["left"] + 32].mean()
        for r, tile in zip(record["tiles"], tiles, strict=True)
    ]
    assert len(set(np.round(factors, 4))) == 12
    assert 0.1 <= min(factors) < 0.3
    assert 0.5 < max(factors) <= 1.0 + 1e-4
    for factor, r, tile in zip(factors, record["tiles"], tiles, strict=True):
        part = light[:, r["top"] : r["top"] + 32, r["left"] : r["left"] + 32]
        np.testing.assert_allclose(tile, part * factor, atol=2e-5)


def test_a_photograph_is_cut_alike_whatever_else_is_there_and_otherwise_under_another_name():
    assert np.array_equal(cut("a")[1], cut("a")[1])
    assert not np.array_equal(cut("a")[1], cut("b")[1])
    assert not np.array_equal(cut("a")[1], cut("a", seed=1)[1])


def test_patterns_shrink_hands_choose_the_split_and_blown_tiles_are_left_out():
    assert cut("old_film")[0]["shrink"] == 2
    assert cut("new")[0]["shrink"] == 1
    assert [cut(name)[0]["split"] for name in ("held_out", "other")] == ["test", "train"]
    blown = photograph()
    blown[:32, :32] = 255
    record, tiles = cut(pixels=blown)
    assert len(tiles) == len(record["tiles"]) == 11
    assert "a_r00_c00" not in {tile["tile_id"] for tile in record["tiles"]}


def test_without_a_single_tile_it_is_said():
    record = _cut_photograph("a", Source(np.full((96, 128, 3), 255, np.uint8)), PhotographOptions(**OPTIONS))["record"]
    with pytest.raises(ValueError, match=r"zero tiles: .*photographs\.min_std"):
        describe_photographs({"a": {"record": lambda: record}}, PhotographOptions(**OPTIONS))


def test_without_a_photograph_for_validation_it_is_said_how_to_name_one(caplog):
    for splits, told in (({}, '--params "photographs.splits={a: val}"'), ({"b": "val"}, "")):
        options = PhotographOptions(**OPTIONS | {"splits": splits})
        records = {name: _cut_photograph(name, Source(photograph()), options)["record"] for name in ("a", "b")}
        describe_photographs({name: {"record": partial(dict, record)} for name, record in records.items()}, options)
        assert told in caplog.text
        assert bool(caplog.text) == bool(told)
        caplog.clear()


def test_photographs_of_several_folders_do_not_share_their_tiles():
    files = [_cut_photograph(name, Source(photograph()), PhotographOptions(**OPTIONS))["tiles"] for name in ("a/b_c", "a_b/c", "a_b_c")]
    assert len({name for tiles in files for name in tiles}) == 3


@pytest.mark.parametrize("exposures", [[0.0, 1.0], [0.5, 0.2], [0.5, 1.5]])
def test_a_wrong_range_of_exposures_is_refused(exposures):
    with pytest.raises(ValidationError, match="exposures must be 0 < low <= high <= 1"):
        PhotographOptions(**OPTIONS | {"exposures": exposures})


def test_a_folder_without_pictures_is_told(tmp_path):
    with pytest.raises(DatasetError, match="holds no picture"):
        PhotographFolderDataset(filepath=str(tmp_path)).load()
    with pytest.raises(DatasetError, match="does not exist"):
        PhotographFolderDataset(filepath=str(tmp_path / "nowhere")).load()


def test_the_project_trains_on_photographs_and_lists_what_it_could_not_read(empty_project):
    folder = empty_project.data / "01_raw/photographs"
    folder.mkdir(parents=True)
    for number in range(4):
        Image.fromarray(photograph((128, 128), number)).save(folder / f"{number}.png")
    (folder / "torn.jpg").write_bytes(b"\xff\xd8 not a picture")
    sizes = {"photographs": {"size": 64, "stride": 64, "splits": {"0": "val", "1": "train", "2": "train", "3": "test"}}}
    empty_project.run("photographs", "validation", "training", **sizes)
    report = json.loads((empty_project.data / "08_reporting/preprocessing_report.json").read_text())
    assert report["photographs"] == {"test": ["3"], "train": ["1", "2"], "val": ["0"]}
    assert [skipped["file"] for skipped in report["skipped"]] == ["torn"]
    index = pd.read_csv(empty_project.data / "03_primary/index.csv")
    assert len(index) == report["tiles"] == 16
    history = empty_project.catalog().load("training_history")
    assert history["kimg"].iloc[-1] == PARAMETERS["training"]["total_kimg"]

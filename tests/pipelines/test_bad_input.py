"""Bad input gives one clear error, and what was there before stays."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kedro.io import DatasetError

from benchmarks.mutations import mutated, write_bases
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.edm_pt import EDMPTDataset
from lowlight_kedro.datasets.stacks import decode
from lowlight_kedro.pipelines.validation import ValidationError
from lowlight_kedro.sensor.cfa import BAYER_RGGB
from lowlight_kedro.sensor.tile_metadata import list_tiles
from tests.conftest import make_frame
from tests.pipelines.conftest import write_raws

SMALL = {"00001": BAYER_RGGB, "20001": BAYER_RGGB}


def report(project):
    return json.loads((project.data / "08_reporting/preprocessing_report.json").read_text())


def test_raws_that_cannot_be_read_are_skipped_and_listed(empty_project):
    write_raws(empty_project.raw, SMALL)
    whole = next((empty_project.raw / "Sony/long").glob("00001*")).read_bytes()
    bad = {"empty": b"", "text": b"this is no raw", "torn": whole[: len(whole) // 2]}
    for name, content in bad.items():
        (empty_project.raw / f"Sony/long/0000{len(name)}_01_10s_{name}.dng").write_bytes(content)
    empty_project.run("preprocessing")
    listed = {entry["file"].split("_")[-1]: entry["reason"] for entry in report(empty_project)["skipped"]}
    assert listed.keys() >= {"empty.dng", "text.dng"}
    assert "the file is empty" in listed["empty.dng"]
    assert "LibRaw cannot read it" in listed["text.dng"]


def test_only_unreadable_raws_stop_the_run(empty_project):
    folder = empty_project.raw / "Sony/long"
    folder.mkdir(parents=True)
    (folder / "00001_00_10s.ARW").write_bytes(b"no raw")
    with pytest.raises(ValueError, match=r"^(?!none of).*00001_00_10s\.ARW"):
        empty_project.run("preprocessing")


def test_a_missing_raw_folder_is_named_with_what_to_do(empty_project):
    with pytest.raises(DatasetError, match=r"raw folder .*raw does not exist; put files ending in \.arw"):
        empty_project.run("preprocessing")


def test_a_short_exposure_without_a_partner_is_listed(empty_project):
    write_raws(empty_project.raw, SMALL)
    (empty_project.raw / "Sony/long/20001_00_10s.dng").unlink()
    empty_project.run("preprocessing")
    (alone,) = report(empty_project)["unpaired"]
    assert alone["file"].endswith("20001_00_0.1s.dng")
    assert alone["reason"] == "no long exposure of scene Sony_20001"


def test_a_folder_of_damaged_raws_goes_through_and_each_refused_one_is_named(empty_project, tmp_path):
    """The same damages as `benchmarks/mutations.py`, through the whole pipeline: none stops the night, none is lost."""
    write_raws(empty_project.raw, SMALL)
    base = write_bases(tmp_path)[0]
    for number, (_, data) in enumerate(mutated(base.read_bytes(), 70, seed=0)):
        (empty_project.raw / f"Sony/long/{number:03d}_broken.dng").write_bytes(data)
    empty_project.run("preprocessing")
    told = report(empty_project)
    named = {Path(entry["file"]).name for entry in told["skipped"]}
    tiled = {Path(file["path"]).name for file in json.loads((empty_project.data / "03_primary/metadata.json").read_text())["files"]}
    damaged = {path.name for path in empty_project.raw.rglob("*_broken.dng")}
    assert len(damaged) == 70
    assert damaged <= named | tiled
    assert named & damaged
    assert all(entry["reason"] for entry in told["skipped"])
    assert not list(empty_project.data.rglob(".*"))  # no torn or temporary file is left


def test_zero_tiles_is_an_error(empty_project):
    write_raws(empty_project.raw, SMALL)
    project = replace(empty_project, tile_size=512)
    project.configure()
    with pytest.raises(ValueError, match=r"zero tiles: .*side of 128 is smaller than the tile size 512"):
        project.run("preprocessing")


def spoil(project, pixels):
    """Write `pixels` as the first clean training tile; returns its name."""
    metadata = json.loads((project.data / "03_primary/metadata.json").read_text())
    tile = next(t for t in list_tiles(metadata) if t["split"] == "train" and t["is_clean"])
    path = project.data / "03_primary/tiles" / tile["stack"]
    stack = decode(np.load(path)).astype(pixels.dtype)
    stack[tile["index"]] = pixels
    np.save(path, stack)
    return tile["tile_id"]


@pytest.mark.parametrize(("kind", "pixels"), [
    ("finite", np.full((3, 64, 64), np.nan, np.float32)), ("constant", np.zeros((3, 64, 64), np.float32)),
    ("range", np.full((3, 64, 64), 2, np.float32)),
])  # fmt: skip
def test_a_bad_tile_stops_the_run_before_training(project, kind, pixels):
    name = spoil(project, pixels)
    before = (project.data / "06_models/prior.safetensors").read_bytes()
    with pytest.raises(ValidationError, match=f"1 problems with the tiles.*\n  {name}: {kind}: "):
        project.run("validation", "training")
    assert (project.data / "06_models/prior.safetensors").read_bytes() == before
    saved = json.loads((project.data / "03_primary/validation_report.json").read_text())
    assert saved["problems"] == {kind: 1}


def test_dropping_constant_tiles_trains_without_them(project):
    name = spoil(project, np.zeros((3, 64, 64), np.float32))
    (project.data / "06_models/training_state.safetensors").unlink()
    project.run("validation", "training", validation={"on_content": "drop"})
    assert json.loads((project.data / "03_primary/validation_report.json").read_text())["dropped"] == [name]


def test_a_stack_of_another_type_stops_the_run(project):
    spoil(project, np.zeros((3, 64, 64)))
    with pytest.raises(ValidationError, match=r"1 problems.*\n  long/.*\.npy: dtype: dtype is float64, expected uint16 or float32"):
        project.run("validation")


def test_missing_and_extra_files_are_named(project):
    stacks = sorted((project.data / "03_primary/tiles/long").glob("*.npy"))
    stacks[0].rename(stacks[0].with_name("stranger.npy"))
    with pytest.raises(ValidationError, match=rf"2 problems.*\n  .*{stacks[0].stem}.*: missing: .*\n  long/stranger\.npy: extra"):
        project.run("validation")


def test_the_pt_layout_is_written_and_read_too(project):
    """Switching the storage removes the stacks that the same jobs wrote before."""
    project.run("preprocessing", "validation", preprocessing={"tiles": {"storage": "pt"}})
    written = {path.suffix for path in (project.data / "03_primary/tiles").rglob("*") if path.is_file()}
    assert written == {".pt"}
    tiles = EDMPTDataset(project.data / "03_primary/tiles", project.data / "03_primary/metadata.json", image_size=64)
    assert tiles[0][0].shape == (3, 64, 64)


def test_tiles_that_were_not_validated_are_not_trained_on(project):
    path = project.data / "03_primary/metadata.json"
    metadata = json.loads(path.read_text())
    metadata["files"] = [file for file in metadata["files"] if file["scene_id"] != "Sony_00001"]
    path.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=r"are not those that were validated .*run `kedro run --pipelines validation`"):
        project.run("training")


def test_a_training_state_of_another_network_is_refused_and_kept(project):
    path = project.data / "06_models/training_state.safetensors"
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"of another run: network: .*set training\.resume=false"):
        project.run("training", training={"network": {"options": {"pyramid_unet": {"widths": [16, 8]}}}})
    assert path.read_bytes() == before


def test_a_pickle_is_never_opened_as_a_checkpoint(project):
    class Hostile:
        def __reduce__(self):
            return (open, (str(project.data / "pwned"), "w"))

    (project.data / "06_models/prior.safetensors").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(DatasetError, match=r"prior\.safetensors: not a safetensors checkpoint"):
        project.run("inference")
    assert not (project.data / "pwned").exists()


@pytest.mark.parametrize(("parameters", "words"), [
    ({"guidance": {"name": "magic"}}, r"unknown guidance 'magic'; choose one of: ddrm, diffpir, dps, dps_norm, mmps, noise_map, pigdm"),
    ({"guidance": {"name": "diffpir"}}, r"estimate 'mean': guidance 'diffpir' does not know the posterior mean; set "),
    ({"select": {"splits": ["val"], "data_types": ["long"]}, "exposure_ratio": {"value": 1.0}, "crop": [0, 0, 500, 500]},
     r"no frame could be restored:\n  Sony/long/20001_00_10s: crop .* must lie inside the frame of 128 x 160"),
    ({"device": "cuda"}, r"device 'cuda' was asked for, but torch sees only: cpu"),
])  # fmt: skip
def test_impossible_inference_says_why(project, parameters, words):
    if "device" in parameters and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ValueError, match=words):
        project.run("inference", inference=parameters)


def test_an_unknown_camera_without_numbers_is_named(project):
    shutil.rmtree(project.raw)
    stranger = replace(make_frame(np.random.default_rng(0), exposure_s=0.1, light=0.0), camera="Acme One")
    write_dng(project.raw / "Sony/short/10001_00_0.1s.dng", stranger)
    with pytest.raises(ValueError, match=r"no noise table for camera 'Acme One'; known: .*ILCE-7SM2.*; image: .*sensor\.noise\.gain"):
        project.run("inference")
    project.run("inference", sensor={"noise": {"gain": 1e-4, "read_noise": 4e-4}})


def test_wrong_option_of_a_plugin_is_named(project):
    with pytest.raises(ValueError, match="guidance 'noise_map' has no option 'strenght'; its options: "):
        project.run("inference", inference={"guidance": {"options": {"noise_map": {"strenght": 2}}}})

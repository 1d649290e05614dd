"""What the command and the pipeline say of files that cannot be restored, and what they make of odd ones that can."""

import json
import os
import struct
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
import tifffile
from kedro.framework.session import KedroSession
from PIL import Image

from lowlight_kedro.command.arguments import main
from lowlight_kedro.datasets import dng
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.linear_dng import LinearPicture, write_linear_dng
from lowlight_kedro.datasets.metadata import Metadata, fractions, of_frame, text
from lowlight_kedro.datasets.tags import Entry
from lowlight_kedro.pipelines.inference import frames as inference_frames
from lowlight_kedro.pipelines.inference import nodes
from lowlight_kedro.pipelines.inference.options import InferenceOptions
from lowlight_kedro.pipelines.preprocessing.nodes import index_frames
from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions
from tests.conftest import ROOT, make_frame

STRANGER = "Acme One"


def dark(**changes):
    return replace(make_frame(np.random.default_rng(0), shape=(64, 64), exposure_s=0.1, light=0.6), **changes)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Good and bad files through one run: folder, exit status, how each ended, and what was printed."""
    here = tmp_path_factory.mktemp("night")
    frame = dark()
    write_dng(here / "good.dng", frame)
    write_dng(here / "no_exposure.dng", dark(exposure_s=float("nan"), iso=float("nan")))
    write_dng(here / "no_iso_stranger.dng", dark(exposure_s=float("nan"), iso=float("nan"), camera=STRANGER))
    write_dng(here / "no_black.dng", dark(black_level=np.zeros((2, 2), np.float32)))
    write_dng(here / "all_black.dng", dark(mosaic_dn=np.full((64, 64), 512, np.uint16)))
    write_dng(here / "all_white.dng", dark(mosaic_dn=np.full((64, 64), 16383, np.uint16)))
    write_linear_dng(here / "three_colours.dng", LinearPicture(np.full((3, 64, 64), 0.2, np.float32), frame, 1.0), headroom=8)
    with_bad_metadata(here / "torn.dng", frame)
    Image.new("RGB", (64, 64)).save(here / "finished.jpg")
    (here / "empty.arw").touch()
    monochrome(here / "grey.dng")
    named = [str(path) for path in here.iterdir()] + [str(here / "gone.arw")]
    with redirect_stdout(StringIO()) as told:
        status = main(["restore", *named, "--out", str(here / "out")])
    return here, status, json.loads((here / "out/details/last_run.json").read_text()), told.getvalue()


def with_bad_metadata(path, frame):
    """5 MB of maker notes, a latitude of 400 degrees, an XMP that is no XML, and a value that lies beyond the end of the file."""

    def told(*given):
        own = of_frame(*given)
        notes, lens = Entry(37500, 7, 5_000_000, bytes(5_000_000)), text(42036, "Sonnar T* 55mm")
        places = [text(1, "S"), fractions(2, [400, 0, 0], 100), text(3, "E"), fractions(4, [151, 12, 40], 100)]
        return Metadata(own.main, own.exif | {37500: notes, 42036: lens}, {entry.number: entry for entry in places}, b"<x:xmpmeta")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dng, "of_frame", told)
        write_dng(path, frame)
    held = bytearray(path.read_bytes())
    at = held.index(struct.pack("<HHI", 42036, 2, 15)) + 8
    held[at : at + 4] = struct.pack("<I", len(held) + 100)
    path.write_bytes(held)


def monochrome(path):
    """A DNG of a sensor without colour filters: PhotometricInterpretation 34892, one sample."""
    tags = [(50706, "B", 4, bytes((1, 4, 0, 0)), True), (50708, "s", 0, "Acme Grey", True), (50717, "H", 1, 16383, True)]
    pixels = np.random.default_rng(0).integers(10, 100, (64, 64), dtype=np.uint16)
    tifffile.imwrite(path, pixels, photometric="minisblack", extratags=tags, metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[262].overwrite(34892)


def record(night, name):
    return json.loads((night[0] / f"out/details/{name}_record.json").read_text())


def test_bad_files_do_not_stop_good_ones_and_the_status_tells(night):
    here, status, ended, _ = night
    assert status == 1
    assert {name for name, outcome in ended.items() if outcome["state"] == "done"} == {
        "good", "no_exposure", "no_iso_stranger", "no_black", "three_colours", "torn",
    }  # fmt: skip
    assert (here / "out/good_restored.jpg").is_file()
    assert not list((here / "out").rglob(".*"))


@pytest.mark.parametrize(("name", "words"), [
    ("all_black", "the frame holds no light above black; give inference.exposure_ratio.value"),
    ("all_white", "the frame is over-exposed"),
])  # fmt: skip
def test_what_cannot_be_restored_says_why(night, name, words):
    assert words in night[2][name]["error"]
    assert not (night[0] / f"out/{name}_restored.jpg").exists()


def test_files_that_are_no_raws_are_listed_with_the_reason(night):
    assert "grey.dng: it is monochrome or has more than three colours" in night[3]
    assert "finished.jpg: LibRaw cannot read it" in night[3]
    assert "gone.arw: there is no such file" in night[3]
    assert "empty.arw: the file is empty" in night[3]
    assert f"{night[0]}/out/good_restored.jpg" in night[3]


def test_torn_metadata_cost_only_themselves_and_are_told(night):
    here, _, _, said = night
    lost = record(night, "torn")["metadata_lost"]
    assert len(lost) == 4
    for words in ("maker notes", "latitude of its GPS position cannot be", "its XMP (it is no XML", "1 values that lie beyond the end"):
        assert any(words in what for what in lost)
        assert words.replace("its XMP (", "") in (here / "out/torn_restored.html").read_text()
    assert record(night, "torn")["notes"] == ["metadata partly lost"]
    assert "restored, metadata partly lost" in said
    assert record(night, "good")["metadata_lost"] == []


def test_a_linear_dng_is_restored_without_the_photosites_noise(night):
    """What tables tell of a camera's photosites does not hold for its finished pixels; there is no mosaic to be written."""
    assert not record(night, "three_colours")["noise_from"].startswith("table")
    assert record(night, "good")["noise_from"].startswith("table")
    assert any("three values a pixel" in reason for reason in record(night, "three_colours")["noise_not_from"])
    assert "denoised before" in record(night, "three_colours")["notes"]  # a file of ours says so
    assert "its noise was reduced before" in (night[0] / "out/three_colours_restored.html").read_text()
    assert "denoised before" not in record(night, "good")["notes"]


def test_without_exposure_tags_the_noise_is_found_elsewhere_and_said(night):
    assert record(night, "no_exposure")["noise_from"].startswith(("image", "assumption"))
    assert record(night, "no_iso_stranger")["noise_from"].startswith(("image", "assumption"))
    assert record(night, "no_exposure")["noise_not_from"]


@pytest.mark.parametrize(("arguments", "words"), [
    (["nothing_here.arw"], "there is no such file"), (["empty"], "holds no raw; raws end in .arw"),
])  # fmt: skip
def test_where_nothing_can_be_read_the_command_says_so(tmp_path, capfd, arguments, words):
    (tmp_path / "empty").mkdir()
    assert main(["restore", *(str(tmp_path / name) for name in arguments), "--out", str(tmp_path / "out")]) == 1
    assert words in capfd.readouterr().err


def test_a_folder_that_cannot_be_written_is_named_before_anything_runs(tmp_path, capfd):
    (tmp_path / "file").touch()
    assert main(["restore", "a.dng", "--out", str(tmp_path / "file" / "out")]) == 2
    assert f"cannot write to {tmp_path}/file/out: Not a directory; give another folder by --out" in capfd.readouterr().err


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(tmp_path, monkeypatch, capfd):
    for number in range(3):
        write_dng(tmp_path / f"raws/{number}.dng", dark())
    command, restore, done = ["restore", str(tmp_path / "raws"), "--out", str(tmp_path / "out")], inference_frames.restore_frame, []

    def restores_one(*given):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return restore(*given)

    monkeypatch.setattr(inference_frames, "restore_frame", restores_one)
    assert main(command) == 130
    told = capfd.readouterr()
    assert told.out.count("not started") == 2
    assert "finished files stay, the same command goes on" in told.err
    finished = tmp_path / "out/0_restored.dng"
    before = os.stat(finished).st_mtime_ns
    monkeypatch.undo()
    assert main(command) == 0
    assert os.stat(finished).st_mtime_ns == before
    assert len(list((tmp_path / "out").glob("*_restored.dng"))) == 3


@pytest.fixture
def filled(empty_project):
    for name in ("00001_00_10s", "00001_00_0.1s"):
        write_dng(empty_project.raw / f"{name}.dng", dark())
    return empty_project


def test_the_project_restores_named_files_whatever_their_split(filled):
    """`kedro run --pipelines inference --params inference.input=...`: here a long exposure of a training scene."""
    named = str(filled.raw / "00001_00_10s.dng")
    frames, _ = nodes_of(filled, named)
    assert list(frames["path"]) == [named]
    assert set(frames["split"]) == {"train"}
    with pytest.raises(ValueError, match=r"no frame to restore: of 2 raws none has .* widen inference\.select"):
        nodes_of(filled, None)


def nodes_of(project, named):
    """What the pipeline selects for `inference.input=named`."""
    parameters = {"inference": {"input": named}}
    with KedroSession.create(ROOT, env="test", conf_source=str(project.conf), runtime_params=parameters) as session:
        context = session.load_context()
        told = context.config_loader["parameters"]
        raws = context.catalog.load("inference_raws")
    frames, unreadable = index_frames(raws, {}, PreprocessingOptions.model_validate(told["preprocessing"]))
    return nodes.select_frames(frames, InferenceOptions.model_validate(told["inference"])), unreadable


def test_an_input_that_did_not_come_by_the_command_line_is_refused(filled):
    frames, _ = nodes_of(filled, str(filled.raw))
    elsewhere = InferenceOptions.model_construct(input="/somewhere/else")
    with pytest.raises(ValueError, match=r"give it on the command line: --params inference\.input="):
        nodes.select_frames(frames, elsewhere)

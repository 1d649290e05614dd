"""The command `lowlight`: from any folder, without a project, and from a wheel."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kedro.io import DatasetError

from lowlight_kedro.command.arguments import main, parser
from lowlight_kedro.command.restore import LONGEST_SHOWN, Workshop, table
from lowlight_kedro.datasets.decoding import read_frame
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.image import ImageDataset
from lowlight_kedro.datasets.raw import NamedRawsDataset, unique_names
from lowlight_kedro.datasets.restored import RestoredDataset
from lowlight_kedro.jobs import Job, Jobs, no_bars
from lowlight_kedro.sensor.calibration.single_image import image_estimate
from lowlight_kedro.sensor.demosaic import demosaic
from lowlight_kedro.sensor.demosaic.interpolation import malvar2004
from lowlight_kedro.sensor.frame import range_dn
from lowlight_kedro.sensor.noise_sources import ASSUMED, Assumed, Sources, choose_noise
from tests import forked
from tests.conftest import ROOT, SHARED, make_frame

OUTPUTS = {"_restored.jpg", "_restored.dng", "_restored.html"}  # and, for the page, details/NAME_before.jpg


def dark(seed=0, **changes):
    return replace(make_frame(np.random.default_rng(seed), shape=(64, 64), exposure_s=0.1, light=0.6), **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where somebody keeps raws, after `lowlight restore IMG_0001.dng night --out out`."""
    here, before = tmp_path_factory.mktemp("somebody") / "photos", Path.cwd()
    write_dng(here / "IMG_0001.dng", dark())
    write_dng(here / "night/IMG_0001.dng", dark(1))
    os.chdir(here)
    try:
        status = main(["restore", "IMG_0001.dng", "night", "--out", "out", "--ratio", "10"])
    finally:
        os.chdir(before)
    assert status == 0
    return here


@pytest.fixture
def photos(folder, tmp_path, monkeypatch):
    """The same, to be changed, and the current folder."""
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "photos"))
    return tmp_path / "photos"


def linear(path):
    return ImageDataset(filepath=str(path), bits=32).load()


def test_help_is_answered_before_anything_heavy_is_imported():
    told = (
        "import sys\ntry:\n main(['restore', '--help'])\nfinally:\n print(sorted({'torch', 'numpy', 'kedro', 'pandas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", f"from lowlight_kedro.command.arguments import main\n{told}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("[]")


SLOW = {"matplotlib", "scipy.interpolate", "scipy.ndimage", "scipy.optimize", "scipy.signal", "scipy.stats", "skimage", "torchmetrics"}


@pytest.mark.parametrize(
    ("asked", "slow"),
    [("sorted(pipelines)", {*SLOW, "torch", "pandas", "numpy", "scipy", "rawpy", "tifffile"}),
     ('pipelines["inference"].nodes', {*SLOW, "lowlight_kedro.pipelines.training.nodes"}), ("import lowlight_kedro.api", SLOW)],
)  # fmt: skip
def test_a_run_imports_what_its_pipelines_need_and_a_list_of_names_none_of_it(asked, slow):
    start = "from kedro.framework.project import configure_project, pipelines\nconfigure_project('lowlight_kedro')"
    told = f"import sys\n{start}\n{asked}\nprint(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("wrong", [
    [], ["restore"], ["restore", "a.dng", "--strength", "1.1"], ["restore", "a.dng", "--strength", "nan"],
    ["restore", "a.dng", "--workers", "0"], ["restore", "a.dng", "--ratio", "0"], ["restore", "a.dng", "--estimate", "median"],
])  # fmt: skip
def test_wrong_use_is_status_2(wrong):
    with pytest.raises(SystemExit) as left:
        main(wrong)
    assert left.value.code == 2


def test_two_raws_of_one_name_get_names_of_their_own(folder):
    made = {path.name for path in (folder / "out").iterdir() if path.is_file()}
    first, second = "photos_IMG_0001_dng", "night_IMG_0001_dng"
    assert made == {name + suffix for name in (first, second) for suffix in OUTPUTS} | {"restored.html"}
    record = json.loads((folder / f"out/details/{second}_record.json").read_text())
    assert record["exposure_ratio"] == 10
    assert record["noise_from"] == "table ILCE-7SM2 at ISO 1600"
    assert record["guidance"] == "noise_map"
    assert not list(folder.rglob(".*"))


def test_finished_files_are_kept_and_others_of_that_name_not_replaced(photos, capfd):
    def state():
        return {path: path.stat().st_mtime_ns for path in (photos / "out").rglob("*_restored.*")}

    before = state()
    same = ["restore", "IMG_0001.dng", "night", "--out", "out", "--ratio"]
    assert main([*same, "10"]) == 0
    assert len(re.findall(r"  kept\b", capfd.readouterr().out)) == 2
    assert main([*same, "20"]) == 1
    assert "restored before with other settings" in capfd.readouterr().out
    assert state() == before
    assert main([*same, "10"]) == 0  # the refusal left the records alone
    assert main([*same, "20", "--overwrite"]) == 0
    assert all(then != before[path] for path, then in state().items())


def test_the_index_lists_all_that_lies_there(photos):
    (photos / "out/night_IMG_0001_dng_restored.html").unlink()  # somebody took the picture away
    assert main(["restore", "IMG_0001.dng", "--out", "out", "--ratio", "10"]) == 0
    index = (photos / "out/restored.html").read_text()
    assert [name for name in ("IMG_0001", "photos_IMG_0001_dng", "night_IMG_0001_dng") if f'"{name}_restored.html"' in index] == [
        "IMG_0001", "photos_IMG_0001_dng",
    ]  # fmt: skip


def test_a_file_that_is_not_ours_is_not_replaced(photos, capfd):
    strangers = [photos / "elsewhere" / name for name in ("IMG_0001_restored.jpg", "index.html")]
    strangers[0].parent.mkdir()
    for stranger in strangers:
        stranger.write_text("a week of work")
    assert main(["restore", "IMG_0001.dng", "--out", "elsewhere"]) == 1
    assert [stranger.read_text() for stranger in strangers] == ["a week of work"] * 2
    assert "lowlight:" not in capfd.readouterr().err  # the run went to its end
    assert "IMG_0001_restored.jpg is there and not from here" in (photos / "elsewhere/restored.html").read_text()


def test_a_file_where_a_folder_belongs_no_calibrations_and_no_prior_are_told_at_once(photos, capsys):
    (photos / "full").mkdir()
    (photos / "full/details").touch()
    for wrong, reason in (
        (["--out", "full"], "cannot write to"),
        (["--calibrations", "night"], "holds no calibration"),
        (["--prior", "my.safetensors"], "no such file; --prior takes"),
    ):
        assert main(["restore", "IMG_0001.dng", *wrong]) == 2
        assert reason in capsys.readouterr().err


def test_a_prior_of_ones_own_takes_the_place_of_the_packages(photos):
    def prior(*options):
        return (
            Workshop(parser().parse_args(["restore", "IMG_0001.dng", *options]), photos / "out").files.get("prior")._describe()["filepath"]
        )

    assert prior() == str(ROOT / "src/lowlight_kedro/priors/photographs.safetensors")
    assert prior("--prior", "mine.safetensors") == str(photos / "mine.safetensors")


def test_strength_is_a_blend_in_linear_light_from_the_scaled_input(photos):
    light, std = {}, {}
    for strength in (0, 0.25, 1):
        told = ["--ratio", "10", "--strength", str(strength), "--files", "linear,std", "--out", f"s{strength}"]
        assert main(["restore", "IMG_0001.dng", *told]) == 0
        light[strength], std[strength] = linear(f"s{strength}/IMG_0001_linear.tif"), linear(f"s{strength}/details/IMG_0001_std.tif")
    from lowlight_kedro.datasets.raw import RawFile

    scaled = demosaic(RawFile(photos / "IMG_0001.dng")(), malvar2004) * 10
    inside = (scaled > 0) & (scaled < 1) & (light[1] > 0) & (light[1] < 1)
    assert np.abs(light[0] - scaled)[inside].max() < 1e-5 + 0.5 / 65535
    assert np.abs(light[1] - scaled)[inside].mean() > 2e-3
    assert np.abs(light[0.25] - (0.25 * light[1] + 0.75 * light[0]))[inside].max() < 2 / 65535
    for strength in (0, 0.25):  # what is kept of the noise makes it less certain
        noise = (1 - strength) * (scaled - light[1])
        assert np.abs(std[strength] - np.hypot(std[1], noise))[inside].max() < 2 / 65535


def test_files_that_are_asked_for_later_are_added_and_the_others_stay(photos, capfd):
    def made():
        return {path.name for path in (photos / "some").rglob("IMG_0001_*")}

    same = ["restore", "IMG_0001.dng", "--ratio", "10", "--out", "some", "--files"]
    assert main([*same, "jpeg,linear", "--preview", "33"]) == 0
    assert made() == {"IMG_0001_restored.jpg", "IMG_0001_linear.tif", "IMG_0001_record.json"}
    assert max(ImageDataset(filepath="some/IMG_0001_restored.jpg").load().shape) == 33
    assert main([*same, "std", "--preview", "33"]) == 0
    assert main([*same, "std,linear", "--preview", "33"]) == 0
    assert "kept" in capfd.readouterr().out
    assert made() == {"IMG_0001_restored.jpg", "IMG_0001_linear.tif", "IMG_0001_std.tif", "IMG_0001_record.json"}
    assert main([*same, "dng", "--ratio", "20", "--overwrite"]) == 0  # what is left of other settings would mislead
    assert made() == {"IMG_0001_restored.dng", "IMG_0001_record.json"}


def test_a_part_of_a_frame_has_the_brightness_and_the_noise_of_the_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = make_frame(np.random.default_rng(0), shape=(96, 128), exposure_s=0.1, light=0.6)
    frame.mosaic_dn[:, :64] //= 4
    frame.mosaic_dn[:, :64] += 3 * int(frame.black_level.mean()) // 4  # a quarter of the light
    write_dng(Path("half.dng"), frame)
    for out, options in (("whole", []), ("part", ["--crop", "16", "0", "64", "48"])):
        assert main(["restore", "half.dng", "--out", out, "--files", "linear", *options]) == 0
    whole, part = (json.loads((tmp_path / out / "details/half_record.json").read_text()) for out in ("whole", "part"))
    assert part["exposure_ratio"] == whole["exposure_ratio"]
    assert part["noise"] == whole["noise"]
    assert linear(tmp_path / "part/half_linear.tif").shape[-2:] == (64, 48)


def test_without_room_for_all_nothing_begins(photos, capfd, monkeypatch):
    monkeypatch.setattr("lowlight_kedro.datasets.restored.free_bytes", lambda folder: 10_000)
    assert main(["restore", "IMG_0001.dng", "--out", "full", "--files", "linear,std"]) == 1
    told = capfd.readouterr().err
    assert "1 frames need up to" in told
    assert "for linear, std, and" in told
    assert not list((photos / "full").rglob("IMG_0001_*"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--strenght", "0.5"], "unknown option --strenght; did you mean --strength?"),
        (["--nothing-like-it"], "unknown option --nothing-like-it\n"),
        (["--ratio", "abc"], "must be a number, got 'abc'"),
        (["--workers", "1.5"], "must be a whole number, got '1.5'"),
        (["--crop", "0", "-8", "64", "64"], "must be at least 0, got -8"),
    ],
)
def test_a_wrong_option_is_told_with_what_may_have_been_meant(options, reason, capsys):
    with pytest.raises(SystemExit):
        main(["restore", "a.dng", *options])
    told = capsys.readouterr().err
    assert reason in told
    assert "usage: lowlight restore" in told


@pytest.mark.parametrize(("asked", "reason"), [("jpg", "got jpg"), (",", "got none"), ("dng,png", "choose some of dng, jpeg, page")])
def test_unknown_files_are_told_with_those_there_are(asked, reason, capsys):
    with pytest.raises(SystemExit):
        main(["restore", "a.dng", "--files", asked])
    assert reason in capsys.readouterr().err


def test_where_stderr_is_no_terminal_there_are_lines_and_no_bars(photos):
    command = ["lowlight_kedro.command.arguments", "restore", "IMG_0001.dng", "--out", "plain", "--files", "jpeg"]
    process = forked.start(photos / "told", *command, folder=photos)
    process.join(200)
    told = (photos / "told").read_text()
    assert process.exitcode == 0, told
    assert not [mark for mark in ("\x1b", "\r", "%|") if mark in told]
    assert [line for line in told.splitlines() if line.startswith("IMG_0001: x")]


def test_no_bars_on_a_terminal_that_cannot_move_its_cursor(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for term, expected in (("dumb", True), ("xterm", False)):
        monkeypatch.setenv("TERM", term)
        assert no_bars() is expected


def test_verbose_shows_where_an_error_arose(photos, capfd):
    write_dng(photos / "blown.dng", dark(mosaic_dn=np.full((64, 64), 16383, np.uint16)))
    assert main(["restore", "blown.dng", "--out", "loud", "--verbose", "--files", "jpeg"]) == 1
    told = capfd.readouterr().err
    assert "blown: failed: the frame is over-exposed" in told
    assert "Traceback" in told
    assert "in saturated_fraction" in told


def test_draws_say_how_long_they_take(photos, capfd):
    assert main(["restore", "IMG_0001.dng", "--out", "draws", "--estimate", "sample", "--files", "jpeg"]) == 0
    assert "estimate sample: the network is evaluated up to 40 times for a frame, here at most about" in capfd.readouterr().err


def test_records_are_json_that_any_program_reads(photos):
    def refused(constant):
        raise AssertionError(f"{constant} is no JSON")

    write_dng(photos / "bare.dng", dark(exposure_s=np.nan, iso=np.nan))
    assert main(["restore", "bare.dng", "--out", "bare", "--files", "page"]) == 0
    record = json.loads((photos / "bare/details/bare_record.json").read_text(), parse_constant=refused)
    assert (record["iso"], record["exposure_s"]) == (None, None)


def test_a_long_name_is_cut_and_still_its_own(tmp_path):
    names = ["n" * 250 + ending for ending in ("a", "b")]
    named = unique_names([(name, tmp_path / f"{ending}.dng") for name, ending in zip(names, "ab", strict=True)])
    assert [len(name) for name in named] == [200, 200]
    assert (
        max(len(name.encode()) for name in unique_names([("é" * 150, tmp_path / "c.dng"), ("d/" + "é" * 150, tmp_path / "d.dng")])) <= 203
    )


@pytest.mark.skipif(not (SHARED / "raw_faults").is_dir(), reason="no raw_faults folder in LOWLIGHT_TEST_DATA")
def test_the_table_shows_the_end_of_a_long_name():
    shown = table([("x" * 190 + "_0042", "restored", "x1", "3.0", "/out/a.jpg")]).splitlines()[1]
    assert shown.split()[0] == "..." + "x" * (LONGEST_SHOWN - 8) + "_0042"


def test_a_frame_without_noise_to_measure_falls_back_to_the_assumed_sensor():
    frame = read_frame(SHARED / "raw_faults/Kodak_DC120_P003913.KDC")
    sources = Sources(own={"image": lambda: image_estimate(frame)}, assumed=Assumed(gain=3e-5, read_noise=2e-4, slope=0.6, iso=800))
    values, source, passed_over = choose_noise(frame.camera, frame.iso, range_dn(frame), sources)
    assert source == ASSUMED
    assert values["gain"] > 0
    assert [reason for reason in passed_over if "it cannot be measured (its brightest blocks do not vary" in reason]


def test_names_are_unique_whatever_the_files_are_called(tmp_path):
    files = ["a/x.arw", "a/x.dng", "b/X.ARW", "c/y.dng", "c/z.dng"]
    named = unique_names([(Path(file).stem, tmp_path / file) for file in [*files, "c/y.dng"]])
    assert sorted(named.values()) == sorted(tmp_path / file for file in files)
    assert len({name.casefold() for name in named}) == len(files)
    assert {"y", "z"} <= named.keys()
    with pytest.raises(DatasetError, match="would have one name, s_r_dng"):
        unique_names([("s_r_dng", tmp_path / "1.dng"), ("r", tmp_path / "s/r.dng"), ("R", tmp_path / "t/r.dng")])


def test_folders_give_their_raws_but_no_results_of_earlier_runs(tmp_path):
    for name in ("b/two.ARW", "c/three.NRW", "one.dng", "one_restored.dng", ".hidden.dng", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(NamedRawsDataset(named=str(tmp_path), skip=["*_restored.dng"]).load()) == ["b/two", "c/three", "one"]
    with pytest.raises(DatasetError, match=r"holds no raw; raws end in \.arw"):
        NamedRawsDataset(named=str(tmp_path / "b"), suffixes=[".arw"], skip=["*.arw"]).load()


def one_job(tmp_path, overwrite=False):
    part = {"dataset": "lowlight_kedro.datasets.atomic.AtomicJSONDataset", "filename_suffix": ".json"}
    parts = {name: {"path": str(tmp_path / name), **part} for name in ("first", "second", "record")}
    return RestoredDataset(parts=parts, outcomes=str(tmp_path / "last.json"), overwrite=overwrite)


def test_what_ctrl_c_left_half_written_is_done_again(tmp_path):
    class Stops(dict):
        def items(self):
            raise KeyboardInterrupt

    told = {"exposure_ratio": 1.0, "ratio_from": "here", "noise_from": "there", "seconds": 0.0}
    contents = [{"first": 1, "second": Stops(a=1), "record": told}, {"first": 1, "second": 2, "unlisted": 3, "record": told}]
    jobs = [Jobs([Job("frame", "restoration", lambda shared, content=content: content, [], 0)]) for content in contents]
    dataset = one_job(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        dataset.save(jobs[0])
    assert (tmp_path / "first/frame.json").exists()
    assert not (tmp_path / "second/frame.json").exists()
    assert json.loads((tmp_path / "last.json").read_text()) == {"frame": {"state": "not started", "error": None}}
    dataset.save(jobs[1])
    assert json.loads((tmp_path / "last.json").read_text())["frame"]["state"] == "done"
    assert (tmp_path / "second/frame.json").exists()


def test_an_assumed_sensor_gets_noisier_with_its_iso_and_its_rounding():
    sensor = Assumed(gain=3e-5, read_noise=2e-4, slope=0.6, iso=800)
    low, high = sensor.at(100, 1e6), sensor.at(1600, 1e6)
    assert high["gain"] == pytest.approx(16 * low["gain"])
    assert high["read_noise"] == pytest.approx(16**0.6 * low["read_noise"], rel=1e-4)
    assert sensor.at(float("nan"), 1e6) == sensor.at(800, 1e6)
    assert sensor.at(100, 10.0)["read_noise"] == pytest.approx(0.1 / np.sqrt(12), rel=1e-4)


def test_a_wheel_holds_all_and_works_in_another_folder(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(ROOT / "conf", source / "conf")
    (source / "conf/local/credentials.yml").write_text("secret: 1")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "wheel")]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    inside = tmp_path / "site/lowlight_kedro"
    private = {ROOT / "conf/local" / name for name in os.listdir(ROOT / "conf/local")}
    wanted = {path.relative_to(ROOT) for path in (ROOT / "conf").rglob("*.yml") if path not in private}
    assert {path.relative_to(inside) for path in (inside / "conf").rglob("*.yml")} == wanted
    assert (inside / "priors/photographs.safetensors").is_file()
    (entry,) = (tmp_path / "site").glob("*.dist-info/entry_points.txt")
    assert "lowlight = lowlight_kedro.command.arguments:main" in entry.read_text()
    write_dng(tmp_path / "IMG_0001.dng", dark())
    done = subprocess.run(
        [sys.executable, "-m", "lowlight_kedro.command.arguments", "restore", "IMG_0001.dng"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "restored").glob("*.*")} == {"IMG_0001" + suffix for suffix in OUTPUTS} | {"restored.html"}
    assert "INFO" not in done.stderr
    run = subprocess.run(  # by its own configuration: there is no conf/ here
        [sys.executable, "-m", "lowlight_kedro", "--env", "photographs", "--pipelines", "validation"], cwd=tmp_path, capture_output=True,
        text=True, env=os.environ | {"PYTHONPATH": str(tmp_path / "site")}, check=False,
    )  # fmt: skip
    wanted_first = "there is no data/photographs/03_primary/metadata.json; run `kedro run --env photographs --pipelines photographs` first"
    assert (run.returncode, wanted_first in run.stderr.replace("\n", " ").replace(str(tmp_path) + "/", "")) == (1, True), run.stderr


def test_raws_are_listed_before_what_takes_long_to_import(tmp_path):
    code = (
        "import sys\n"
        "from lowlight_kedro.command.arguments import main\n"
        "assert main(['restore', 'none.dng', '--out', sys.argv[1]]) == 1\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "no such file" in done.stderr
    assert done.stdout.endswith("False\n")


def test_who_reads_only_the_first_line_sees_no_traceback():
    """`lowlight doctor | head -1`."""
    command = [sys.executable, "-m", "lowlight_kedro.command.arguments", "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("lowlight")
        process.stdout.close()
        assert process.stderr.read() == ""

"""Raw editors show our linear DNG like the raw it was restored from; run where they are installed."""

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from lowlight_kedro.datasets.decoding import read_frame
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.image import ImageDataset, Picture
from lowlight_kedro.datasets.linear_dng import LinearPicture, write_linear_dng
from lowlight_kedro.datasets.metadata import of_restored
from lowlight_kedro.datasets.mosaic_dng import write_mosaic_dng
from lowlight_kedro.sensor.cfa import XTRANS, sample
from lowlight_kedro.sensor.demosaic import DEMOSAICERS
from lowlight_kedro.sensor.frame import balanced, normalise
from tests.conftest import SHARED, make_frame

NEUTRAL = """[Version]
AppVersion=5.9
[Exposure]
Auto=false
Clip=0
Compensation=0
HistogramMatching=false
[White Balance]
Enabled=true
Setting=Camera
[Color Management]
InputProfile=(cameraICC)
ToneCurve=false
ApplyBaselineExposureOffset=false
WorkingProfile=ProPhoto
OutputProfile=RTv4_sRGB
"""


def rawtherapee(raw, folder):
    (folder / "neutral.pp3").write_text(NEUTRAL)
    result = folder / f"{raw.stem}.tif"
    command = ["rawtherapee-cli", "-q", "-Y", "-t", "-b16", "-o", str(result), "-p", str(folder / "neutral.pp3"), "-c", str(raw)]
    subprocess.run(command, check=True, capture_output=True)
    return tifffile.imread(result)[..., :3].astype(float) / 65535


def darktable(raw, folder):
    result = folder / f"{raw.stem}_darktable.tif"  # it writes over nothing
    command = [
        "darktable-cli",
        str(raw),
        str(result),
        "--core",
        "--conf",
        "plugins/imageio/format/tiff/bpp=16",
        "--conf",
        "plugins/darkroom/workflow=none",  # 4.2 switches filmic rgb on by itself for mosaics, and not for linear files
        "--configdir",
        str(folder / "darktable"),
        "--library",
        ":memory:",
    ]
    subprocess.run(command, check=True, capture_output=True)
    developed = tifffile.imread(result)[..., :3]
    return developed.astype(float) / np.iinfo(developed.dtype).max


def demosaiced(raw, ratio=1.0):
    """A raw's light, `ratio` times as bright."""
    frame = read_frame(raw)
    demosaicer = DEMOSAICERS["lmmse" if frame.cfa == XTRANS else "malvar2004"]
    light = demosaicer(balanced(normalise(frame), frame.cfa, frame.white_balance), frame.cfa)
    return LinearPicture(ratio * light, frame, ratio, raw)


def linear_of(raw, folder):
    """Its linear DNG; a negative value in it is what once raised the black level of the whole file."""
    picture = demosaiced(raw)
    picture.light[:, 100, 100] = -0.05
    write_linear_dng(folder / f"{raw.stem}_linear.dng", picture, headroom=8.0)
    return folder / f"{raw.stem}_linear.dng"


def mosaic_of(raw, folder):
    """Its mosaic DNG, restored to eight times the brightness."""
    write_mosaic_dng(folder / f"{raw.stem}_cfa.dng", demosaiced(raw, 8.0))
    return folder / f"{raw.stem}_cfa.dng"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("editors")


def made_up(folder, orientation):
    """A mosaic of smooth colours with a dark corner, its negative noise too."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:256, :384] / 256
    light = np.stack([0.02 + 0.25 * rows, 0.02 + 0.3 * rows * columns, 0.02 + 0.15 * columns])
    frame = make_frame(rng, shape=(256, 384))
    black, white = float(frame.black_level.mean()), frame.white_level
    signal = sample(light / np.reshape(frame.white_balance, (3, 1, 1)), frame.cfa) + rng.normal(0, 1e-4, (256, 384))
    dn = np.clip(np.rint(black + (white - black) * signal), 0, white).astype(np.uint16)
    frame = replace(frame, mosaic_dn=dn, black_level=np.full_like(frame.black_level, black), orientation=orientation)
    write_dng(folder / f"mosaic{orientation}.dng", frame)
    return folder / f"mosaic{orientation}.dng"


def real(name):
    if not (SHARED / name).is_file():
        pytest.skip(f"no {name} in LOWLIGHT_TEST_DATA")
    return SHARED / name


CANON = "raw_faults/Canon_PowerShot_S40_CRW_0117.CRW"
# Orientations of a made-up file, and a real one of 4 megapixels; benchmarks/editors.py takes larger ones.
EDITORS = {"rawtherapee-cli": (rawtherapee, [*range(8), CANON]), "darktable-cli": (darktable, [0, 6])}


@pytest.mark.parametrize(("program", "file"), [(program, file) for program, (_, files) in EDITORS.items() for file in files])
def test_shadows_medians_and_lights_are_those_of_the_raw(folder, program, file):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    raw = made_up(folder, file) if isinstance(file, int) else real(file)
    there, here = (EDITORS[program][0](path, folder) for path in (raw, linear_of(raw, folder)))
    assert np.abs(np.subtract(here.shape, there.shape)).max() <= 16  # upright, but for the editors' own borders
    fractions = [np.percentile(picture[20:-20, 20:-20], (10, 50, 90), axis=(0, 1)) for picture in (there, here)]
    assert fractions[0][1].min() > 0.05
    np.testing.assert_allclose(fractions[1], fractions[0], rtol=0.02, atol=0.002)


@pytest.mark.parametrize(("program", "develop"), [(program, develop) for program, (develop, _) in EDITORS.items()])
def test_the_mosaic_is_shown_like_the_raw(folder, program, develop):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    raw = made_up(folder, 6)
    there, here = (np.median(develop(path, folder)[20:-20, 20:-20], axis=(0, 1)) for path in (raw, mosaic_of(raw, folder)))
    np.testing.assert_allclose(here, there, rtol=0.01)


@pytest.mark.parametrize("file", [0, CANON, "raw_kodak/RAW_KODAK_DC50.KDC"])
def test_exiftool_finds_nothing_wrong(folder, file):
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    raw = made_up(folder, file) if isinstance(file, int) else real(file)
    light = Picture(np.full((3, 64, 64), 0.3, np.float32), of_restored(raw, read_frame(raw), 1.0).upright())
    ImageDataset(filepath=str(folder / "a.jpg"), profile="srgb").save(light)
    for written in (linear_of(raw, folder), folder / "a.jpg"):
        told = subprocess.run(["exiftool", "-validate", "-warning", "-a", "-s", str(written)], check=True, capture_output=True, text=True)
        assert "Validate" in told.stdout
        assert written.suffix == ".jpg" or told.stdout.split() == ["Validate", ":", "OK"]
        assert [line for line in told.stdout.splitlines() if "Warning  " in line and "[minor]" not in line] == []

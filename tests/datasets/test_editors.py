"""Raw editors show our linear DNG like the raw it was restored from; run where they are installed."""

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.linear_dng import LinearPicture, write_linear_dng
from lowlight_kedro.sensor.cfa import sample
from lowlight_kedro.sensor.demosaic import DEMOSAICERS
from lowlight_kedro.sensor.frame import balanced, normalise
from tests.conftest import make_frame

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
    command = ["darktable-cli", str(raw), str(result), "--core", "--configdir", str(folder / "darktable"), "--library", ":memory:"]
    subprocess.run(command, check=True, capture_output=True)
    developed = tifffile.imread(result)[..., :3]
    return developed.astype(float) / np.iinfo(developed.dtype).max


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A mosaic of smooth colours with a dark corner, its negative noise too, and the linear DNG of its light."""
    folder, rng = tmp_path_factory.mktemp("editors"), np.random.default_rng(0)
    rows, columns = np.mgrid[:256, :384] / 256
    light = np.stack([0.02 + 0.25 * rows, 0.02 + 0.3 * rows * columns, 0.02 + 0.15 * columns])
    frame = make_frame(rng, shape=(256, 384))
    black, white = float(frame.black_level.mean()), frame.white_level
    signal = sample(light / np.reshape(frame.white_balance, (3, 1, 1)), frame.cfa) + rng.normal(0, 1e-4, (256, 384))
    dn = np.clip(np.rint(black + (white - black) * signal), 0, white).astype(np.uint16)
    frame = replace(frame, mosaic_dn=dn, black_level=np.full_like(frame.black_level, black), orientation=0)
    write_dng(folder / "mosaic.dng", frame)
    demosaiced = DEMOSAICERS["malvar2004"](balanced(normalise(frame), frame.cfa, frame.white_balance), frame.cfa)
    demosaiced[:, 100, 100] = -0.05  # what once raised the black level of the whole file
    write_linear_dng(folder / "linear.dng", LinearPicture(demosaiced, frame, 1.0, folder / "mosaic.dng"), headroom=8.0)
    return folder


@pytest.mark.parametrize(("program", "develop"), [("rawtherapee-cli", rawtherapee), ("darktable-cli", darktable)])
def test_medians_are_those_of_the_raw(files, program, develop):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    mosaic, linear = (develop(files / f"{name}.dng", files) for name in ("mosaic", "linear"))
    there, here = (np.median(picture[20:-20, 20:-20], axis=(0, 1)) for picture in (mosaic, linear))
    assert there.min() > 0.05
    np.testing.assert_allclose(here, there, rtol=0.02)


def test_exiftool_finds_nothing_wrong(files):
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    told = subprocess.run(
        ["exiftool", "-validate", "-warning", "-a", str(files / "linear.dng")], check=True, capture_output=True, text=True
    )
    assert not [line for line in told.stdout.splitlines() if line.startswith("Warning") and "A100DataOffset" not in line]

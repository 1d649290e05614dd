import hashlib

import numpy as np
import pytest
from kedro.io import DatasetError

from lowlight_kedro.datasets.decoding import RawReadError, read_frame
from lowlight_kedro.datasets.demo import DemoRawsDataset
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.raw import RawFile, RawFolderDataset
from lowlight_kedro.sensor.frame import normalise
from lowlight_kedro.sensor.noise import CameraNoise
from lowlight_kedro.sensor.noise_sources import noise_in_dn, normalised
from tests.conftest import CFAS, SHARED, make_frame

TABLE = {"A7": {"iso": [100, 1600], "gain_dn": [0.1, 1.6], "read_noise_dn": [1.0, 6.0], "row_noise_dn": [0.1, 1.0], "tail": [0.1, -0.04]}}


@pytest.mark.parametrize("cfa", CFAS)
def test_libraw_reads_back_what_was_written(cfa, rng, tmp_path):
    frame = make_frame(rng, cfa, exposure_s=0.04)
    write_dng(tmp_path / "a.dng", frame)
    back = read_frame(tmp_path / "a.dng")
    np.testing.assert_array_equal(back.mosaic_dn, frame.mosaic_dn)
    assert back.cfa == cfa
    np.testing.assert_array_equal(back.black_level, frame.black_level)
    assert (back.white_level, back.iso, back.camera) == (16383, 1600, "test ILCE-7SM2")
    assert back.exposure_s == pytest.approx(0.04)
    assert back.white_balance == pytest.approx(frame.white_balance, rel=1e-5)
    np.testing.assert_allclose(back.camera_to_srgb, np.eye(3), atol=2e-3)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"II*\x00" + bytes(100), np.random.default_rng(0).bytes(5000)])
def test_what_is_no_raw_is_named(content, tmp_path):
    (tmp_path / "a.ARW").write_bytes(content)
    with pytest.raises(RawReadError, match=r"a\.ARW: (LibRaw cannot read it|the file is empty)"):
        read_frame(tmp_path / "a.ARW")


def test_a_link_to_a_folder_of_raws_is_followed(tmp_path):
    elsewhere = tmp_path / "disk/Sony"
    elsewhere.mkdir(parents=True)
    (elsewhere / "a.ARW").write_bytes(b"raw")
    (tmp_path / "01_raw").mkdir()
    (tmp_path / "01_raw/Sony").symlink_to(elsewhere)
    assert list(RawFolderDataset(filepath=str(tmp_path / "01_raw")).load()) == ["Sony/a"]


def test_a_folder_lists_raws_of_any_case_below_it_and_ignores_the_rest(rng, tmp_path):
    for name in ("Sony/long/b.DNG", "a.arw", "notes.txt", ".hidden.dng"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert list(RawFolderDataset(filepath=str(tmp_path)).load()) == ["Sony/long/b", "a"]


def test_two_raws_of_one_name_are_refused(tmp_path):
    for name in ("a.arw", "a.dng"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"a\.arw and .*a\.dng would have one name"):
        RawFolderDataset(filepath=str(tmp_path)).load()


def test_the_hash_is_of_the_bytes_whatever_the_name(tmp_path):
    (tmp_path / "a.dng").write_bytes(bytes(3_000_000))
    (tmp_path / "b.dng").write_bytes(bytes(3_000_000))
    (tmp_path / "c.dng").write_bytes(bytes(2_999_999) + b"x")
    a, b, c = (RawFile(tmp_path / f"{name}.dng").content_hash() for name in "abc")
    assert a == b != c
    assert a == hashlib.blake2b(bytes(3_000_000), digest_size=16).hexdigest()
    with pytest.raises(RawReadError, match=r"d\.dng: No such file"):
        RawFile(tmp_path / "d.dng").content_hash()


def test_demo_raws_have_the_noise_and_ratio_that_they_state(tmp_path):
    """Against the photograph's own light: mean and standard deviation of the difference, in the dark and in the light."""
    camera = {"name": "lowlight A7", "black_level": 512, "white_level": 16383, "neutral": [0.5, 1.0, 0.6]}
    scene = {"scene": "00001_00", "photograph": "coffee.png", "cfa": "bayer"}
    dataset = DemoRawsDataset(
        filepath=str(tmp_path), scenes=[scene], camera=camera, cameras=TABLE, long_s=10, short_s=0.1, iso=1600, brightness=0.9, seed=0,
        calibration={"size": 64, "flats_s": [5], "flats": 2, "darks": 1, "of": ["00001_00"]}, hot={"fraction": 1e-3, "mean_dn": 400},
    )  # fmt: skip
    raws = dataset.load()
    names = ["darks/dark_0", "darks/dark_00001_00_0", "flats/flat_5s_0", "flats/flat_5s_1", "long/00001_00_10s", "short/00001_00_0.1s"]
    assert list(raws) == [f"Sony/{name}" for name in names]
    long, short = (normalise(raws[f"Sony/{name}"]()) for name in names[4:])
    hot = normalise(raws[f"Sony/{names[1]}"]()) > 50 / 15871  # the same sites in every exposure
    assert 5e-4 < hot.mean() < 1.5e-3
    assert np.median(short[hot]) > 100 / 15871
    long, short = long[~hot], short[~hot]
    noise = CameraNoise(**normalised(noise_in_dn("A7", 1600, TABLE), 15871), step=1 / 15871)
    whitened = (short - long / 100) / np.sqrt(noise.variance(long / 100) + noise.variance(long) / 1e4)
    assert whitened.mean() == pytest.approx(0, abs=0.02)
    assert whitened.std() == pytest.approx(1, abs=0.02)
    before = {name: raw.path.read_bytes() for name, raw in raws.items()}
    assert {name: raw.path.read_bytes() for name, raw in dataset.load().items()} == before


@pytest.mark.skipif(not (SHARED / "raw_kodak").is_dir(), reason="no raw_kodak folder in LOWLIGHT_TEST_DATA")
def test_a_kodak_of_1996_is_decoded():
    frame = read_frame(SHARED / "raw_kodak/RAW_KODAK_DC50.KDC")
    assert (frame.mosaic_dn.shape, frame.exposure_s) == ((512, 768), pytest.approx(0.00435))


def test_the_brackets_measured_ratios(bracket):
    """Signal ratios on unsaturated photosites: nominal 4, measured 3.96."""
    short, long = (read_frame(bracket / f"sample{n}.dng") for n in (2, 1))
    assert long.exposure_s / short.exposure_s == pytest.approx(4, rel=1e-3)
    assert short.camera == "NIKON D5000"
    x, y = normalise(short), normalise(long)
    usable = (y > 0.1) & (y < 0.9)
    assert np.median(y[usable] / np.maximum(x[usable], 1e-3)) == pytest.approx(3.96, rel=0.02)

"""`lowlight restore RAW --darks FOLDER`: hot sites and glow are repaired, and what is no use is told by its name and left out."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import lowlight_kedro as ll
from lowlight_kedro.api import Settings
from lowlight_kedro.command.arguments import main
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.image import ImageDataset
from lowlight_kedro.exposure import with_defects
from lowlight_kedro.pipelines.inference.outputs import defect_table
from lowlight_kedro.restoration.observation import Exposure
from lowlight_kedro.restoration.settings import Probing, Structure
from lowlight_kedro.sensor.cfa import BAYER_RGGB, UNFILTERED
from lowlight_kedro.sensor.noise import PoissonGaussian
from tests.conftest import make_frame

SHAPE, RATIO = (96, 96), 10
QUICK = Settings(refreshes=0, probing=Probing(probes=0))


def shot(seed, light=0.0, shown=0.0, **about):
    frame = make_frame(np.random.default_rng(seed), shape=SHAPE, exposure_s=0.1, light=light)
    return replace(frame, mosaic_dn=(frame.mosaic_dn + shown).astype(np.uint16), **about)


@pytest.fixture(scope="module")
def shown():
    """Hot sites of 100 DN, which hardly stand out of the noise of this frame, and a glow."""
    rng, rows = np.random.default_rng(0), np.arange(SHAPE[0])[:, None]
    return np.rint(np.where(rng.random(SHAPE) < 0.01, 100, 0) + 60 * np.exp(-rows / 20))


@pytest.fixture(scope="module")
def photos(shown, tmp_path_factory):
    """A dark raw of that sensor; darks of it, good ones and others."""
    folder = tmp_path_factory.mktemp("night")
    write_dng(folder / "IMG_0001.dng", shot(1, 0.6, shown))
    for number in range(3):
        write_dng(folder / f"darks/good_{number}.dng", shot(10 + number, 0.0, shown))
    write_dng(folder / "darks/flat.dng", shot(20, 0.6, 6000))
    write_dng(folder / "darks/another_camera.dng", shot(21, 0.0, 500, camera="Zenit"))
    write_dng(folder / "darks/iso800.dng", shot(22, 0.0, 500, iso=800.0))
    torn = (folder / "darks/good_0.dng").read_bytes()
    (folder / "darks/torn.dng").write_bytes(torn[: len(torn) // 2])
    write_dng(folder / "unfit/iso800.dng", shot(22, 0.0, 500, iso=800.0))
    return folder


def restored(photos, out, *told):
    command = ["restore", str(photos / "IMG_0001.dng"), "--out", str(out), "--ratio", str(RATIO), "--files", "linear,page,defects"]
    assert main([*command, *told]) == 0
    record = json.loads((out / "details/IMG_0001_record.json").read_text())
    return ImageDataset(filepath=str(out / "IMG_0001_linear.tif"), bits=32).load(), record, (out / "IMG_0001_restored.html").read_text()


def test_darks_repair_and_those_that_are_none_are_told_and_left_out(photos, tmp_path, capfd):
    truth = make_frame(np.random.default_rng(1), shape=SHAPE, exposure_s=0.1, light=0.6)
    clean = ll.restore(truth, ratio=RATIO, settings=QUICK).light
    before = restored(photos, tmp_path / "before")[0]
    capfd.readouterr()
    light, record, page = restored(photos, tmp_path / "after", "--darks", str(photos / "darks"))
    told = capfd.readouterr().err
    assert np.abs(light - clean).mean() < 0.3 * np.abs(before - clean).mean()
    places = pd.read_csv(tmp_path / "after/details/IMG_0001_defects.csv")
    assert len(places) == record["defects"]
    assert "IMG_0001_defects.csv" in page
    assert record["darks"]["frames"] == ["good_0.dng", "good_1.dng", "good_2.dng"]
    assert "as 3 dark frames of 1/10 s told it" in page
    assert "What was taken away" in page
    assert isinstance(record["residual"]["verdict"], str)
    assert "dark flat.dng is left out: it is no dark" in told
    assert "torn.dng" in told
    for file, why in {"another_camera.dng": "Zenit, ISO 1600", "iso800.dng": "test ILCE-7SM2, ISO 800"}.items():
        assert f"darks that fit no frame: {file} ({why}, 96 x 96)" in told


def test_without_darks_that_fit_the_frame_is_restored_and_says_so(photos, tmp_path, capfd):
    _, record, page = restored(photos, tmp_path, "--darks", str(photos / "unfit"))
    why = "restored without darks: the darks are of ISO 800, the frame has ISO 1600"
    assert (record["darks"], record["darks_warning"]) == (None, why)
    assert why in page
    told = capfd.readouterr()
    assert f"IMG_0001: {why}" in told.err
    assert "restored, without darks" in told.out


def test_the_places_of_defects_are_told_with_who_said_so(rng):
    noise, told = PoissonGaussian(1e-4, 1e-3), np.zeros((48, 48), bool)
    signal = noise.sample(np.full((48, 48), 0.1), rng).astype(np.float32)
    signal[20, 31], told[7, 9] = 0.5, True
    exposure = Exposure(signal, BAYER_RGGB, (1.0, 1.0, 1.0), 1.0, noise, defects=told)
    table = defect_table(with_defects(exposure, Structure()), told)
    assert table.drop(columns="signal").to_numpy().tolist() == [[7, 9, "B", "file"], [20, 31, "G", "frame"]]
    np.testing.assert_allclose(table["signal"], signal[[7, 20], [9, 31]], atol=1e-5)
    assert defect_table(exposure, told)["row"].tolist() == [7]
    assert defect_table(replace(exposure, defects=None), None).empty
    plain = Exposure(np.stack([signal] * 3), UNFILTERED, (1.0, 1.0, 1.0), 1.0, noise)
    assert with_defects(plain, Structure()) is plain
    assert with_defects(exposure, Structure(defects=False)) is exposure


def test_a_folder_that_is_not_there_is_told_at_once(photos, tmp_path, capfd):
    assert main(["restore", str(photos / "IMG_0001.dng"), "--out", str(tmp_path), "--darks", str(tmp_path / "drks")]) == 2
    assert "drks does not exist; give a folder of dark frames" in capfd.readouterr().err


def test_frames_of_darks_from_python(shown):
    frame, darks = shot(1, 0.6, shown), [shot(10 + number, 0.0, shown) for number in range(3)]
    out = ll.restore(frame, ratio=RATIO, settings=QUICK, darks=darks)
    assert (out.exposure.added_std > 0).all()
    clean = ll.restore(shot(1, 0.6), ratio=RATIO, settings=QUICK).light
    without = ll.restore(frame, ratio=RATIO, settings=QUICK).light
    assert np.abs(out.light - clean).mean() < 0.3 * np.abs(without - clean).mean()
    with pytest.raises(ValueError, match="no darks fit: the darks are of test ILCE-7SM2, the frame is of Zenit"):
        ll.restore(replace(frame, camera="Zenit"), settings=QUICK, darks=darks)
    with pytest.raises(ValueError, match="no darks fit: the darks are of Zenit, the frame is of test ILCE-7SM2"):
        ll.restore(frame, settings=QUICK, darks=[*darks, replace(darks[0], camera="Zenit")])
    with pytest.raises(ValueError, match="dark 1 is left out: it is no dark"):
        ll.restore(frame, settings=QUICK, darks=[darks[0], shot(20, 0.6, 6000)])

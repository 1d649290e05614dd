"""Finished work is kept while the version of its stage stands: what each version makes of a small input, in numbers.

A red test here means: results have changed. Raise the stage's number in `jobs.VERSIONS` and put the new numbers beside it.
Another shipped prior has other numbers under the same version, because its digest is in the keys.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from kedro.framework.session import KedroSession

import lowlight_kedro as ll
from lowlight_kedro.jobs import VERSIONS
from lowlight_kedro.pipelines.photographs import PhotographOptions, _cut_photograph
from lowlight_kedro.pipelines.preprocessing.nodes import _cut_frame, check_files
from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions
from lowlight_kedro.sensor.calibration.photon_transfer import photon_transfer
from lowlight_kedro.sensor.calibration.single_image import image_estimate
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from lowlight_kedro.sensor.dark_map import measure_dark_map
from lowlight_kedro.sensor.noise import PoissonGaussian
from tests.conftest import ROOT, make_frame


@pytest.fixture(scope="module")
def parameters():
    with KedroSession.create(ROOT, env="photographs") as session:
        return session.load_context().config_loader["parameters"]


def raw(cfa=BAYER_RGGB, seconds=10.0):
    frame = make_frame(np.random.default_rng(0), cfa, (120, 132), seconds, light=0.6)
    return SimpleNamespace(path=Path("a.dng"), __call__=lambda: frame), lambda: frame


def numbers_of(image):
    """Mean, standard deviation, and mean square of what differs between neighbours."""
    image = np.asarray(image, np.float64)
    return [image.mean(), image.std(), (np.diff(image, axis=-1) ** 2).mean()]


def tiles(parameters):
    options = PreprocessingOptions.model_validate(parameters["preprocessing"])
    options = options.model_copy(update={"tiles": options.tiles.model_copy(update={"size": 64, "stride": 48})})
    row = {"frame": "a", "scene": "a", "split": "train", "data_type": "long", "exposure_s": 10.0, "iso": 1600.0}
    found = [_cut_frame(row, raw(cfa)[1], 1.0, options)["tiles"] for cfa in (BAYER_RGGB, XTRANS)]
    return [number for files in found for stack in files.values() for number in numbers_of(stack)]


def pairs(parameters):
    options = PreprocessingOptions.model_validate(parameters["preprocessing"]).pairing
    record = check_files(raw(seconds=0.5)[1], raw()[1], 20.0, options)["record"]
    return [float(value) for value in record.values() if isinstance(value, (int, float))]


def photographs(parameters):
    options = PhotographOptions.model_validate(parameters["photographs"])
    image = np.random.default_rng(0).integers(0, 255, (300, 280, 3), np.uint8)
    source = type("Photograph", (), {"path": Path("a.png"), "__call__": lambda self: image})()
    options = options.model_copy(update={"size": 64, "stride": 64})
    return [number for stack in _cut_photograph("a", source, options)["tiles"].values() for number in numbers_of(stack)]


def calibration(parameters):
    rng, noise = np.random.default_rng(0), PoissonGaussian(1e-3, 4e-3)
    levels = [[noise.sample(np.full((96, 96), level), rng) for _ in range(2)] for level in (0.05, 0.2, 0.5)]
    darks = [noise.sample(np.zeros((96, 96)), rng) for _ in range(3)]
    flats, image = photon_transfer(levels, darks, BAYER_RGGB), image_estimate(make_frame(rng, shape=(240, 240)))
    return [flats.gain, flats.read_noise, flats.gain_error, image.gain, image.read_noise]


def darks(parameters):
    rng = np.random.default_rng(0)
    shown = np.where(rng.random((96, 108)) < 0.01, 300, 0) + np.arange(96)[:, None] // 4
    frames = [make_frame(rng, shape=(96, 108), light=0) for _ in range(3)]
    frames = [replace(frame, mosaic_dn=(frame.mosaic_dn + shown).astype(np.uint16)) for frame in frames]
    found, _ = measure_dark_map([partial(replace, frame) for frame in frames], "abc")
    return [float(len(found.sites)), float(found.excess.mean()), found.shared_std, *numbers_of(found.shared(slice(None)))]


def restoration(parameters):
    rng, found, prior = np.random.default_rng(0), [], ll.load_prior(device="cpu", precision="fp32")
    for name in ("RGGB", "xtrans"):
        for gain, read in ((1e-4, 4e-4), (4e-3, 2e-2)):  # a quiet expert's, the general network's
            mosaic = PoissonGaussian(gain, read).sample(0.05 + 0.1 * np.indices((72, 72)).sum(0) / 144, rng).astype(np.float32)
            out = ll.restore(mosaic, prior, cfa=name, gain=gain, read_noise=read, ratio=4.0)
            found += [*numbers_of(out.light), float(out.std.mean())]
    star = 1e-4 + 0.02 * np.exp(-np.square(np.indices((72, 72)) - 36.3).sum(0) / 2)
    dark = PoissonGaussian(1e-4, 4e-4).sample(star, rng).astype(np.float32)
    return [*found, *numbers_of(ll.restore(dark, prior, cfa="RGGB", gain=1e-4, read_noise=4e-4, ratio=30.0).light)]


NUMBERS = {
    "tiles": (2, [23321.9, 9037.07, 8400130.0, 23321.9, 8936.21, 8724620.0]),
    "pairs": (2, [20.0017, 0.020647, 0.0, 0.0, -0.0, -0.0, 0.0]),
    "photographs": (1, [6567.56, 8326.93, 74060000.0]),
    "calibration": (2, [0.000997031, 0.00400288, 1.04041e-05, 1.70136e-07, 0.000245562]),
    "darks": (2, [93.0, 300.082, 0.0696851, 11.5161, 6.84549, 0.00789703]),
    "restoration": (
        11,
        [
            0.397028,
            0.081465,
            8.94442e-06,
            0.00408118,
            0.397014,
            0.078658,
            1.10172e-05,
            0.0112772,
            0.396471,
            0.0813877,
            1.17356e-05,
            0.00438928,
            0.39575,
            0.0743849,
            1.2289e-05,
            0.0123125,
            0.00352464,
            0.0116198,
            6.09729e-05,
        ],
    ),
}


@pytest.mark.parametrize("stage", VERSIONS)
def test_results_change_only_with_the_version_of_their_stage(stage, parameters):
    version, expected = NUMBERS[stage]
    assert version == VERSIONS[stage]
    found = globals()[stage](parameters)
    message = f"{stage}: results have changed; raise jobs.VERSIONS[{stage!r}] and write here: {[float(f'{n:.6g}') for n in found]}"
    assert found == pytest.approx(expected, rel=2e-3, abs=1e-7), message

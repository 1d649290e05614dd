"""The prior that comes with the package."""

import numpy as np
import pytest
import torch
from kedro.framework.session import KedroSession
from kedro.io import DatasetError

from lowlight_kedro.datasets.demo import read_photograph
from lowlight_kedro.diffusion.networks import built_network
from lowlight_kedro.diffusion.prior import build_prior
from lowlight_kedro.evaluation.metrics import measure, psnr
from lowlight_kedro.restoration.estimates import posterior_mean
from lowlight_kedro.restoration.guidance import GUIDANCE
from lowlight_kedro.restoration.observation import Exposure
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, sample
from lowlight_kedro.sensor.demosaic import DEMOSAICERS
from lowlight_kedro.sensor.noise import PoissonGaussian
from lowlight_kedro.sensor.render import render, srgb_decode
from tests.conftest import ROOT

RATIO = 100.0
NOISE = PoissonGaussian(1.5301 / 15871, 6.299 / 15871)  # Sony A7S II, ISO 1600
CLASSICAL = {"malvar2004": BAYER_RGGB, "directional_lmmse": XTRANS}


@pytest.fixture(scope="module")
def dataset():
    with KedroSession.create(ROOT, env="shipped") as session:
        return session.load_context().catalog.get("prior")


@pytest.mark.parametrize("classical", CLASSICAL)
def test_it_restores_a_photograph_that_it_never_saw(dataset, classical):
    checkpoint, cfa = dataset.load(), CLASSICAL[classical]
    prior = build_prior(checkpoint, built_network(checkpoint.description))
    photograph = read_photograph("astronaut.png", 1)[:192, 120:312]
    light = srgb_decode(photograph.astype(np.float32) / 255).transpose(2, 0, 1).astype(np.float32)
    signal = NOISE.sample(sample(light / RATIO, cfa), np.random.default_rng(0)).astype(np.float32)
    restored = posterior_mean(
        Exposure(signal, cfa, (1.0, 1.0, 1.0), RATIO, NOISE), prior.denoiser, prior.scaling, GUIDANCE["noise_map"],
        refreshes=1, device=torch.device("cpu"),
    )  # fmt: skip
    scaled = DEMOSAICERS[classical](signal * np.float32(RATIO), cfa)
    before, after = (measure(render(image, np.eye(3)), render(light, np.eye(3)), {"psnr": psnr})["psnr"] for image in (scaled, restored))
    assert after > before + 4.5


def test_it_is_never_written_over(dataset):
    with pytest.raises(DatasetError, match="not to be written; train in another environment"):
        dataset.save(dataset.load())

"""The core that can be called: arrays in, arrays out."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

import lowlight_kedro as ll
from lowlight_kedro.api import Settings, _Counted
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.pipelines.inference.frames import Restoration
from lowlight_kedro.pipelines.inference.options import InferenceOptions
from lowlight_kedro.plugins import configured
from lowlight_kedro.restoration.guidance import GUIDANCE
from lowlight_kedro.restoration.guidance.posterior import Posterior
from lowlight_kedro.restoration.settings import Probing, Sampling, Structure
from lowlight_kedro.sensor.cfa import BAYER_RGGB, sample
from lowlight_kedro.sensor.noise import CameraNoise
from tests.conftest import ROOT, make_frame

QUICK = Settings(refreshes=0, probing=Probing(probes=0))
NOISE = {"gain": 1e-4, "read_noise": 1e-3}


@pytest.fixture(scope="module")
def prior():
    return ll.load_prior(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def mosaic():
    rng = np.random.default_rng(0)
    light = np.kron(rng.uniform(0.005, 0.05, (4, 4)), np.ones((24, 24)))
    return light + rng.normal(0, np.sqrt(1e-4 * light + 1e-6))


@pytest.fixture(scope="module")
def restored(mosaic, prior):
    return ll.restore(mosaic, prior, cfa="RGGB", **NOISE, ratio=10, settings=QUICK)


def test_a_mosaic_becomes_light_at_the_ratio_that_was_asked_for(mosaic, prior, restored):
    assert restored.light.shape == (3, 96, 96)
    assert restored.light.mean() == pytest.approx(10 * mosaic.mean(), rel=0.02)
    other = ll.restore(mosaic, prior, cfa=BAYER_RGGB, **NOISE, ratio=1, settings=QUICK)
    np.testing.assert_allclose(10 * other.light, restored.light, rtol=1e-5)  # the ratio scales, and does nothing else
    balanced = ll.restore(mosaic, prior, cfa="rggb", **NOISE, ratio=10, white_balance=(2.0, 1.0, 1.0), settings=QUICK)
    assert balanced.light[0].mean() == pytest.approx(2 * restored.light[0].mean(), rel=0.03)
    assert restored.picture(2.0).shape == (96, 96, 3)


def test_a_frame_is_its_own_mosaic(prior):
    frame = make_frame(np.random.default_rng(1), shape=(48, 48))
    signal = (frame.mosaic_dn - np.float32(frame.black_level.mean())) / np.float32(frame.white_level - frame.black_level.mean())
    whole = ll.restore(frame, prior, **NOISE, ratio=2, settings=QUICK)
    parts = ll.restore(signal, prior, cfa=frame.cfa, white_balance=frame.white_balance, **NOISE, ratio=2, settings=QUICK)
    np.testing.assert_allclose(whole.light, parts.light, atol=2e-4)
    assert whole.record["noise_from"] == "given"


def test_of_three_values_a_pixel_nothing_is_unknown(prior):
    """Without noise they are the answer; with noise it is better than they are, and than what a mosaic of them tells."""
    rng = np.random.default_rng(0)
    clean = np.kron(rng.uniform(0.1, 0.8, (3, 4, 4)), np.ones((24, 24)))
    clean[1, :8] = 1.2  # clipped below: at least white
    options = {"ratio": 1.0, "white_balance": (2.0, 1.0, 1.5), "settings": QUICK}
    gains = np.array(options["white_balance"])[:, None, None]
    quiet = ll.restore(np.minimum(clean, 1), prior, cfa="rgb", gain=1e-9, read_noise=1e-6, **options)
    np.testing.assert_allclose((quiet.light / gains)[:, 12:], clean[:, 12:], atol=2e-3)
    assert (quiet.light[1, :8] > 0.99).all()
    noisy = clean + rng.normal(0, np.sqrt(3e-3 * clean + 1e-4))
    noise = {"gain": 3e-3, "read_noise": 1e-2}
    full = ll.restore(noisy, prior, cfa="rgb", **noise, **options)
    mosaic = ll.restore(sample(noisy, BAYER_RGGB), prior, cfa="RGGB", **noise, **options)
    error = [np.sqrt(np.mean(np.square((x / gains - clean)[:, 12:]))) for x in (full.light, mosaic.light, noisy * gains)]
    assert error[0] < 0.8 * min(error[1:])


def test_guidance_by_name_is_the_function_and_may_be_ones_own(mosaic, prior, restored):
    by_function = ll.restore(mosaic, prior, cfa="RGGB", **NOISE, ratio=10, settings=QUICK, guidance=GUIDANCE["noise_map"])
    np.testing.assert_array_equal(by_function.light, restored.light)

    def half(denoiser, measurement, *, fraction=0.5):
        return Posterior(mean=lambda: fraction * measurement.y)

    options = {"cfa": "RGGB", **NOISE, "ratio": 10, "settings": QUICK}
    options["settings"] = replace(QUICK, structure=Structure(points=False))  # which so poor a mean would be full of
    zero = ll.restore(mosaic, prior, guidance=half, guidance_options={"fraction": 0.0}, **options)
    np.testing.assert_allclose(zero.light, zero.light.flat[0])
    assert not np.allclose(ll.restore(mosaic, prior, guidance=half, **options).light, zero.light)


def test_the_guidance_of_the_contributors_page_works(mosaic, prior):
    code = (ROOT / "CONTRIBUTING.md").read_text().split("```python")[1].split("```")[0]
    names = {}
    exec(code, names)
    settings = Settings(estimate="sample", sampling=Sampling("heun", 5, 0.05, 3.0, 2), probing=QUICK.probing)
    out = ll.restore(mosaic, prior, cfa="RGGB", **NOISE, ratio=10, guidance=names["mine"], settings=settings)
    assert out.light.mean() == pytest.approx(10 * mosaic.mean(), rel=0.05)


def test_the_network_of_the_contributors_page_is_one():
    names = {}
    exec((ROOT / "CONTRIBUTING.md").read_text().split("```python")[2].split("```")[0], names)
    built = configured("network", {"plain": names["PlainNet"]}, "plain", {"width": 5})()
    x = torch.randn(2, 3, 9, 7)
    assert Denoiser(built, 0.5)(x, torch.tensor(0.3)).shape == x.shape
    assert x.shape[-1] % built.multiple == 0


def test_progress_rises_to_one_and_the_record_counts(mosaic, prior):
    told = []
    settings = Settings(refreshes=1, symmetries=2)
    out = ll.restore(mosaic, prior, cfa="RGGB", **NOISE, ratio=10, settings=settings, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    assert out.record["evaluations"] == 2  # one of each symmetry: nothing is to be learned first
    rows = {"noise": CameraNoise(**NOISE, row_noise=1e-4), "cfa": "RGGB", "ratio": 10}
    assert ll.restore(mosaic, prior, settings=settings, **rows).record["evaluations"] == 2 * 2
    assert out.std.shape == out.light.shape
    assert (out.std > 0).all()


def test_progress_ends_at_one_though_shares_are_rounded(prior):
    told, fractions = [], [1 / 42] * 42
    assert sum(fractions) > 1
    counted = _Counted(prior, Settings(), 1, told.append)
    for fraction in [*fractions, -0.5, 0.5]:
        counted._advance(fraction)
    assert told[-1] == max(told) == 1


def test_draws_are_functions_of_the_seed(prior):
    first, again, other = (ll.sample(prior, 2, size=32, seed=seed, evaluations=3) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, other)


def test_the_prior_is_its_denoiser(prior):
    x = torch.randn(1, 3, 48, 48) * 0.5
    np.testing.assert_array_equal(prior(x, 0.3).numpy(), prior(x, torch.full_like(x, 0.3)).numpy())
    light = np.linspace(0, 1, 5)
    np.testing.assert_allclose(prior.to_light(prior.to_network(light)), light, atol=1e-12)


def test_the_defaults_are_those_of_the_command():
    whole = yaml.safe_load((ROOT / "conf/base/parameters_inference.yml").read_text())
    parameters = whole["inference"] | {"guidance": {"name": "noise_map"}, "estimate": "mean"}
    assert Restoration(None, None, InferenceOptions(**parameters), ()).settings == Settings()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"raw": np.zeros((3, 96, 96))}, r"array \(H, W\) of at least 16 x 16, got \(3, 96, 96\)"),
        ({"cfa": "rgb"}, r"array \(3, H, W\) of at least 16 x 16, got \(96, 96\)"),
        ({"raw": np.zeros((96, 96), np.uint16)}, "must be floating point, black 0 and white 1, got uint16"),
        ({"raw": np.full((96, 96), np.nan)}, r"must be finite, got NaN or infinity at \[0, 0\]"),
        ({"cfa": "RGBG"}, "cfa must be one of RGGB, BGGR, GRBG, GBRG, xtrans, rgb, got 'RGBG'"),
        ({"cfa": None}, "needs its colour filter pattern"),
        ({"gain": None, "read_noise": None}, "needs its noise: gain and read_noise"),
        ({"gain": None}, "give both gain and read_noise"),
        ({"gain": -1.0}, "gain and read_noise must be positive, got gain=-1.0"),
        ({"ratio": 0}, "ratio must be a positive number, got 0"),
        ({"ratio": float("nan")}, "ratio must be a positive number, got nan"),
        ({"white_balance": (1.0, 0.0, 1.0)}, "white_balance must be three positive gains"),
        ({"guidance": "magic"}, "unknown guidance 'magic'; choose one of: ddrm"),
        ({"guidance": "dps"}, "guidance 'dps' does not know the posterior mean"),
        ({"guidance_options": {"strenght": 1}}, "guidance 'noise_map' has no option 'strenght'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(prior, changes, message):
    options = {"raw": np.full((96, 96), 0.1), "cfa": "RGGB", **NOISE, "ratio": 1.0, "settings": QUICK} | changes
    with pytest.raises(ValueError, match=message):
        ll.restore(options.pop("raw"), prior, **options)


def test_missing_and_foreign_priors_are_named(tmp_path, prior):
    (tmp_path / "torn.safetensors").write_bytes(b"nothing")
    for path, message in ((tmp_path / "none.safetensors", "there is no checkpoint"), (tmp_path / "torn.safetensors", "not a safetensors")):
        with pytest.raises(ValueError, match=message):
            ll.load_prior(path)
    with pytest.raises(ValueError, match="size a positive multiple of"):
        ll.sample(prior, 1, size=33)
    with pytest.raises(ValueError, match="estimate must be mean, sample or mean_of_k"):
        Settings(estimate="median")


def test_importing_is_quick_and_nothing_of_kedro_is_needed():
    code = (
        "import sys, lowlight_kedro as ll\n"
        "assert not {'torch', 'numpy', 'pandas', 'kedro'} & set(sys.modules), set(sys.modules)\n"
        "ll.load_prior(device='cpu')\n"
        "assert 'kedro' not in sys.modules\n"
        "import torch\n"
        "from lowlight_kedro.diffusion.memory import LiveBytes\n"
        "with LiveBytes():\n    torch.ones(2) * 2\n"  # as a restoration measures what a window takes
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

from dataclasses import dataclass

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from lowlight_kedro.pipelines.options import SensorOptions
from lowlight_kedro.sensor.noise import NOISE_MODELS, CameraNoise, PoissonGaussian
from lowlight_kedro.sensor.noise_sources import find_camera, noise_from_table, noise_in_dn
from tests.conftest import ROOT

TABLE = {
    "ILCE-7SM2": {
        "bits": 14, "iso": [100, 400, 1600, 2000, 6400], "gain_switches": [2000],
        "gain_dn": [0.1, 0.4, 1.6, 2.0, 6.4], "read_noise_dn": [1.0, 2.0, 6.0, 2.5, 5.0], "tail": [0.1, 0.0, -0.1, -0.02, -0.06],
    },
    "ILCE-7S": {"iso": [100, 200], "gain_dn": [1, 1], "read_noise_dn": [1, 1]},
    "Canon EOS 70D": {"bits": 14, "iso": [100, 6400], "gain_dn": [0.4, 25.6], "lines": {"read_noise_dn": [0.5, 2.0]}},
    "ILCE-7M4": {"iso": None, "gain_dn": [0.5, 37.0], "lines": {"read_noise_dn": [0.9, 0.2]}},
}  # fmt: skip
CONF = yaml.safe_load((ROOT / "conf/base/globals.yml").read_text())["cameras"]
NOISE = yaml.safe_load((ROOT / "conf/base/parameters_sensor.yml").read_text())["sensor"]["noise"]
EXIF = {
    "SONY ILCE-7SM2": "ILCE-7SM2", "NIKON CORPORATION NIKON D850": "NIKON D850", "Canon Canon EOS 5D Mark IV": "Canon EOS 5D Mark IV",
    "Canon Canon EOS 70D": "Canon EOS 70D", "Canon Canon EOS 700D": "Canon EOS 700D", "SONY ILCE-7M4": "ILCE-7M4",
    "Canon Canon EOS REBEL T5i": "Canon EOS REBEL T5i", "lowlight-kedro ILCE-7SM2-simulated": "ILCE-7SM2",
    "Canon Canon EOS 7000D": None, "SONY ILCE-7M4A": None, "NIKON CORPORATION NIKON D8500": None, "NIKON CORPORATION NIKON D85": None,
}  # fmt: skip


def options(**noise):
    return SensorOptions(noise=NOISE | noise, cameras=CONF)


def test_a_measured_iso_is_given_back_as_measured():
    assert noise_in_dn("SONY ILCE-7SM2", 400, TABLE) == pytest.approx({"gain_dn": 0.4, "read_noise_dn": 2.0, "tail": 0.0})
    assert noise_in_dn("SONY ILCE-7SM2", 2000, TABLE) == pytest.approx({"gain_dn": 2.0, "read_noise_dn": 2.5, "tail": -0.02})


def test_between_isos_it_is_log_log_and_the_tail_linear_in_log_iso():
    assert noise_in_dn("SONY ILCE-7SM2", 200, TABLE) == pytest.approx({"gain_dn": 0.2, "read_noise_dn": 2**0.5, "tail": 0.05})


def test_a_gain_switch_is_not_interpolated_across():
    """ISO 1800 works at the low gain: the line from ISO 400 and 1600 goes on; ISO 2000 and above know nothing of it."""
    further = np.log(1800 / 400) / np.log(4)
    expected = {"gain_dn": 1.8, "read_noise_dn": 2 * 3**further, "tail": -0.1 * further}
    assert noise_in_dn("SONY ILCE-7SM2", 1800, TABLE) == pytest.approx(expected)
    assert noise_in_dn("SONY ILCE-7SM2", 1999, TABLE)["read_noise_dn"] > 7
    assert noise_in_dn("SONY ILCE-7SM2", 2001, TABLE)["read_noise_dn"] == pytest.approx(2.5, rel=1e-3)


def test_an_unmeasured_conversion_gain_is_refused():
    entry = TABLE["ILCE-7SM2"] | {"gain_switches": [1700, 1900]}
    with pytest.raises(ValueError, match="no ISO of ILCE-7SM2 was measured at the conversion gain of ISO 1800"):
        noise_in_dn("ILCE-7SM2", 1800, {"ILCE-7SM2": entry})


@pytest.mark.parametrize("iso", [100, 800, 6400])
def test_a_line_gives_the_noise_of_the_gain(iso):
    gain = 0.4 * iso / 100
    assert noise_in_dn("Canon EOS 70D", iso, TABLE) == pytest.approx({"gain_dn": gain, "read_noise_dn": np.exp(0.5 * np.log(gain) + 2.0)})


@pytest.mark.parametrize(("exif", "name"), EXIF.items())
def test_exif_names_find_their_camera_and_no_other(exif, name):
    assert find_camera(exif, CONF) == name
    assert find_camera(exif.upper(), CONF) == name


def test_the_longest_name_wins_whatever_the_case():
    assert find_camera("Sony ilce-7sm2", TABLE) == "ILCE-7SM2"
    assert find_camera("Sony ILCE-7S", TABLE) == "ILCE-7S"
    assert find_camera("Sony ILCE-7S second", {"ILCE-7S": {}, "ILCE-7S second": {}}) == "ILCE-7S second"


@pytest.mark.parametrize("iso", [50, 12800])
def test_it_does_not_extrapolate(iso):
    with pytest.raises(ValueError, match=f"ISO {iso} of ILCE-7SM2 is outside the measured range 100 to 6400"):
        noise_in_dn("ILCE-7SM2", iso, TABLE)


def test_gains_of_unknown_iso_are_refused():
    with pytest.raises(ValueError, match=r"ILCE-7M4 does not say which ISO its gains belong to"):
        noise_from_table("SONY ILCE-7M4", 400, 15871, TABLE)


def test_another_bit_depth_is_refused():
    with pytest.raises(ValueError, match="measured in 14-bit DN, but white - black of this raw is 3967 DN"):
        noise_from_table("ILCE-7SM2", 400, 3967, TABLE)


def test_an_unknown_camera_is_named_with_what_to_do():
    with pytest.raises(ValueError, match=r"'NIKON D5000'; known: Canon EOS 70D, ILCE-7M4, ILCE-7S, ILCE-7SM2"):
        noise_from_table("NIKON D5000", 200, 3840, TABLE)


def model_of(sensor: SensorOptions, camera: str, iso: float, range_dn: float):
    return sensor.noise_model(camera, iso, range_dn, sensor.sources([], {}))[:2]


@pytest.mark.parametrize("model", ["poisson_gaussian", "camera"])
@pytest.mark.parametrize("camera", [name for name, entry in CONF.items() if entry["iso"]])
def test_every_camera_of_the_configuration_builds_every_model_at_every_iso(camera, model):
    for iso in (100, 150, 1800, 6400):
        noise, source = model_of(options(model=model), f"Maker {camera}", iso, 15000.0)
        assert 0.3 < noise.read_noise / noise.gain < 20  # electrons
        assert source == f"table {camera} at ISO {iso}"


def test_the_models_are_built_from_what_is_known():
    noise, _ = model_of(options(model="camera", black_error_dn=0.5), "ILCE-7SM2", 1600, 15871)
    assert vars(noise) == pytest.approx(vars(CameraNoise(1.5301 / 15871, 6.299 / 15871, -0.044, 0.989 / 15871, 0.5 / 15871, 1 / 15871)))
    noise, _ = model_of(options(), "ILCE-7SM2", 1600, 15871)
    assert (noise.gain, noise.read_noise) == pytest.approx((1.5301 / 15871, 6.299 / 15871))
    noise, _ = model_of(options(model="camera", gain=1e-4, read_noise=1e-3), "Acme One", 1600, 4000)
    assert noise == CameraNoise(1e-4, 1e-3, step=1 / 4000)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tail": [0.1]}, "tail must have one value per ISO, got 1 for 2"),
        ({"iso": [400, 100]}, "iso must ascend"),
        ({"read_noise_dn": None}, "read_noise_dn must be given"),
    ],
)
def test_a_wrong_entry_is_named(wrong, message):
    entry = {"iso": [100, 400], "gain_dn": [0.1, 0.4], "read_noise_dn": [1, 2]} | wrong
    with pytest.raises(ValueError, match=message):
        SensorOptions(noise=NOISE, cameras={"Acme": entry})


@dataclass(frozen=True)
class Prnu(PoissonGaussian):
    prnu: float = 0.0


def test_a_noise_model_of_ones_own_is_given_its_own_fields_and_no_others(monkeypatch):
    monkeypatch.setitem(NOISE_MODELS, "prnu", Prnu)
    model, _ = model_of(options(model="prnu", gain=1e-4, read_noise=1e-3, options={"prnu": 0.02}), "unknown", 100, 1000)
    assert model == Prnu(1e-4, 1e-3, prnu=0.02)
    for wrong in ("gain", "prnus"):
        with pytest.raises(ValidationError, match=f"noise model 'prnu' has no option {wrong}; its options: prnu"):
            options(model="prnu", options={wrong: 0.02})

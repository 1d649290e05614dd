import pytest

from lowlight_kedro.sensor.cameras import find_camera, noise_in_dn, noise_parameters

TABLE = {
    "ILCE-7SM2": {"iso": [100, 400, 1600], "gain_dn": [0.1, 0.4, 1.6], "read_noise_dn": [1.0, 2.0, 6.0]},
    "ILCE-7S": {"iso": [100, 200], "gain_dn": [1, 1], "read_noise_dn": [1, 1]},
}


def test_a_measured_iso_is_given_back_as_measured():
    assert noise_in_dn("SONY ILCE-7SM2", 400, TABLE) == pytest.approx({"gain_dn": 0.4, "read_noise_dn": 2.0})


def test_between_isos_it_is_log_log():
    assert noise_in_dn("SONY ILCE-7SM2", 200, TABLE) == pytest.approx({"gain_dn": 0.2, "read_noise_dn": 2**0.5})


def test_the_longest_name_wins_whatever_the_case():
    assert find_camera("Sony ilce-7sm2", TABLE) == "ILCE-7SM2"
    assert find_camera("Sony ILCE-7S", TABLE) == "ILCE-7S"


def test_it_does_not_extrapolate():
    with pytest.raises(ValueError, match="ISO 3200 of ILCE-7SM2 is outside the measured range 100 to 1600"):
        noise_in_dn("ILCE-7SM2", 3200, TABLE)


def test_an_unknown_camera_is_named_with_what_to_do():
    with pytest.raises(ValueError, match=r"'NIKON D5000'; known: ILCE-7S, ILCE-7SM2; give sensor\.noise\.gain"):
        noise_parameters("NIKON D5000", 200, 3840, table=TABLE)


def test_numbers_given_by_hand_win():
    values, source = noise_parameters("NIKON", 200, 3840, table=TABLE, gain=1e-4, read_noise=1e-3)
    assert values == {"gain": 1e-4, "read_noise": 1e-3}
    assert "parameters" in source

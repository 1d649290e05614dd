"""The methods of calibration on decoded frames; each estimate is in units of white - black of the first frame."""

from lowlight_kedro.sensor.alignment import PairLimits, check_pair, comparable_sites
from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate, noise_profile
from lowlight_kedro.sensor.calibration.pairs import from_pair
from lowlight_kedro.sensor.calibration.single_image import from_image
from lowlight_kedro.sensor.cfa import BAYER_RGGB, UNFILTERED, sample
from lowlight_kedro.sensor.frame import Frame, normalise, range_dn
from lowlight_kedro.sensor.registration import overlap


def image_estimate(frame: Frame) -> NoiseEstimate:
    """From the frame alone; see `from_image`.

    Of three values a pixel one is taken as a Bayer mosaic would: values of one colour are then two pixels apart, where interpolation
    correlates their noise less.
    """
    signal, cfa = normalise(frame), frame.cfa
    if cfa == UNFILTERED:
        signal, cfa = sample(signal, BAYER_RGGB), BAYER_RGGB
    return from_image(signal, cfa, step=1 / range_dn(frame))


def tag_estimate(frame: Frame) -> NoiseEstimate | None:
    """From its NoiseProfile tag, None where it has none; see `noise_profile`."""
    return noise_profile(frame.noise_profile) if frame.noise_profile else None


def pair_estimate(short: Frame, long: Frame, exposure_ratio: float, limits: PairLimits) -> NoiseEstimate:
    """From two exposures of one scene, both in one unit of white (`same_white`): aligned, what moved masked; see `from_pair`.

    Raises:
        ValueError: they do not show one scene in that ratio.
    """
    signal, reference = normalise(short), normalise(long)
    check = check_pair(signal, reference, short.cfa, exposure_ratio, limits)
    if check.verdict != "ok":
        raise ValueError(f"the exposures do not fit: {check.reason}")
    shift = (check.shift_y, check.shift_x)
    valid = comparable_sites(signal, reference, short.cfa, shift, check.measured_ratio)
    here, there = overlap(signal.shape, shift, len(short.cfa))
    return from_pair(signal[here], reference[there], check.measured_ratio, short.cfa, valid[here], long_gain_factor=long.iso / short.iso)

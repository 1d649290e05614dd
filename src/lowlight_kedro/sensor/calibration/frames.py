"""The methods of calibration on decoded frames."""

from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate
from lowlight_kedro.sensor.calibration.noise_profile import noise_profile
from lowlight_kedro.sensor.calibration.single_image import from_image
from lowlight_kedro.sensor.frame import Frame, normalise, range_dn


def image_estimate(frame: Frame) -> NoiseEstimate:
    """From the frame alone; see `from_image`."""
    return from_image(normalise(frame), frame.cfa, step=1 / range_dn(frame))


def tag_estimate(frame: Frame) -> NoiseEstimate | None:
    """From its NoiseProfile tag, None where it has none; see `noise_profile`."""
    return noise_profile(frame.noise_profile) if frame.noise_profile else None

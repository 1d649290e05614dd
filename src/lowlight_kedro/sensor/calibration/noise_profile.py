"""What the maker of a camera says of its noise: the NoiseProfile tag of a DNG."""

from collections.abc import Sequence

import numpy as np

from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate, judged

TRUST = 0.2  # relative standard error given to a profile: nothing in the file says how it was made


def noise_profile(scale_and_offset: Sequence[tuple[float, float]]) -> NoiseEstimate:
    """The estimate of a NoiseProfile tag, verdict `poor`: measured models fit better (SNIC, arXiv 2512.15905).

    Args:
        scale_and_offset: (S, O) per colour plane, one pair for all or one each: sigma(x)**2 = S x + O with x = 0 at the
            black and 1 at the white level (DNG specification 1.4, tag 51041).

    The errors are the spread of the planes, at least 20 %.

    Raises:
        ValueError: not a list of pairs.
    """
    profile = np.asarray(scale_and_offset, float)
    if profile.ndim != 2 or profile.shape[1] != 2 or not len(profile):
        raise ValueError(f"scale_and_offset must be one (S, O) per colour plane, got an array of shape {profile.shape}")
    scale, offset = profile.mean(axis=0)
    scale_error, offset_error = np.maximum(profile.std(axis=0), TRUST * np.abs([scale, 2 * offset]))
    read_noise = float(np.sqrt(max(offset, 0.0)))
    read_error = float(offset_error / (2 * read_noise)) if read_noise else np.inf
    estimate = NoiseEstimate(float(scale), float(scale_error), read_noise, read_error, verdict="poor", reason="maker's own profile")
    if not (scale > 0 and offset > 0 and np.isfinite(scale + offset)):
        return NoiseEstimate(
            float(scale), float(scale_error), read_noise, read_error, verdict="unusable",
            reason=f"maker's own profile has scale {scale:.3g} and offset {offset:.3g}, expected both positive",
        )  # fmt: skip
    return judged(estimate)

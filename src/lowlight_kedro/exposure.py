"""What was measured: a frame or an array as an `Exposure`, its noise told, less its darks, without the defects that it shows."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from lowlight_kedro.package import conf_source
from lowlight_kedro.restoration.observation import Exposure
from lowlight_kedro.restoration.settings import Structure
from lowlight_kedro.sensor.calibration.estimate import tag_estimate
from lowlight_kedro.sensor.calibration.single_image import image_estimate
from lowlight_kedro.sensor.cfa import UNFILTERED, Cfa, pattern_of
from lowlight_kedro.sensor.dark_map import DarkMap, measure_dark_map
from lowlight_kedro.sensor.dark_signal import DarkSignal, alike, choose_darks, dark_signal, known
from lowlight_kedro.sensor.defects import outliers
from lowlight_kedro.sensor.frame import LEAST_SIDE, Frame, normalise, range_dn, shaded
from lowlight_kedro.sensor.masked import noise_beside
from lowlight_kedro.sensor.noise import NoiseModel, PoissonGaussian
from lowlight_kedro.sensor.noise_sources import Assumed, Sources, choose_noise, variance_error

TARGET_BRIGHTNESS = 0.1  # mean light of a result whose exposure ratio nobody tells
NEUTRAL = (1.0, 1.0, 1.0)


def _checked_mosaic(mosaic: NDArray, cfa: Cfa) -> NDArray[np.float32]:
    """The array as float32, 0 = black, 1 = white."""
    planes, wanted = ((3,), "(3, H, W)") if cfa == UNFILTERED else ((), "(H, W)")
    if not isinstance(mosaic, np.ndarray) or mosaic.ndim < 2 or mosaic.shape[:-2] != planes or min(mosaic.shape[-2:]) < LEAST_SIDE:
        raise ValueError(f"a mosaic must be an array {wanted} of at least {LEAST_SIDE} x {LEAST_SIDE}, got {np.shape(mosaic)}")
    if mosaic.dtype.kind != "f":
        raise ValueError(f"a mosaic must be floating point, black 0 and white 1, got {mosaic.dtype}; give (DN - black) / (white - black)")
    if not np.isfinite(mosaic).all():
        raise ValueError(f"a mosaic must be finite, got NaN or infinity at {np.argwhere(~np.isfinite(mosaic))[0].tolist()}")
    return np.ascontiguousarray(mosaic, np.float32)


@cache
def _configured(name: str) -> dict[str, Any]:
    """A file of the configuration."""
    return yaml.safe_load((conf_source() / name).read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def noise_of(frame: Frame) -> tuple[NoiseModel, str]:
    """Photon and read noise of a frame, and where the numbers are from: as for `lowlight restore` without calibrations.

    The table of cameras, else the file's own tag, else the frame itself, else an assumption.
    """
    table, assumed = _configured("base/globals.yml")["cameras"], _configured("restore/parameters.yml")["sensor"]["noise"]["assumed"]
    own = {"tag": lambda: tag_estimate(frame), "image": lambda: image_estimate(frame)}
    values, source, _ = choose_noise(
        frame.noise_known_as, frame.iso, range_dn(frame), Sources(table=table, own=own, assumed=Assumed(**assumed))
    )
    return PoissonGaussian(values["gain"], values["read_noise"]), source


def _maps_of(darks: Sequence[Frame]) -> list[DarkMap]:
    """A map for each set of darks that are alike.

    Raises:
        ValueError: a dark cannot be used.
    """
    named = {str(number): dark for number, dark in enumerate(darks)}
    sets = alike((name, (dark.camera, dark.iso, dark.exposure_s, dark.shape)) for name, dark in named.items())
    maps, left_out = list[DarkMap](), list[str]()
    for names in sets.values():
        one, reasons = measure_dark_map([partial(replace, named[name]) for name in names], names)
        maps, left_out = [*maps, one], left_out + reasons
    if left_out:
        raise ValueError("; ".join(left_out))
    return maps


def _dark_of(raw: Frame | NDArray, darks: Sequence[Frame] | DarkMap, noise: NoiseModel) -> DarkSignal:
    """What a frame shows without light.

    Raises:
        ValueError: a dark cannot be used, or does not fit the frame.
    """
    if not isinstance(raw, Frame):
        raise ValueError("darks are for frames of `read_raw`; take them off an array yourself")
    maps = [known(one) for one in ([darks] if isinstance(darks, DarkMap) else _maps_of(darks))]
    strangers = [one for one in maps if not one.fit(raw.noise_known_as, raw.iso, raw.shape)]  # each was given for this frame
    chosen = choose_darks(strangers or maps, raw.noise_known_as, raw.iso, raw.exposure_s, raw.shape)
    if chosen.darks is None:
        raise ValueError(f"no darks fit: {chosen.why}")
    return dark_signal(chosen.darks.map, raw, noise)


def exposure_of(
    raw: Frame | NDArray, cfa: str | Cfa | None, noise: NoiseModel | None, white_balance: tuple[float, float, float] | None,
    ratio: float | None, darks: Sequence[Frame] | DarkMap | None,
) -> tuple[Exposure, str, NDArray]:  # fmt: skip
    """What was measured, where its noise is from, and the matrix that shows it; arguments as of `restore`.

    Raises:
        ValueError: something does not fit; the message names it.
    """
    if isinstance(raw, Frame):
        if cfa is not None:
            raise ValueError("cfa is for arrays; a frame has its own")
        signal, pattern, balance, matrix = normalise(raw), raw.cfa, white_balance or raw.white_balance, raw.camera_to_srgb
    elif cfa is None:
        raise ValueError("an array needs its colour filter pattern: cfa='RGGB' or another")
    else:
        pattern = pattern_of(cfa)
        signal, balance, matrix = _checked_mosaic(raw, pattern), white_balance or NEUTRAL, np.eye(3, dtype=np.float32)
    source = "given"
    if noise is None:
        if not isinstance(raw, Frame):
            raise ValueError("an array needs its noise: gain and read_noise, in its own units (Var = gain * signal + read_noise^2)")
        noise, source = noise_of(raw)
    noise = noise_beside(noise, raw) if isinstance(raw, Frame) else noise
    dark = None if darks is None else _dark_of(raw, darks, noise)
    if dark is not None:
        signal = dark.taken_off(signal)
    shading = raw.shading if isinstance(raw, Frame) else None
    if ratio is None:
        ratio = max(TARGET_BRIGHTNESS / max(float(shaded(signal, shading).mean()), 1e-9), 1.0)
    if not (np.isfinite(ratio) and ratio > 0):
        raise ValueError(f"ratio must be a positive number, got {ratio}")
    if len(balance) != 3 or not all(np.isfinite(gain) and gain > 0 for gain in balance):
        raise ValueError(f"white_balance must be three positive gains, got {balance}")
    exposure = Exposure(
        signal, pattern, (balance[0], balance[1], balance[2]), float(ratio), noise,
        defects=raw.defects if isinstance(raw, Frame) else None, shading=shading, added_std=None if dark is None else dark.std,
        noise_error=variance_error(source, black_known=dark is not None or (isinstance(raw, Frame) and bool(raw.masked))),
    )  # fmt: skip
    return exposure, source, matrix


def with_defects(exposure: Exposure, structure: Structure) -> Exposure:
    """The same with the defects that are found in it, if they are looked for, beside those known; three values a pixel show none."""
    if exposure.cfa == UNFILTERED or not structure.defects:
        return exposure
    found = outliers(exposure.signal, exposure.cfa, exposure.noise)
    return replace(exposure, defects=found if exposure.defects is None else found | exposure.defects)

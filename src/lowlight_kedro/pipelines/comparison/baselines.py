"""What people would use instead, as methods of the comparison: `DEMOSAICER`, `DENOISER`, `DENOISER+DEMOSAICER` or `rawtherapee`.

Demosaicers are the project's own, LibRaw's as `libraw:DHT`, `demosaicnet`, or plug-ins; denoisers (`evaluation.baselines`) work on
a Bayer mosaic behind a variance-stabilising transform that knows the noise. RawTherapee denoises (`rawtherapee`) or not
(`rawtherapee:plain`), and demosaics. Nothing here asks the prior.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.datasets.rawtherapee import PLAIN, Denoising, rawtherapee
from lowlight_kedro.evaluation.baselines import BASELINES, denoise_signal
from lowlight_kedro.evaluation.baselines.demosaicnet import demosaicnet
from lowlight_kedro.pipelines.inference.frames import exposed
from lowlight_kedro.pipelines.inference.model import Restoration
from lowlight_kedro.pipelines.preprocessing.options import find_demosaicer
from lowlight_kedro.sensor.demosaic import Demosaicer
from lowlight_kedro.sensor.frame import Frame, balanced, mosaic_only, shaded

RAWTHERAPEE = {"rawtherapee": Denoising(), "rawtherapee:plain": PLAIN}  # the first is its best of eight ways at x100 (docs/quality.md)
CLASSICAL = {2: "malvar2004", 6: "lmmse"}  # the demosaicer of a denoiser that names none, by the period of the mosaic


def _demosaicer(name: str) -> Demosaicer:
    """One that pipelines know, or `demosaicnet`."""
    return demosaicnet if name == "demosaicnet" else find_demosaicer(name)


def parts_of(name: str) -> tuple[str | None, str | None]:
    """Denoiser and demosaicer of a baseline's name, None where it names none, as RawTherapee, which does both.

    Raises:
        ValueError: neither is known.
    """
    first, _, second = name.partition("+")
    if name in RAWTHERAPEE:
        return None, None
    denoiser, demosaicer = (first, second or None) if first in BASELINES else (None, first)
    if denoiser is None and second:
        raise ValueError(f"unknown denoiser {first!r} of baseline {name!r}; choose of: {', '.join(BASELINES)}")
    if demosaicer is not None:
        try:
            _demosaicer(demosaicer)
        except ValueError as error:
            others = ", ".join((*BASELINES, *RAWTHERAPEE, "demosaicnet"))
            raise ValueError(f"unknown baseline {name!r}: none of {others}, and {error}") from error
    return denoiser, demosaicer


def _developed(name: str, signal: NDArray, noise: Any, ratio: float, frame: Frame) -> NDArray[np.float32]:
    """By a denoiser and a demosaicer."""
    denoiser, demosaicer = parts_of(name)
    if denoiser is not None:
        if len(frame.cfa) != 2:
            raise ValueError(f"baseline {name} denoises Bayer mosaics only; this frame has another colour filter array")
        height, width = signal.shape  # reflected, a last odd row or column goes on in its own colours
        even = np.pad(signal, ((0, height % 2), (0, width % 2)), mode="reflect")
        signal = denoise_signal(even, noise.gain, noise.read_noise, BASELINES[denoiser])[:height, :width]
    demosaic = _demosaicer(demosaicer or CLASSICAL[len(frame.cfa)])
    return demosaic(balanced(signal * np.float32(ratio), frame.cfa, frame.white_balance, frame.shading), frame.cfa)


def develop_baseline(
    name: str, raw: Callable[[], Frame], paired: float, shared: Restoration
) -> tuple[NDArray[np.float32], dict[str, Any]]:  # fmt: skip
    """White-balanced light (3, H, W) of a frame by a baseline, at the exposure ratio that a restoration would get, and its record.

    Raises:
        ValueError: the baseline does not know this mosaic, or its package is missing.
    """
    begin = time.perf_counter()
    frame, exposure, about = exposed(lambda: mosaic_only(raw()), paired, shared)
    signal, noise = exposure.signal, exposure.noise
    if name in RAWTHERAPEE:
        signal = shaded(signal, frame.shading)
        light = rawtherapee(signal, frame.cfa, frame.white_balance, exposure.exposure_ratio, RAWTHERAPEE[name])
    else:
        try:
            light = _developed(name, signal, noise, exposure.exposure_ratio, frame)
        except ImportError as error:
            raise ValueError(str(error)) from error
    if light.shape[1:] != frame.mosaic_dn.shape:
        raise ValueError(f"baseline {name} gives {light.shape[1:]} pixels of {frame.mosaic_dn.shape} photosites: no comparison by pixel")
    return light, about | {"baseline": name, "evaluations": 0, "seconds": round(time.perf_counter() - begin, 2)}

"""What people would use instead, behind one call: (shot) -> white-balanced linear light (3, H, W)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from numpy.typing import NDArray
from scenes import Shot, balanced_signal

from lowlight_kedro.datasets.libraw import available, libraw_demosaicer
from lowlight_kedro.evaluation.baselines import BASELINES, demosaicnet, denoise_signal
from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.demosaic import DEMOSAICERS

CLASSICAL = {2: "malvar2004", 6: "directional_lmmse"}  # the demosaicer of `scaled` and of denoisers, by the period of the mosaic


def demosaicer(name: str) -> Callable[[NDArray, Cfa], NDArray]:
    """One of ours, LibRaw's as `libraw:DHT`, or `demosaicnet`."""
    if name == "demosaicnet":
        return demosaicnet
    return libraw_demosaicer(name.removeprefix("libraw:")) if name.startswith("libraw:") else DEMOSAICERS[name]


def developed(shot: Shot, demosaic: str | None = None) -> NDArray:
    """The exposure-scaled input, demosaiced; by the classical method of its mosaic where none is named."""
    light = balanced_signal(shot)
    return light if shot.cfa is None else demosaicer(demosaic or CLASSICAL[len(shot.cfa)])(light, shot.cfa)


def denoised(shot: Shot, denoiser: str, demosaic: str | None = None) -> NDArray:
    """Denoised by a baseline behind a variance-stabilising transform, then `developed`."""
    signal = denoise_signal(shot.signal, shot.noise.gain, shot.noise.read_noise, BASELINES[denoiser])
    return developed(replace(shot, signal=signal), demosaic)


def peer(name: str, layout: str) -> Callable[[Shot], NDArray] | None:
    """`scaled`, a demosaicer, a denoiser, or `denoiser+demosaicer`; None where it does not know the layout, or is no peer's name."""
    before, _, after = name.partition("+")
    if name == "scaled":
        return developed
    if before in BASELINES:
        known = layout == "bayer" or (layout == "rgb" and not after)  # they work on the four planes of a Bayer mosaic
        return partial(denoised, denoiser=before, demosaic=after or None) if known else None
    period = {"bayer": 2, "xtrans": 6}.get(layout)
    if period is None or (name.startswith("libraw:") and name.removeprefix("libraw:") not in available(period)):
        return None
    return partial(developed, demosaic=name)


def is_peer(name: str) -> bool:
    """Whether `peer` knows it."""
    before = name.partition("+")[0]
    return before in {"scaled", "demosaicnet", *BASELINES, *DEMOSAICERS} or before.startswith("libraw:")

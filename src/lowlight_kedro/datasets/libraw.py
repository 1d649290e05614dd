"""LibRaw's own demosaicers as ours: of a mosaic in memory, by way of a temporary DNG, since LibRaw reads only files."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.demosaic.strips import continued
from lowlight_kedro.sensor.frame import Frame

PREFIX = "libraw:"
WHITE_DN = 65535
HEADROOM = 1 / 16  # of the range of the mosaic, below and above: interpolation may overshoot, and LibRaw clips
# For X-Trans LibRaw runs Markesteijn's algorithm in one pass when asked for PPG, in three for anything better.
FOR_XTRANS = ("LINEAR", "VNG", "PPG", "AHD")
LEAST_SIDE = {2: 32, 6: 512}  # LibRaw reports an input/output error for smaller X-Trans files
BORDER = 12  # sites added around, whole periods: LibRaw's borders of up to 8 pixels are cruder, AAHD's and X-Trans's wrong


@dataclass(frozen=True)
class Scaling:
    """Signal to the digital numbers of the temporary file and back; nothing clips, zero signal is not black."""

    lowest: float
    step: float

    @classmethod
    def of(cls, mosaic: NDArray) -> "Scaling":
        """The range of `mosaic` and HEADROOM on both sides on 16 bit."""
        low, high = float(mosaic.min()), float(mosaic.max())
        span = (high - low) or 1.0
        return cls(low - HEADROOM * span, (1 + 2 * HEADROOM) * span / WHITE_DN)

    def to_dn(self, signal: NDArray) -> NDArray[np.uint16]:
        """Rounded to the nearest number."""
        return np.rint((signal - self.lowest) / self.step).astype(np.uint16)

    def to_signal(self, dn: NDArray) -> NDArray[np.float32]:
        """The inverse of `to_dn`, to half a `step`."""
        return dn * np.float32(self.step) + np.float32(self.lowest)


def available(period: int = 2) -> list[str]:
    """Algorithms of this build of LibRaw for patterns of `period`, 2 for Bayer and 6 for X-Trans."""
    import rawpy

    supported = [algorithm.name for algorithm in rawpy.DemosaicAlgorithm if algorithm.isSupported]
    return [name for name in supported if period == 2 or name in FOR_XTRANS]


def libraw_demosaicer(algorithm: str) -> Callable[[NDArray, Cfa], NDArray[np.float32]]:
    """The demosaicer that runs LibRaw's `algorithm` (`"AHD"`, `"DHT"`, ...); exact to 16 bits of the mosaic's range.

    Raises:
        ValueError: this build of LibRaw does not have it.
    """
    if algorithm not in available():
        raise ValueError(f"this LibRaw has no demosaicing algorithm {algorithm!r}; choose one of: {', '.join(available())}")
    return lambda mosaic, cfa: _demosaic(mosaic, cfa, algorithm)


def _padded(mosaic: NDArray, cfa: Cfa) -> NDArray:
    """The mosaic with BORDER sites more on each side, and so many as LibRaw needs, at the same phase."""
    colours, least = np.asarray(cfa), LEAST_SIDE[len(cfa)]
    rows, columns = (
        continued(lines, length, BORDER, max(BORDER, least - length))
        for lines, length in zip((colours, colours.T), mosaic.shape, strict=True)
    )
    return mosaic[np.ix_(rows, columns)]


def _demosaic(mosaic: NDArray, cfa: Cfa, algorithm: str) -> NDArray[np.float32]:
    """RGB (3, H, W) of a white-balanced linear mosaic (H, W)."""
    if algorithm not in available(len(cfa)):
        valid = ", ".join(available(len(cfa)))
        raise ValueError(f"LibRaw's {algorithm} is for Bayer mosaics only; for X-Trans choose one of: {valid}")
    scaling = Scaling.of(mosaic)
    frame = Frame(
        mosaic_dn=scaling.to_dn(_padded(mosaic, cfa)),
        cfa=cfa,
        black_level=np.zeros((len(cfa),) * 2, np.float32),
        white_level=WHITE_DN,
        exposure_s=1.0,
        iso=100.0,
        camera="lowlight mosaic",
        white_balance=(1.0, 1.0, 1.0),
        camera_to_srgb=np.eye(3, dtype=np.float32),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mosaic.dng"
        write_dng(path, frame)
        inside = tuple(slice(BORDER, BORDER + side) for side in mosaic.shape)
        return scaling.to_signal(np.moveaxis(developed(path, algorithm)[inside], 2, 0))


def developed(path: Path, algorithm: str) -> NDArray[np.uint16]:
    """A raw file demosaiced by LibRaw and nothing else done to it: (H, W, 3), DN of the file.

    No black is subtracted, no level scaled, no gain, gamma, matrix, flip or filter applied.
    """
    import rawpy

    with rawpy.imread(str(path)) as raw:
        rgb = raw.postprocess(
            demosaic_algorithm=rawpy.DemosaicAlgorithm[algorithm],
            output_color=rawpy.ColorSpace.raw,
            output_bps=16,
            gamma=(1, 1),
            no_auto_bright=True,
            no_auto_scale=True,
            adjust_maximum_thr=0,
            user_black=0,
            user_sat=WHITE_DN,
            user_wb=[1, 1, 1, 1],
            user_flip=0,
        )
    return np.asarray(rgb, np.uint16)


def published_picture(path: Path) -> NDArray[np.float64]:
    """LibRaw's picture of a raw as See-in-the-Dark takes it for the truth: (3, H, W) in [0, 1] of 16 bits, as the sensor lies.

    The camera's white balance, AHD, sRGB primaries, BT.709's curve, no automatic brightness (test_Sony.py of its code).
    """
    import rawpy

    with rawpy.imread(str(path)) as raw:
        rgb = raw.postprocess(use_camera_wb=True, half_size=False, no_auto_bright=True, output_bps=16, user_flip=0)
    return np.moveaxis(rgb, 2, 0) / 65535

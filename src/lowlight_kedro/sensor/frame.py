"""One decoded raw and its normalisation, shared by training and inference."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import UNFILTERED, Cfa, tile_pattern
from lowlight_kedro.sensor.levels import WhiteFrom

UNKNOWN_CAMERA = "unknown camera"  # of a file that does not name its own
LEAST_SIDE = 16  # photosites; less is no photograph
LEAST_RANGE = 16  # DN between black and white; the coarsest raws have 255
LARGEST_ENTRY = 20.0  # of a colour matrix whose rows sum to 1; real ones stay below 4
COUNTS = {2: (1, 2, 1), 6: (8, 20, 8)}  # photosites of R, G, B in one period


@dataclass(frozen=True)
class LensCorrections:
    """What a DNG wants done with the demosaiced picture (OpcodeList3): left to editors, and carried into files for them.

    Attributes:
        names: of its opcodes, each once.
        opcodes: the list as it lies in the file.
        version: of the DNG specification that a reader must know, four bytes.
    """

    names: tuple[str, ...]
    opcodes: bytes
    version: bytes


@dataclass(frozen=True)
class Masked:
    """What photosites that see no light told of a frame, DN; see `sensor.masked`.

    Attributes:
        sites: how many they are.
        black: level of R, G, B above that of the file, already part of the frame's `black_level`.
        black_std: what is not known of it.
        rows: standard deviation of the offsets of the rows, already part of `black_level`; 0: none is clear.
        rows_std: standard deviation of what is left of them; None: that of the noise model.
    """

    sites: int
    black: tuple[float, ...]
    black_std: float
    rows: float
    rows_std: float | None


@dataclass(frozen=True)
class Frame:
    """The visible area of one raw file, in digital numbers (DN), with what is needed to read it.

    Attributes:
        mosaic_dn: (H, W) photosites as recorded; (3, H, W) where each pixel has three values.
        cfa: colour filter pattern, phase 0 at the top left; `cfa.UNFILTERED` where each pixel has three values.
        black_level: DN of no light, a pattern (p, q) that repeats over the mosaic, phase 0 at the top left; as a rule of
            the period of `cfa`, but any other, up to the whole mosaic, where rows, columns or other patterns differ; (3, 1, 1) where
            each pixel has three values.
        white_level: DN of saturation.
        exposure_s: exposure time, seconds; nan where the file does not say.
        iso: ISO speed; nan where the file does not say.
        camera: maker and model, or UNKNOWN_CAMERA.
        white_balance: as-shot multipliers of R, G, B, green = 1.
        camera_to_srgb: (3, 3) matrix from white-balanced camera RGB to linear sRGB, rows sum to 1.
        white_from: whether `white_level` is the file's `"tag"` or was `"measured"` in the photosites.
        noise_profile: the maker's (slope, offset), one pair or one for each of R, G, B, if the file tells:
            variance = slope * signal + offset of the signal of `normalise` (DNG 1.7.1, NoiseProfile).
        orientation: how to turn the picture upright when it is shown, see `render.oriented`.
        default_crop: (top, left, height, width) of the part that is the picture by the camera's own count; None: all of it.
        pixel_aspect: width of a photosite over its height.
        denoised: whether the file says that its noise was reduced already (DNG 1.7.1, NoiseReductionApplied).
        defects: photosites (H, W) that the file itself calls defective; None: none.
        shading: gains (H, W), or (3, H, W), by which the file wants the signal multiplied (GainMap of a DNG): the light is signal *
            shading, and so is its noise. None: 1.
        lens: corrections of the whole demosaiced picture; None: the file tells none.
        masked: what masked photosites told of the black level; None: there are none, or they are not believed.
        undone: what the file asks to be done with its photosites and is not, in words.
        guessed: which of "white balance" and "colour matrix" the file does not tell and nobody knows of its camera.
    """

    mosaic_dn: NDArray[np.uint16]
    cfa: Cfa
    black_level: NDArray[np.float32]
    white_level: float
    exposure_s: float
    iso: float
    camera: str
    white_balance: tuple[float, float, float]
    camera_to_srgb: NDArray[np.float32]
    white_from: WhiteFrom = "tag"
    noise_profile: tuple[tuple[float, float], ...] | None = None
    orientation: int = 0
    default_crop: tuple[int, int, int, int] | None = None
    pixel_aspect: float = 1.0
    denoised: bool = False
    guessed: tuple[str, ...] = ()
    defects: NDArray[np.bool_] | None = None
    shading: NDArray[np.float32] | None = None
    lens: LensCorrections | None = None
    masked: Masked | None = None
    undone: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.mosaic_dn.shape[-2:]
        return height, width

    @property
    def noise_known_as(self) -> str:
        """The name under which calibrations and tables may know its noise: what they measure at photosites holds for mosaics only."""
        return f"{self.camera}, three values a pixel" if self.cfa == UNFILTERED else self.camera


def _inconsistencies(frame: Frame) -> Iterator[str]:
    """What cannot be true of a photograph, in words that follow a file's name."""
    planes = (3,) if frame.cfa == UNFILTERED else ()
    if frame.mosaic_dn.shape[:-2] != planes or min(frame.shape) < LEAST_SIDE:
        yield f"its visible area is {' x '.join(map(str, frame.mosaic_dn.shape))}, expected at least {LEAST_SIDE} x {LEAST_SIDE}"
    counts = tuple(int(np.sum(np.asarray(frame.cfa) == channel)) for channel in range(3))
    if frame.cfa != UNFILTERED and (COUNTS.get(len(frame.cfa)) != counts or (len(frame.cfa) == 2 and frame.cfa[0].count(1) != 1)):
        yield f"its colour filter array {frame.cfa} is neither Bayer (two greens on a diagonal) nor X-Trans (20 greens of 36)"
    black, white = frame.black_level, frame.white_level
    if not (np.isfinite(black).all() and np.isfinite(white) and white >= black.max() + LEAST_RANGE):
        yield f"its white level {white:g} does not lie above its black level {black.max():g} by at least {LEAST_RANGE} DN"
    if not (np.isfinite(frame.camera_to_srgb).all() and np.abs(frame.camera_to_srgb).max() <= LARGEST_ENTRY):
        yield "its colour matrix holds entries that no camera has"


def checked(frame: Frame) -> Frame:
    """`frame` itself, if what it says can be true together.

    Raises:
        ValueError: size, colour filter array, levels or colour matrix cannot be a photograph's.
    """
    for inconsistency in _inconsistencies(frame):
        raise ValueError(inconsistency)
    return frame


def mosaic_only(frame: Frame) -> Frame:
    """`frame` itself, for work that compares photosites.

    Raises:
        ValueError: each of its pixels has three values.
    """
    if frame.cfa == UNFILTERED:
        raise ValueError(
            "each of its pixels has three values (linear DNG, sRAW), no mosaic: it can be restored, but not compared or calibrated"
        )
    return frame


def with_white(frame: Frame, white_level: float, white_from: WhiteFrom) -> Frame:
    """`frame` in units of another white level, its noise profile with it: signal scales by c, slope by c, offset by c^2."""
    black = float(frame.black_level.mean())
    scale = (frame.white_level - black) / (white_level - black)
    profile = frame.noise_profile and tuple((slope * scale, offset * scale**2) for slope, offset in frame.noise_profile)
    return replace(frame, white_level=white_level, white_from=white_from, noise_profile=profile)


def lowest_white(frames: Iterable[Frame]) -> float | None:
    """The lowest white level that was measured in any of them, DN; None where none shows its own. Keeps no frame.

    Raises:
        ValueError: one is no mosaic.
    """
    return min((frame.white_level for frame in map(mosaic_only, frames) if frame.white_from == "measured"), default=None)


def in_white(frame: Frame, measured: float | None) -> Frame:
    """`frame` in units of the `lowest_white` of its companions."""
    return frame if measured is None else with_white(frame, measured, "measured")


def same_white(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """Exposures of one camera at one ISO in one unit: the lowest white level measured in any of them, for all.

    A dark exposure shows no saturation, so that its own white level stays the tag; compared with a bright one, its
    signal would be off by the tag's error.
    """
    white = lowest_white(frames)
    return tuple(in_white(frame, white) for frame in frames)


def _lines(height: int, period: int) -> Iterator[tuple[int, slice]]:
    """Rows of an image by phase, a few at a time: what one step writes is still in cache for the next."""
    for top in range(0, height, 8 * period):
        for phase in range(min(period, height - top)):
            yield phase, slice(top + phase, min(top + 8 * period, height), period)


def normalise(frame: Frame) -> NDArray[np.float32]:
    """Signal (H, W) of each photosite: 0 = black level, 1 = white level. Not clipped: noise falls below 0, and must.

    s = (DN - black) / (white - black); (3, H, W) where each pixel has three values. Shading is in it still, so that its noise is the
    camera's own: `balanced` makes light of it.
    """
    if frame.cfa == UNFILTERED:
        return (frame.mosaic_dn - frame.black_level) / (np.float32(frame.white_level) - frame.black_level)
    height, width = frame.mosaic_dn.shape
    period = len(frame.black_level)
    black = tile_pattern(frame.black_level.astype(np.float32), (period, width))
    span = np.float32(frame.white_level) - black
    signal = np.empty((height, width), np.float32)
    for phase, rows in _lines(height, period):
        np.subtract(frame.mosaic_dn[rows], black[phase], out=signal[rows])
        signal[rows] /= span[phase]
    return signal


def shaded(signal: NDArray, shading: NDArray | None) -> NDArray:
    """Light of a signal, as the gains of its photosites make it; the signal itself without any."""
    return signal if shading is None else signal * shading


def between(points: NDArray, places: NDArray, axis: int) -> NDArray:
    """Values of a grid (h, w) at `places` along an axis, in steps of the grid: linear between its points, constant beyond the last."""
    at = np.clip(places, 0, points.shape[axis] - 1)
    low = at.astype(int)
    high, fraction = np.minimum(low + 1, points.shape[axis] - 1), np.expand_dims((at - low).astype(points.dtype), 1 - axis)
    return np.take(points, low, axis) * (1 - fraction) + np.take(points, high, axis) * fraction


def balanced(
    signal: NDArray, cfa: Cfa, white_balance: tuple[float, float, float], shading: NDArray | None = None
) -> NDArray[np.float32]:  # fmt: skip
    """Light: each photosite of `signal` (H, W) times the white-balance gain of its channel and its `shading`; (3, H, W) without filters."""
    signal = shaded(signal, shading)
    if cfa == UNFILTERED:
        return (signal * np.asarray(white_balance, np.float32)[:, None, None]).astype(np.float32)
    gains = tile_pattern(np.asarray(white_balance, np.float32)[np.asarray(cfa)], (len(cfa), signal.shape[1]))
    result = np.empty(signal.shape, np.float32)
    for phase, rows in _lines(len(signal), len(cfa)):
        np.multiply(signal[rows], gains[phase], out=result[rows], casting="same_kind")
    return result


def range_dn(frame: Frame) -> float:
    """White - black in DN: what one unit of signal is; of the mean black level."""
    return frame.white_level - float(frame.black_level.mean())


def part_of(frame: Frame, top: int, left: int, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a part; `top` and `left` move up to the start of a colour filter period.

    Raises:
        ValueError: the part does not lie inside the frame.
    """
    period = max(len(frame.cfa), 1)
    top, left = top - top % period, left - left % period
    rows, columns = frame.shape
    if min(top, left) < 0 or min(height, width) < 1 or top + height > rows or left + width > columns:
        raise ValueError(f"crop [{top}, {left}, {height}, {width}] must lie inside the frame of {rows} x {columns}")
    return slice(top, top + height), slice(left, left + width)


def crop(frame: Frame, top: int, left: int, height: int, width: int) -> Frame:
    """The `part_of` a frame. Corrections of the lens hold for the whole only.

    Raises:
        ValueError: the part does not lie inside the frame.
    """
    rows, columns = part_of(frame, top, left, height, width)
    black = np.roll(frame.black_level, (-rows.start, -columns.start), (-2, -1))
    defects = None if frame.defects is None else frame.defects[rows, columns]
    shading = None if frame.shading is None else frame.shading[..., rows, columns]
    undone = (*frame.undone, *(f"{name} not done" for name in frame.lens.names)) if frame.lens else frame.undone
    return replace(
        frame, mosaic_dn=frame.mosaic_dn[..., rows, columns], black_level=black, default_crop=None, defects=defects, shading=shading,
        lens=None, undone=undone,
    )  # fmt: skip

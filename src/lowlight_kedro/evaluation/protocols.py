"""Published ways to score a restored frame against its long exposure, by name: what is compared, where, and scaled how.

Papers of this field differ in crop, scaling and clipping, so every number here carries all three (`Score`). No protocol here
moves the long exposure or masks anything: that is what was published. `linear_rgb`, the project's own, does both; its images
and metrics come from `evaluation.metrics`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa, sample
from lowlight_kedro.sensor.frame import Frame, normalise, range_dn, with_white

PUBLISHED_WHITE = 16383.0  # DN: ELD's and SID's code take it for every camera, whatever its file says

Scaling = Literal["plain", "aligned"]


@dataclass(frozen=True)
class Protocol:
    """How restored and long exposure are made comparable.

    Attributes:
        space: `raw`, the four colour planes of a Bayer mosaic; `srgb`, 8 bits as shown; `linear`, white-balanced linear RGB.
        crop: side of the centre that counts, pixels of that space; None: the full frame.
        scalings: `plain`, the ratio of the headers and nothing else; `aligned`, then times one number, see `aligned`.
        source: where the definition is from.
    """

    space: Literal["raw", "srgb", "linear"]
    crop: int | None
    scalings: tuple[Scaling, ...]
    source: str

    @property
    def region(self) -> str:
        """In words."""
        return "full frame" if self.crop is None else f"centre {self.crop} x {self.crop}"


PROTOCOLS: dict[str, Protocol] = {
    "linear_rgb": Protocol("linear", None, ("plain",), "this project: moved over the short exposure, still and unsaturated pixels"),
    "sid_raw": Protocol("raw", None, ("plain", "aligned"), "PMN (Feng et al. 2022), trainer_SID.py: See-in-the-Dark, full frames"),
    "sid_raw_512": Protocol("raw", 512, ("plain", "aligned"), "ELD (Wei et al. 2020), models/ELD_model.py: the centre of See-in-the-Dark"),
    "eld_raw": Protocol("raw", None, ("plain", "aligned"), "ELD (Wei et al. 2020), test_ELD.py: full frames, aligned"),
    "sid_srgb": Protocol("srgb", None, ("plain",), "See-in-the-Dark (Chen et al. 2018), test_Sony.py: LibRaw's picture, 8 bits"),
}


@dataclass(frozen=True)
class Score:
    """One number with what it was made of: without these no two numbers can be compared.

    Attributes:
        protocol, region, scaling: see `Protocol`.
        metric: its name.
        value: dB for psnr, up to 1 for ssim.
        white_dn: what counts as 1 before scaling, DN.
        factor: what the restored values were multiplied by to align them; 1 where they were not.
    """

    protocol: str
    region: str
    scaling: str
    metric: str
    value: float
    white_dn: float
    factor: float = 1.0


def recorded(light: NDArray, cfa: Cfa, white_balance: tuple[float, float, float]) -> NDArray:
    """The mosaic (H, W) that shows white-balanced `light` (3, H, W): each site its own channel, the balance taken out."""
    return sample(light / np.asarray(white_balance, light.dtype)[:, None, None], cfa)


def packed(signal: NDArray, cfa: Cfa) -> NDArray[np.float64]:
    """The planes (4, H / 2, W / 2) of a Bayer mosaic, clipped to [0, 1]; a last odd row or column is left out.

    In the order of the sites, row by row: PSNR and SSIM, means over channels, do not depend on it.

    Raises:
        ValueError: no Bayer mosaic.
    """
    if len(cfa) != 2:
        raise ValueError("packed raw is defined for Bayer mosaics; of X-Trans frames score linear_rgb")
    rows, columns = (side // 2 * 2 for side in signal.shape)
    return np.stack([signal[row:rows:2, column:columns:2] for row in (0, 1) for column in (0, 1)]).clip(0, 1).astype(np.float64)


def centred(image: NDArray, side: int | None) -> NDArray:
    """The centre (C, side, side) of an image (C, H, W), as ELD cuts it: from H // 2 - side // 2; all of it for None.

    Raises:
        ValueError: the image is smaller.
    """
    if side is None:
        return image
    height, width = image.shape[1:]
    if min(height, width) < side:
        raise ValueError(f"the centre {side} x {side} does not fit into {height} x {width}; choose a protocol of full frames")
    top, left = height // 2 - side // 2, width // 2 - side // 2
    return image[:, top : top + side, left : left + side]


def alignment(image: NDArray, truth: NDArray) -> float:
    """The number c = <p, g> / <p, p> over values with g != 1 that brings image p nearest to truth g (ELD, IlluminanceCorrect).

    1 where p is black.
    """
    p, g = image[truth != 1], truth[truth != 1]
    return float((p * g).sum() / square) if (square := float((p * p).sum())) > 0 else 1.0


def psnr(image: NDArray, truth: NDArray) -> float:
    """10 log10(1 / MSE), dB, data range 1 (or 255 on values of 255: the same number); infinite where they are equal."""
    error = float(np.square(image - truth).mean())
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def ssim(image: NDArray, truth: NDArray) -> float:
    """SSIM as the published code calls it: scikit-image's default, a flat 7 x 7 window, sample covariance, mean over channels.

    (`evaluation.metrics.ssim` has the Gaussian window of Wang et al. 2004 and gives another number.)
    """
    from skimage.metrics import structural_similarity

    if min(image.shape[1:]) < 7:
        raise ValueError(f"SSIM needs at least 7 x 7 pixels, got {image.shape[1]} x {image.shape[2]}")
    return float(structural_similarity(truth, image, data_range=1.0, channel_axis=0))


PUBLISHED_METRICS: dict[str, Callable[[NDArray, NDArray], float]] = {"psnr": psnr, "ssim": ssim}


def _scores(name: str, image: NDArray, truth: NDArray, white_dn: float) -> Iterator[Score]:
    """Both (C, H, W) in [0, 1], by each scaling and metric of the protocol."""
    protocol = PROTOCOLS[name]
    image, truth = centred(image, protocol.crop), centred(truth, protocol.crop)
    for scaling in protocol.scalings:
        factor = alignment(image, truth) if scaling == "aligned" else 1.0
        scaled = np.clip(image * factor, 0, 1)
        for metric, measure in PUBLISHED_METRICS.items():
            yield Score(name, protocol.region, scaling, metric, measure(scaled, truth), white_dn, factor)


def raw_scores(name: str, images: Mapping[str, NDArray], long: Frame, unit_dn: float) -> dict[str, list[Score]]:
    """Scores of restored frames by a protocol in packed raw, by title.

    Args:
        name: of the protocol.
        images: white-balanced light (3, H, W) at the exposure of `long` by the ratio of the headers.
        long: the long exposure, of the same size.
        unit_dn: DN above black that 1 of the images stands for: `range_dn` of the frame that was restored.

    Raises:
        ValueError: no Bayer mosaic, or sizes that differ.
    """
    # Files of more than 14 bits have no published white: theirs counts.
    white = PUBLISHED_WHITE if long.white_level <= PUBLISHED_WHITE else long.white_level
    long = with_white(long, white, "tag")
    truth = packed(normalise(long), long.cfa)
    scores = {}
    for title, light in images.items():
        if light.shape[1:] != long.mosaic_dn.shape:
            raise ValueError(f"{title} has {light.shape[1:]} pixels, the long exposure {long.mosaic_dn.shape}: restore the whole frame")
        light = light if long.shading is None else light / long.shading
        mosaic = recorded(light, long.cfa, long.white_balance) * (unit_dn / range_dn(long))
        scores[title] = list(_scores(name, packed(mosaic, long.cfa), truth, white))
    return scores


def encode_bt709(linear: NDArray) -> NDArray:
    """LibRaw's default curve, [0, 1] to [0, 1]: 4.5 L below 0.018, else 1.099 L^0.45 - 0.099, the constants as dcraw solves them."""
    return np.where(linear <= 0.018053968510807, 4.5 * linear, 1.09929682680944 * np.maximum(linear, 1e-8) ** 0.45 - 0.09929682680944)


def eight_bits(image: NDArray) -> NDArray[np.float64]:
    """[0, 1] rounded to the 256 values of a file, as the published code saves its results before it measures them."""
    return np.floor(np.clip(image, 0, 1) * 255 + 0.5) / 255


def srgb_scores(
    name: str, images: Mapping[str, NDArray], camera_to_srgb: NDArray, truth: NDArray, white_dn: float
) -> dict[str, list[Score]]:
    """Scores of restored frames as they are shown, by title.

    Args:
        name: of the protocol.
        images: white-balanced light (3, H, W), 1 = white, at the exposure of the long one by the ratio of the headers.
        camera_to_srgb: (3, 3).
        truth: (3, H, W) in [0, 1], LibRaw's picture of the long exposure with the camera's white balance, no automatic brightness.
        white_dn: what 1 of the images stands for, for the record.

    Raises:
        ValueError: sizes that differ.
    """
    scores = {}
    for title, light in images.items():
        if light.shape != truth.shape:
            raise ValueError(f"{title} has {light.shape[1:]} pixels, LibRaw's picture {truth.shape[1:]}: restore the whole frame")
        shown = encode_bt709(np.clip(np.tensordot(camera_to_srgb, np.clip(light, 0, 1), axes=1), 0, 1))
        scores[title] = list(_scores(name, eight_bits(shown), eight_bits(truth), white_dn))
    return scores

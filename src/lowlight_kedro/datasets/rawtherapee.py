"""What RawTherapee makes of a mosaic: its demosaicer, and its directional pyramid denoising, by way of a temporary DNG.

Camera colours as they are, no tone curve, no sharpening; log2(ratio) EV more. What comes back is scaled to the mean light of
the mosaic, for RawTherapee's own scale is not told, and ends at its white.
"""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.sensor.cfa import Cfa, sample
from lowlight_kedro.sensor.demosaic.strips import continued
from lowlight_kedro.sensor.frame import Frame, balanced
from lowlight_kedro.sensor.render import srgb_decode

PROGRAM = "rawtherapee-cli"
EDGE = {2: 4, 6: 7}  # pixels that it cuts off, by the period of the colour filters
BORDER = 12  # sites added around, whole periods of both mosaics
LEAST_SIDE = 240  # sites; it opens no file with fewer than some 200
BLACK_DN, WHITE_DN = 4096, 65535
PROFILE = """[Version]
AppVersion=5.9
[Exposure]
Auto=false
Clip=0
Compensation={compensation}
HistogramMatching=false
[White Balance]
Enabled=true
Setting=Camera
[Color Management]
InputProfile=(none)
ToneCurve=false
WorkingProfile=sRGB
OutputProfile=No ICM: sRGB output
[Directional Pyramid Denoising]
Enabled={enabled}
Method={method}
LMethod=SLI
CMethod=MAN
C2Method=MANU
SMethod={aggressiveness}
Luma={luminance}
Ldetail=0
Chroma={chrominance}
Gamma=1.7
[RAW]
CA=false
HotPixelFilter=false
[RAW Bayer]
Method=amaze
[RAW X-Trans]
Method=3-pass (best)
"""


@dataclass(frozen=True)
class Denoising:
    """Settings of directional pyramid denoising; none with luminance 0. `shalbi` is more aggressive than `shal`."""

    method: str = "RGB"
    aggressiveness: str = "shalbi"
    luminance: int = 60
    chrominance: int = 20

    def profile(self, ratio: float) -> str:
        """The text of a `.pp3` file."""
        return PROFILE.format(compensation=np.log2(ratio), enabled=str(self.luminance > 0).lower(), **vars(self))


PLAIN = Denoising(luminance=0, chrominance=0)


def rawtherapee(
    signal: NDArray, cfa: Cfa, white_balance: tuple[float, float, float], ratio: float, denoising: Denoising = PLAIN
) -> NDArray[np.float32]:  # fmt: skip
    """White-balanced light (3, H, W), `ratio` times brighter, of a mosaic (H, W) with 0 = black, 1 = white.

    Raises:
        ValueError: RawTherapee is not installed, or gives no picture.
    """
    if shutil.which(PROGRAM) is None:
        raise ValueError(f"the baseline rawtherapee needs the program {PROGRAM}: apt-get install rawtherapee, or rawtherapee.com")
    colours = np.asarray(cfa)
    rows, columns = (
        continued(lines, length, BORDER, max(BORDER, LEAST_SIDE - length))
        for lines, length in zip((colours, colours.T), signal.shape, strict=True)
    )
    dn = np.clip(np.rint(BLACK_DN + (WHITE_DN - BLACK_DN) * signal[np.ix_(rows, columns)]), 0, WHITE_DN).astype(np.uint16)
    frame = Frame(
        dn, cfa, np.full((len(cfa),) * 2, BLACK_DN, np.float32), WHITE_DN, exposure_s=0.1, iso=100.0, camera="lowlight mosaic",
        white_balance=white_balance, camera_to_srgb=np.eye(3, dtype=np.float32),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "mosaic.dng"
        write_dng(raw, frame)
        light = developed(raw, ratio, denoising, Path(folder))
    begin = BORDER - EDGE[len(cfa)]
    light = light[:, begin : begin + signal.shape[0], begin : begin + signal.shape[1]]
    if light.shape[1:] != signal.shape:
        raise ValueError(f"RawTherapee gives {light.shape[1:]} pixels of {signal.shape} photosites; 5.9 cuts {EDGE} off, by the mosaic")
    scale = ratio * float(balanced(signal, cfa, white_balance).mean()) / float(sample(light, cfa).mean())
    return (light * scale).astype(np.float32)


def developed(raw: Path, ratio: float, denoising: Denoising, folder: Path) -> NDArray[np.float64]:
    """A raw file as RawTherapee develops it: white-balanced linear camera RGB (3, H, W) but for its scale.

    Raises:
        ValueError: it fails.
    """
    import tifffile

    profile, result = folder / "settings.pp3", folder / "developed.tif"
    profile.write_text(denoising.profile(ratio))
    command = [PROGRAM, "-q", "-Y", "-t", "-b16", "-o", str(result), "-p", str(profile), "-c", str(raw)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not result.is_file():
        raise ValueError(f"RawTherapee made no picture of {raw.name} (exit {done.returncode}): {done.stderr.strip()[-300:]}")
    return srgb_decode(tifffile.imread(result).transpose(2, 0, 1).astype(np.float64) / 65535)

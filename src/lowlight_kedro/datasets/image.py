"""Pictures on disk."""

from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from kedro.io import AbstractDataset, DatasetError
from numpy.typing import NDArray

from lowlight_kedro.datasets.atomic import atomic_path

Bits = Literal[8, 16, 32, "half"]
KINDS: dict[tuple[str, Bits], Any] = {
    (".tif", 16): np.uint16, (".tif", "half"): np.float16, (".tif", 32): np.float32, (".png", 8): np.uint8, (".jpg", 8): np.uint8,
}  # fmt: skip
JPEG_QUALITY = 92
ICC_DATE = slice(24, 36)  # of a profile's header (ICC.1:2022, 7.2); when it was made says nothing of the picture


@cache
def srgb_profile() -> bytes:
    """An ICC profile of sRGB, the same bytes at any time."""
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[ICC_DATE] = np.array([2000, 1, 1, 0, 0, 0], ">u2").tobytes()
    return bytes(profile)


class ImageDataset(AbstractDataset[NDArray, NDArray]):
    """An image (3, H, W) as `.tif` of 16 or 32 bits, or `.png` or `.jpg` of 8 bits.

    Whole numbers hold [0, 1] as 0 to 65535 or 255 and clip what lies outside; `half` and 32 bits are floating point and hold
    anything, `half` to a relative error of 5e-4 (below 6e-5 an absolute one of 3e-8). TIFFs are compressed without loss.

    Args:
        filepath: the file.
        bits: of a `.tif`: 16, 32 or half.
        profile: `srgb` embeds that ICC profile; null leaves the colours undefined, as for camera RGB.
    """

    def __init__(self, *, filepath: str, bits: Bits = 16, profile: Literal["srgb"] | None = None, metadata: dict | None = None) -> None:
        self._filepath = Path(filepath)
        self._kind = KINDS.get((self._filepath.suffix, bits if self._filepath.suffix == ".tif" else 8))
        if self._kind is None or profile not in (None, "srgb"):
            raise DatasetError(
                "an image is a .tif of 16, 32 or half bits, a .png or a .jpg, its profile srgb or null, "
                f"got {filepath}, bits={bits}, profile={profile!r}"
            )
        self._profile = profile
        self.metadata = metadata

    def load(self) -> NDArray[np.float32]:
        """Read back as float32; whole numbers in [0, 1]."""
        import tifffile
        from PIL import Image

        read = tifffile.imread if self._filepath.suffix == ".tif" else Image.open
        pixels = np.asarray(read(self._filepath)).transpose(2, 0, 1)
        return (pixels / np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else pixels).astype(np.float32)

    def _pixels(self, data: NDArray) -> NDArray:
        pixels = data.transpose(1, 2, 0)
        if self._kind in (np.float32, np.float16):
            return np.ascontiguousarray(pixels, self._kind)
        return np.rint(np.clip(pixels, 0, 1) * np.iinfo(self._kind).max).astype(self._kind)

    def save(self, data: NDArray) -> None:
        """Write atomically."""
        import tifffile
        from PIL import Image

        pixels, profile = self._pixels(data), srgb_profile() if self._profile else None
        with atomic_path(self._filepath) as temporary:
            if self._filepath.suffix == ".tif":
                tifffile.imwrite(
                    temporary, pixels, photometric="rgb", compression="zlib", predictor=True, software="lowlight_kedro", iccprofile=profile,
                )  # fmt: skip
            elif self._filepath.suffix == ".jpg":
                Image.fromarray(pixels).save(temporary, format="JPEG", quality=JPEG_QUALITY, subsampling=0, icc_profile=profile)
            else:
                Image.fromarray(pixels).save(temporary, format="PNG", icc_profile=profile)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}

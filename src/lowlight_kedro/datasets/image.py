"""Pictures on disk, and their ICC profiles (ICC.1:2001-04, version 2.4): sRGB, and linear light of a camera."""

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from kedro.io import DatasetError
from numpy.typing import NDArray

from lowlight_kedro.datasets.atomic import LocalDataset, atomic_path
from lowlight_kedro.datasets.exif import MOST_IN_JPEG, append_directories, blob, first_tags, iptc_segment, of_jpeg
from lowlight_kedro.datasets.metadata import Metadata
from lowlight_kedro.sensor.render import SRGB_FROM_XYZ_D65

Bits = Literal[8, 16, 32, "half"]
KINDS: dict[tuple[str, Bits], Any] = {
    (".tif", 16): np.uint16, (".tif", "half"): np.float16, (".tif", 32): np.float32, (".png", 8): np.uint8, (".jpg", 8): np.uint8,
}  # fmt: skip
JPEG_QUALITY = 92


@dataclass(frozen=True)
class Picture:
    """An image (3, H, W), what its file should say beside it, and an ICC profile that is not one of the dataset's."""

    pixels: NDArray
    metadata: Metadata | None = None
    profile: bytes | None = None


def _write_tiff(path: Path, pixels: NDArray, profile: bytes | None, metadata: Metadata | None) -> None:
    import tifffile

    tags = first_tags(metadata) if metadata else []
    with tifffile.TiffWriter(path, byteorder="<") as writer:
        writer.write(
            pixels, photometric="rgb", compression="zlib", predictor=True, iccprofile=profile, metadata=None, extratags=tags,
            software=False if metadata else "lowlight_kedro",
        )  # fmt: skip
    if metadata:
        append_directories(path, metadata)


class ImageDataset(LocalDataset[NDArray | Picture, NDArray]):
    """An image (3, H, W) as `.tif` of 16 or 32 bits, or `.png` or `.jpg` of 8 bits.

    Whole numbers hold [0, 1] as 0 to 65535 or 255 and clip what lies outside; `half` and 32 bits are floating point and hold
    anything, `half` to a relative error of 5e-4 (below 6e-5 an absolute one of 3e-8). TIFFs are compressed without loss.

    Args:
        filepath: the file.
        bits: of a `.tif`: 16, 32 or half.
        profile: `srgb` embeds that ICC profile; null leaves the colours undefined, as for camera RGB.
    """

    def __init__(self, *, filepath: str, bits: Bits = 16, profile: Literal["srgb"] | None = None, metadata: dict | None = None) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._kind = KINDS.get((self._filepath.suffix, bits if self._filepath.suffix == ".tif" else 8))
        if self._kind is None or profile not in (None, "srgb"):
            raise DatasetError(
                "an image is a .tif of 16, 32 or half bits, a .png or a .jpg, its profile srgb or null, "
                f"got {filepath}, bits={bits}, profile={profile!r}"
            )
        self._profile = profile

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

    def save(self, data: NDArray | Picture) -> None:
        """Write atomically."""
        picture = data if isinstance(data, Picture) else Picture(data)
        pixels, profile = self._pixels(picture.pixels), picture.profile or (srgb_profile() if self._profile else None)
        with atomic_path(self._filepath) as temporary:
            if self._filepath.suffix == ".tif":
                _write_tiff(temporary, pixels, profile, picture.metadata)
            else:
                self._write_by_pillow(temporary, pixels, profile, picture.metadata)

    def _write_by_pillow(self, path: Path, pixels: NDArray, profile: bytes | None, metadata: Metadata | None) -> None:
        from PIL import Image, PngImagePlugin

        xmp = metadata.xmp if metadata else b""
        options: dict[str, Any] = {"icc_profile": profile}
        if metadata:
            options["exif"] = blob(of_jpeg(metadata, *pixels.shape[:2]) if self._filepath.suffix == ".jpg" else metadata)
        if self._filepath.suffix == ".jpg":
            if 0 < len(xmp) <= MOST_IN_JPEG:  # `left_out_of_jpeg` tells what is longer
                options["xmp"] = xmp
            options["extra"] = iptc_segment(metadata) if metadata else b""
            Image.fromarray(pixels).save(path, format="JPEG", quality=JPEG_QUALITY, subsampling=0, **options)
        else:
            texts = PngImagePlugin.PngInfo()
            if xmp:
                texts.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
            Image.fromarray(pixels).save(path, format="PNG", pnginfo=texts, **options)


DATE = slice(24, 36)  # of a profile's header; when it was made says nothing of the picture
FIXED_DATE = np.array([2000, 1, 1, 0, 0, 0], ">u2").tobytes()
D50 = np.array([0.9642, 1.0, 0.8249])  # the white of the profile connection space
BRADFORD_D65_TO_D50 = np.array([[1.0478112, 0.0228866, -0.0501270], [0.0295424, 0.9904844, -0.0170491], [-0.0092345, 0.0150436, 0.7521316]])


@cache
def srgb_profile() -> bytes:
    """sRGB, the same bytes at any time."""
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[DATE] = FIXED_DATE
    return bytes(profile)


def _xyz(values: NDArray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * float(value)) for value in values))


def _description(text: str) -> bytes:
    data = text.encode("ascii") + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(data)) + data + bytes(4 + 4 + 2 + 1 + 67)


def linear_profile(camera_to_srgb: NDArray) -> bytes:
    """White-balanced linear camera RGB, 1 = white, as a display profile of three primaries and the curve y = x.

    Args:
        camera_to_srgb: (3, 3) to linear sRGB, rows sum to 1.
    """
    colourants = BRADFORD_D65_TO_D50 @ np.linalg.inv(SRGB_FROM_XYZ_D65) @ np.asarray(camera_to_srgb, float)
    colourants *= (D50 / colourants.sum(axis=1))[:, None]  # white is exactly the white of the space, to its rounding
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)  # no entry: the identity
    parts = {
        b"desc": _description("Linear camera RGB, white-balanced (lowlight_kedro)"), b"cprt": b"text\0\0\0\0No copyright, use freely\0",
        b"wtpt": _xyz(D50), b"rXYZ": _xyz(colourants[:, 0]), b"gXYZ": _xyz(colourants[:, 1]), b"bXYZ": _xyz(colourants[:, 2]),
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    at, table, data = 128 + 4 + 12 * len(parts), b"", b""
    for name, content in parts.items():
        table += struct.pack(">4sII", name, at + len(data), len(content))
        data += content.ljust(-(-len(content) // 4) * 4, b"\0")
    header = struct.pack(">I4sI4s4s4s", at + len(data), bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ") + FIXED_DATE + b"acsp"
    header = (header + bytes(28) + struct.pack(">3i", *(round(65536 * float(value)) for value in D50))).ljust(128, b"\0")
    return header + struct.pack(">I", len(parts)) + table + data

"""ICC profiles (ICC.1:2001-04, version 2.4): sRGB, and linear light of a camera."""

import struct
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.render import SRGB_FROM_XYZ_D65

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

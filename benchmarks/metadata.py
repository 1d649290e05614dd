"""Which metadata of a raw stand in the files that are written: a table for docs/outputs.md. exiftool writes them and reads them again.

python benchmarks/metadata.py RAW.dng
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tables

from lowlight_kedro.datasets.decoding import read_frame
from lowlight_kedro.datasets.image import ImageDataset, Picture, linear_profile
from lowlight_kedro.datasets.linear_dng import LinearPicture, write_linear_dng
from lowlight_kedro.datasets.metadata import of_restored
from lowlight_kedro.datasets.mosaic_dng import write_mosaic_dng
from lowlight_kedro.sensor.frame import crop

WRITTEN = {
    "Artist": "Änne Müller", "Copyright": "(c) 2026 A. M.", "ImageDescription": "Night", "ExifIFD:LensModel": "Sonnar T* 55mm",
    "ExifIFD:LensInfo": "55 55 1.8 1.8", "ExifIFD:SerialNumber": "0042", "ExifIFD:SubSecTimeOriginal": "57",
    "ExifIFD:OffsetTimeOriginal": "+09:00", "ExifIFD:ExposureCompensation": "-0.67", "ExifIFD:MeteringMode": "5", "ExifIFD:Flash": "16",
    "ExifIFD:ExposureProgram": "3", "ExifIFD:UserComment": "tripod", "GPSLatitude": "33.86", "GPSLatitudeRef": "S",
    "GPSLongitude": "151.21", "GPSLongitudeRef": "E", "GPSAltitude": "12", "XMP-xmp:Rating": "4", "XMP-dc:Title": "Harbour",
    "XMP-dc:Subject": "boat", "XMP-xmp:Label": "red", "IPTC:Keywords": "sea", "Orientation": "6",
}  # fmt: skip
KNOWN = ["Make", "Model", *(f"ExifIFD:{name}" for name in ("ExposureTime", "FNumber", "ISO", "FocalLength", "DateTimeOriginal"))]
READ = [*KNOWN, *WRITTEN]
SIDE = 64  # pixels of the picture that carries them


def told(path: Path) -> dict[str, Any]:
    """The values of READ by exiftool, numbers as they are stored."""
    tags = [f"-{tag}" for tag in READ]
    said = subprocess.run(["exiftool", "-json", "-n", "-G1", *tags, str(path)], check=True, capture_output=True, text=True).stdout
    values = json.loads(said)[0]
    found: dict[str, Any] = {}
    for tag in READ:
        group, _, name = tag.rpartition(":")
        known = [value for key, value in values.items() if key.split(":")[-1] == name and (not group or key.split(":")[0] == group)]
        found[tag] = known[0] if known else None
    return found


def notes(path: Path) -> dict[str, Any]:
    """The maker notes by exiftool, as it shows them."""
    said = subprocess.run(["exiftool", "-json", "-G1", "-MakerNotes:all", str(path)], check=True, capture_output=True, text=True).stdout
    return {key: value for key, value in json.loads(said)[0].items() if key != "SourceFile"}


def written(raw: Path, folder: Path) -> dict[str, Path]:
    """Files of each kind with the metadata of `raw`."""
    frame = crop(read_frame(raw), 0, 0, SIDE, SIDE)
    light = np.full((3, SIDE, SIDE), 0.3, np.float32)
    metadata = of_restored(raw, frame, 1.0)
    picture, linear = Picture(light, metadata.upright()), LinearPicture(light, frame, 1.0, raw, metadata)
    kinds = {"linear DNG": "dng", "mosaic DNG": "dng", "linear TIFF": "tif", "sRGB TIFF": "tif", "JPEG": "jpg", "PNG": "png"}
    files = {kind: folder / f"{kind}.{ending}" for kind, ending in kinds.items()}
    write_linear_dng(files["linear DNG"], linear, headroom=8)
    write_mosaic_dng(files["mosaic DNG"], linear)
    ImageDataset(filepath=str(files["linear TIFF"])).save(Picture(light, metadata, linear_profile(frame.camera_to_srgb)))
    for kind in ("sRGB TIFF", "JPEG", "PNG"):
        ImageDataset(filepath=str(files[kind])).save(picture)
    return files


def cell(before: Any, after: Any) -> str:
    """Whether a value survived."""
    if after is None:
        return "no"
    alike = isinstance(before, float | int) and isinstance(after, float | int) and abs(after - before) <= 1e-4 * abs(before)
    return "yes" if alike or str(after) == str(before) else str(after)


def main(raw: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "source.dng"
        changes = [f"-{tag}={value}" for tag, value in WRITTEN.items()]
        subprocess.run(["exiftool", "-q", "-n", *changes, "-o", str(source), str(raw)], check=True)
        files = written(source, Path(place))
        before, after = told(source), {kind: told(path) for kind, path in files.items()}
        noted, kept = notes(source), {kind: notes(path) for kind, path in files.items()}
    tables.head(f"in {raw.name}", "value", *files)
    for tag in READ:
        tables.row(tag.split(":")[-1], before[tag], *(cell(before[tag], found[tag]) for found in after.values()))
    same = [sum(found.get(name) == value for name, value in noted.items()) for found in kept.values()]
    tables.row("maker notes", f"{len(noted)} values", *(count or "no" for count in same))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Raw editors' pictures of a raw beside those of its linear and its mosaic DNG: a table for docs/outputs.md.

python benchmarks/editors.py RAW_OR_FOLDER...

The light is demosaiced and not restored, so that nothing but the files differs. dcraw stands in where an editor does not open the raw.
"""

import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tables
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.datasets.test_editors import darktable, linear_of, mosaic_of, rawtherapee

EDGE = 20  # pixels that editors' own borders may differ in
DARK = 0.05  # values below are mostly noise cut off at black, before demosaicing or after it


def dcraw(raw: Path, folder: Path) -> np.ndarray:
    """The camera's white balance, no automatic brightness."""
    told = subprocess.run(["dcraw", "-w", "-W", "-c", str(raw)], check=True, capture_output=True)
    return np.asarray(Image.open(io.BytesIO(told.stdout)).convert("RGB"), float) / 255


EDITORS = {"RawTherapee": (rawtherapee, "rawtherapee-cli"), "darktable": (darktable, "darktable-cli"), "dcraw": (dcraw, "dcraw")}


def quantiles(develop: Callable[[Path, Path], np.ndarray], path: Path, folder: Path) -> np.ndarray | None:
    """The 10 and the 50 % quantile of R, G, B (2, 3); None where the editor does not open the file."""
    try:
        return np.percentile(develop(path, folder)[EDGE:-EDGE, EDGE:-EDGE], (10, 50), axis=(0, 1))
    except (subprocess.CalledProcessError, OSError):
        return None


def cells(there: np.ndarray | None, linear: np.ndarray | None, mosaic: np.ndarray | None) -> Iterator[str]:
    """Medians of the raw, and of the two files over them; of the linear file alone where the raw is not opened."""
    if there is None:
        yield "not opened"
        yield "opened, " + told(linear[1]) if linear is not None else "not opened"
        yield from ("", "opened" if mosaic is not None else "not opened")
        return
    yield told(there[1])
    yield told(linear[1], there[1]) if linear is not None else "not opened"
    yield told(linear[0], there[0]) if linear is not None else ""
    yield told(mosaic[1], there[1]) if mosaic is not None else "not opened"


def told(values: np.ndarray, over: np.ndarray | None = None) -> str:
    """R / G / B, or their ratios to others that are not near black."""
    if over is None:
        return " / ".join(f"{value:.3f}" for value in values)
    return " / ".join(f"{value / other:.3f}" if other >= DARK else "dark" for value, other in zip(values, over, strict=True))


def raws(named: list[str]) -> Iterator[Path]:
    for path in map(Path, named):
        yield from sorted(path.glob("*.dng")) if path.is_dir() else [path]


def main(named: list[str]) -> None:
    columns = ("original, medians R / G / B", "linear DNG over original", "of the 10 % quantiles", "mosaic DNG over original")
    tables.head("file", "linear DNG", "editor", *columns)
    for raw in raws(named):
        with tempfile.TemporaryDirectory() as place:
            linear, mosaic = linear_of(raw, Path(place)), mosaic_of(raw, Path(place))
            first = raw.name, f"{linear.stat().st_size / 1e6:.1f} MB"
            for name, (develop, program) in EDITORS.items():
                if shutil.which(program):
                    tables.row(*first, name, *cells(*(quantiles(develop, path, Path(place)) for path in (raw, linear, mosaic))))
                    first = "", ""


if __name__ == "__main__":
    main(sys.argv[1:])

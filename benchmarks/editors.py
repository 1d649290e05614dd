"""Channel percentiles of raw editors' pictures of a raw and of the linear DNG of its demosaiced light: a table for docs/outputs.md.

python benchmarks/editors.py RAW...
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tables

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.datasets.test_editors import EDITORS, linear_of


def main(raws: list[str]) -> None:
    tables.head("editor", "file", "linear DNG", "original, medians R / G / B", "linear DNG over original", "and of the 10 % quantiles")
    for raw in map(Path, raws):
        with tempfile.TemporaryDirectory() as place:
            linear = linear_of(raw, Path(place))
            size = f"{linear.stat().st_size / 1e6:.1f} MB"
            for program in filter(shutil.which, EDITORS):
                develop = EDITORS[program][0]
                try:
                    pictures = [develop(path, Path(place)) for path in (raw, linear)]
                except (subprocess.CalledProcessError, OSError) as error:
                    tables.row(program, raw.name, size, f"{type(error).__name__}: it does not open the original", "", "")
                    continue
                there, here = (np.percentile(picture[20:-20, 20:-20], (10, 50), axis=(0, 1)) for picture in pictures)
                cells = [" / ".join(f"{value:.3f}" for value in row) for row in (there[1], here[1] / there[1], here[0] / there[0])]
                tables.row(program, raw.name, size, *cells)


if __name__ == "__main__":
    main(sys.argv[1:])

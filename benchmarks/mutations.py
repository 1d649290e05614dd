"""What damaged raws do: `python benchmarks/mutations.py --count 1000`; with `--real FOLDER` also on raws of cameras.

Every mutation is read in a process of its own kind, so that a crash or a hang of a decoder is counted, not suffered.
Laws: a header, a consistent frame or a `RawReadError` comes back, within `--limit` seconds, and nothing is printed.
"""

import argparse
import multiprocessing
import os
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import tables

from lowlight_kedro.datasets.decoding import RawReadError, read_frame, read_header
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, Cfa
from lowlight_kedro.sensor.frame import Frame, normalise

HEADER = 4096  # bytes at the start and at the end in which tags lie
EXTREMES = (0, 1, 2, 7, 255, 32767, 32768, 60000, 65535, 2**31 - 1, 2**31, 2**32 - 1)
FIELDS = {"exposure_s", "iso", "height", "width", "camera", "taken_at", "orientation", "focal_mm"}
Mutation = Callable[[bytes, np.random.Generator], bytes]


def simulated(cfa: Cfa, shape: tuple[int, int]) -> Frame:
    rng = np.random.default_rng(0)
    black = np.full((len(cfa), len(cfa)), 512, np.float32)
    return Frame(rng.integers(500, 9000, shape).astype(np.uint16), cfa, black, 16383.0, 0.04, 1600.0, "test ILCE-7SM2",
                 (2.0, 1.0, 1.6), np.eye(3, dtype=np.float32))  # fmt: skip


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(0, len(data)))]


def _with_bytes(data: bytes, places: np.ndarray, rng: np.random.Generator) -> bytes:
    changed = np.frombuffer(data, np.uint8).copy()
    changed[places] = rng.integers(0, 256, places.size)
    return changed.tobytes()


def header_byte(data: bytes, rng: np.random.Generator) -> bytes:
    return _with_bytes(data, rng.integers(0, min(HEADER, len(data)), 1), rng)


def header_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Up to 30 bytes within the first or last part of the file, where its tags lie."""
    places = rng.integers(0, min(HEADER, len(data)), rng.integers(2, 30))
    return _with_bytes(data, places if rng.random() < 0.7 else len(data) - 1 - places, rng)


def data_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    return _with_bytes(data, rng.integers(0, len(data), rng.integers(1, 300)), rng)


def _entries(data: bytes) -> list[int]:
    """Where the entries of the first directory and of its sub-directories lie."""
    order = "<" if data.startswith(b"II") else ">"
    waiting, found, seen = [struct.unpack_from(order + "I", data, 4)[0]], [], set()
    while waiting:
        start = waiting.pop()
        if start in seen or not 8 <= start < len(data) - 2:
            continue
        seen.add(start)
        for number in range(struct.unpack_from(order + "H", data, start)[0]):
            at = start + 2 + 12 * number
            if at + 12 > len(data):
                break
            found.append(at)
            tag, _, count, value = struct.unpack_from(order + "HHII", data, at)
            if tag in (330, 34665):
                waiting += [value] if count == 1 else struct.unpack_from(f"{order}{min(count, 8)}I", data, value)
    return found


def tag_value(data: bytes, rng: np.random.Generator) -> bytes:
    """Value or offset, count or type of one to three tags becomes an extreme one."""
    order, changed = "<" if data.startswith(b"II") else ">", bytearray(data)
    for at in rng.choice(_entries(data), rng.integers(1, 4)):
        part, extreme = rng.choice(["value", "value", "value", "count", "type", "number"]), int(rng.choice(EXTREMES))
        if part == "value":
            struct.pack_into(order + "I", changed, at + 8, extreme)
        elif part == "count":
            struct.pack_into(order + "I", changed, at + 4, extreme)
        else:
            struct.pack_into(order + "H", changed, at + (2 if part == "type" else 0), extreme % 14 if part == "type" else extreme & 0xFFFF)
    return bytes(changed)


def tag_data(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes that one to three tags point to (levels, patterns, matrices, rationals) become extreme or random."""
    order, changed = "<" if data.startswith(b"II") else ">", bytearray(data)
    for at in rng.choice(_entries(data), rng.integers(1, 4)):
        _, kind, count, value = struct.unpack_from(order + "HHII", data, at)
        size = min({3: 2, 4: 4, 5: 8, 10: 8, 12: 8}.get(kind, 1) * count, 400)
        start = value if size > 4 else at + 8
        if start + size <= len(data):
            changed[start : start + size] = bytes(size) if rng.random() < 0.3 else rng.bytes(size)
    return bytes(changed)


def foreign(data: bytes, rng: np.random.Generator) -> bytes:
    """Something else under a raw's name."""
    starts = (b"", b"\xff\xd8\xff\xe1\0\x10Exif\0\0", b"\xff\xd8\xff\xe0\0\x10JFIF\0", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"\x89PNG",
              b"FUJIFILMCCD-RAW ", b"\0\0\0\x18ftypcrx ", b"IIRO\x08\0\0\0", b"IIU\0\x18\0\0\0", b"text, not a picture\n" * 20)  # fmt: skip
    start = starts[int(rng.integers(len(starts)))]
    return start + rng.bytes(int(rng.integers(0, 6000)))


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (truncated, header_byte, header_bytes, data_bytes, tag_value, tag_data, foreign)
}  # fmt: skip


def broken_laws(frame: Frame) -> str | None:
    """What is inconsistent in a frame that was returned, if anything."""
    signal = normalise(frame)
    laws = {
        "size": frame.mosaic_dn.ndim == 2 and min(frame.mosaic_dn.shape) >= 16 and frame.mosaic_dn.size <= 1 << 29,
        "dtype": frame.mosaic_dn.dtype == np.uint16,
        "cfa": len(frame.cfa) in (2, 6) and {channel for row in frame.cfa for channel in row} == {0, 1, 2},
        "levels": bool(np.isfinite(frame.black_level).all()) and frame.white_level > frame.black_level.max(),
        "signal": bool(np.isfinite(signal).all()),
        "balance": all(0 < value < 100 for value in frame.white_balance),
        "matrix": bool(np.isfinite(frame.camera_to_srgb).all()),
        "exposure": np.isnan(frame.exposure_s) or 0 < frame.exposure_s < float("inf"),
        "iso": np.isnan(frame.iso) or 0 < frame.iso < float("inf"),
        "orientation": frame.orientation in range(8),
    }
    return next((name for name, holds in laws.items() if not holds), None)


def _outcome(read: Callable[[Path], Frame | dict], path: Path) -> str:
    try:
        result = read(path)
    except RawReadError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return "refused" if 8 < len(reason) < len(str(error)) else f"unclear: {error}"
    except BaseException as error:  # noqa: BLE001 - which exception escapes is what is measured
        return f"{type(error).__name__}: {error}"[:120]
    wrong = broken_laws(result) if isinstance(result, Frame) else "header" if result.keys() != FIELDS else None
    return f"inconsistent: {wrong}" if wrong else "frame"


def outcome(path: Path) -> str:
    """`frame`, `refused`, or what broke a law, of header or frame."""
    results = [_outcome(read, path) for read in (read_header, read_frame)]
    return next((result for result in results if result not in ("frame", "refused")), results[1])


def _read_each(channel: Connection, folder: Path) -> None:
    """A child: reads each file that it is sent, answers with the outcome; what is printed goes into a file."""
    printed = os.open(folder / "printed", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    while (path := channel.recv()) is not None:
        os.ftruncate(printed, 0)
        result = outcome(path)
        sys.stdout.flush()
        sys.stderr.flush()
        channel.send(f"printed: {os.pread(printed, 120, 0)!r}" if os.fstat(printed).st_size else result)


class Child:
    """A process that reads files; replaced when it crashes or takes longer than `limit` seconds."""

    def __init__(self, folder: Path, limit: float) -> None:
        self._folder, self._limit = folder, limit
        self._start()

    def _start(self) -> None:
        self._channel, other = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=_read_each, args=(other, self._folder), daemon=True)
        self._process.start()
        other.close()

    def read(self, path: Path) -> str:
        """The outcome of one file, `crash: SIGNAL` or `hang`."""
        self._channel.send(path)
        try:
            if self._channel.poll(self._limit):
                return self._channel.recv()
            self._process.kill()
            result = f"hang: over {self._limit:g} s"
        except EOFError:
            self._process.join()
            result = f"crash: exit code {self._process.exitcode}"
        self._start()
        return result

    def stop(self) -> None:
        self._channel.send(None)
        self._process.join()


def mutated(data: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` mutations of `data`, the kinds in turn, the same for the same seed."""
    kinds = list(MUTATIONS)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        yield kind, MUTATIONS[kind](data, np.random.default_rng([seed, number]))


def tally(raw: Path, count: int, *, seed: int = 0, limit: float = 5.0, keep: Path | None = None) -> Counter[tuple[str, str]]:
    """How often each kind of mutation of `raw` ended how; those that broke a law are kept in the folder `keep`."""
    counts: Counter[tuple[str, str]] = Counter()
    data = raw.read_bytes()
    with tempfile.TemporaryDirectory() as name:
        child, path = Child(Path(name), limit), Path(name) / f"mutant{raw.suffix}"
        for number, (kind, content) in enumerate(mutated(data, count, seed)):
            path.write_bytes(content)
            result = child.read(path)
            counts[kind, result] += 1
            if keep and result not in ("frame", "refused"):
                (keep / f"{raw.stem}_{number}_{kind}{raw.suffix}").write_bytes(content)
        child.stop()
    return counts


def write_bases(folder: Path) -> list[Path]:
    """The small raws that are mutated: Bayer 128 x 160 and X-Trans 512 x 512."""
    bases = {folder / "bayer.dng": simulated(BAYER_RGGB, (128, 160)), folder / "xtrans.dng": simulated(XTRANS, (512, 512))}
    for path, frame in bases.items():
        write_dng(path, frame)
    return list(bases)


def report(found: dict[str, Counter[tuple[str, str]]]) -> None:
    """A row per kind of mutation; of every raw a column per result that came up."""
    good = ("frame", "refused")
    columns = [
        (name, result) for name, counts in found.items() for result in (*good, *sorted({seen for _, seen in counts} - {*good}))
    ]  # fmt: skip
    tables.head("mutation", *(f"{name}: {result}" for name, result in columns))
    for kind in MUTATIONS:
        tables.row(kind, *(found[name][kind, result] for name, result in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="mutations of each simulated raw")
    parser.add_argument("--real", type=Path, default=None, help="a folder that is searched for .dng and .KDC files of cameras")
    parser.add_argument("--real-count", type=int, default=150, help="mutations of each raw of --real")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=5.0, help="seconds after which a reading counts as a hang")
    parser.add_argument("--keep", type=Path, default=None, help="existing folder for mutants that broke a law")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bases = [(path, arguments.count) for path in write_bases(Path(name)) if arguments.count]
        counted = {}
        found = sorted(path for path in arguments.real.rglob("*") if path.suffix.lower() in (".dng", ".kdc")) if arguments.real else []
        for path, count in [*bases, *((path, arguments.real_count) for path in found)]:
            counted[path.name] = tally(path, count, seed=arguments.seed, limit=arguments.limit, keep=arguments.keep)
        report(counted)


if __name__ == "__main__":
    main()

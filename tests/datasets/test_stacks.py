"""Sixteen bits are exact to half a step, and a file is whole or refused."""

import os
import pickle
import signal

import numpy as np
import pytest
import torch
from kedro.io import DatasetError

from lowlight_kedro.datasets import stacks
from lowlight_kedro.datasets.stacks import STEP, OpenStacks, decode, encode, holds, open_stack, write_stack
from lowlight_kedro.datasets.tiles import TileDataset, TileFolderDataset

FLOAT32 = 2.0**-22  # rounding of the three float32 operations on values up to 2; 0.008 steps
ALL = np.arange(65536, dtype=np.uint16)


def random_tiles(rng, n=4, side=8):
    return rng.uniform(-1, 1, (n, 3, side, side)).astype(np.float32)


def test_decoding_and_encoding_gives_every_level_back():
    np.testing.assert_array_equal(encode(decode(ALL)), ALL)
    assert (decode(ALL)[0], decode(ALL)[-1]) == (-1.0, 1.0)
    assert decode(ALL).dtype == np.float32
    np.testing.assert_allclose(decode(ALL).astype(float), ALL / 65535 * 2 - 1, atol=FLOAT32, rtol=0)


def test_encoding_is_right_to_half_a_step(rng):
    edges = np.float32((np.arange(1000) + 0.5) * STEP - 1)
    x = np.concatenate([np.float32([-1, 1, 0]), edges, rng.uniform(-1, 1, 100_000).astype(np.float32)])
    error = np.abs(decode(encode(x)).astype(float) - x)
    assert error.max() <= STEP / 2 + FLOAT32
    assert error.max() > 0.49 * STEP  # rounded, not finer than it says
    assert abs(np.mean(decode(encode(x)).astype(float) - x)) < 5 * STEP / np.sqrt(12 * len(x))  # no bias, as truncation would have


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.0001, -1.0001])
def test_what_16_bits_cannot_hold_is_refused(value, rng):
    x = random_tiles(rng, 1)
    x[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match=r"expected finite values within \[-1, 1\]"):
        encode(x)


def test_arrays_and_tensors_decode_to_the_same_bits(rng):
    np.testing.assert_array_equal(decode(torch.from_numpy(ALL)).numpy(), decode(ALL))
    x = random_tiles(rng)
    assert decode(x) is x
    tensor = torch.from_numpy(x)
    assert decode(tensor) is tensor
    out = np.empty(65536, np.float32)
    assert decode(ALL, out=out) is out
    np.testing.assert_array_equal(out, decode(ALL))


def test_a_stack_is_read_back_through_any_reader_of_npy(rng, tmp_path):
    tiles, path = random_tiles(rng), tmp_path / "long/a.npy"
    dataset = TileDataset(filepath=str(path))
    dataset.save(tiles)
    np.testing.assert_allclose(decode(dataset.load()), tiles, atol=STEP / 2 + FLOAT32, rtol=0)
    mapped = np.load(path, mmap_mode="r")
    assert (mapped.dtype, mapped.shape, mapped.offset % 64) == (np.uint16, tiles.shape, 0)
    np.testing.assert_array_equal(mapped, encode(tiles))
    assert path.read_bytes()[6:8] == b"\x01\x00"  # format 1.0
    write_stack(tmp_path / "b.npy", encode(tiles))
    assert (tmp_path / "b.npy").read_bytes() == path.read_bytes()
    assert not open_stack(path).flags.writeable


def write_and_be_killed(path, tiles):
    """In a child process that dies by SIGKILL at the third tile."""
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        return
    left = iter(range(2))
    stacks.encode = lambda tile: os.kill(os.getpid(), signal.SIGKILL) if next(left, None) is None else encode(tile)
    try:
        write_stack(path, tiles)
    finally:
        os._exit(1)


def test_a_writer_that_is_killed_leaves_no_stack_and_the_old_one_as_it_was(rng, tmp_path):
    tiles = random_tiles(rng)
    write_stack(tmp_path / "old.npy", tiles)
    for name in ("new.npy", "old.npy"):
        write_and_be_killed(tmp_path / name, random_tiles(rng, 5))
    assert not (tmp_path / "new.npy").exists()
    assert holds(tmp_path / "old.npy", tiles)
    assert list(TileFolderDataset(filepath=str(tmp_path)).load()) == ["old.npy"]


def test_a_tile_that_cannot_be_encoded_is_named_and_nothing_is_written(rng, tmp_path):
    tiles = random_tiles(rng)
    tiles[2, 0, 0, 0] = 2
    with pytest.raises(DatasetError, match=r"a\.npy: tile 2: values span .*, 2\], expected"):
        write_stack(tmp_path / "a.npy", tiles)
    with pytest.raises(DatasetError, match=r"a stack is float32 or uint16 \(N, C, S, S\) with N > 0, got float64"):
        write_stack(tmp_path / "a.npy", tiles.astype(float))
    assert list(tmp_path.iterdir()) == []


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize(("name", "words"), [
    ("empty", "EOF: reading magic string"), ("text", "magic string is not correct"), ("torn", "mmap length|bytes, its header says"),
    ("half", "mmap length|bytes, its header says"), ("long", "bytes, its header says"), ("header", "EOF: reading array header"),
    ("flat", r"an array \(3, 8\), expected tiles"), ("fortran", "in C order"), ("pickled", "Python objects"), ("pickle", "magic string"),
    ("missing", "FileNotFoundError"),
])  # fmt: skip
def test_files_that_are_no_stack_are_refused_by_name_and_reason(name, words, rng, tmp_path):
    write_stack(tmp_path / "whole.npy", random_tiles(rng))
    whole, path, trap = (tmp_path / "whole.npy").read_bytes(), tmp_path / f"{name}.npy", tmp_path / "pwned"
    plain = {"empty": b"", "text": b"no stack at all", "torn": whole[:-1], "half": whole[: len(whole) // 2], "long": whole + b"x",
             "header": whole[:40], "pickle": pickle.dumps(Hostile(trap))}  # fmt: skip
    arrays = {"flat": np.zeros((3, 8), np.uint16), "fortran": np.asfortranarray(random_tiles(rng)),
              "pickled": np.array([Hostile(trap)], object)}  # fmt: skip
    if name in plain:
        path.write_bytes(plain[name])
    elif name in arrays:
        np.save(path, arrays[name], allow_pickle=True)
    with pytest.raises(DatasetError, match=rf"{name}\.npy: .*({words})"):
        open_stack(path)
    assert not trap.exists()


def test_only_so_many_files_stay_open_and_a_copy_opens_its_own(rng, tmp_path):
    paths = [str(tmp_path / f"{k}.npy") for k in range(6)]
    for path in paths:
        write_stack(path, random_tiles(rng))
    reader = OpenStacks(limit=2)
    assert reader(paths[0]) is reader(paths[0])
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for path in paths:
        reader(path)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) - before <= 1
    copy = pickle.loads(pickle.dumps(reader))
    assert len(pickle.dumps(reader)) < 200
    np.testing.assert_array_equal(copy(paths[5]), reader(paths[5]))
    assert copy(paths[5]) is not reader(paths[5])

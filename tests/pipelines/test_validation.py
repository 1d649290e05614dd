"""Every fault of a tile, in a stack or alone, is found before training; no project around it."""

import numpy as np
import pytest

from lowlight_kedro.datasets.edm_pt import TileSet
from lowlight_kedro.datasets.stacks import STEP
from lowlight_kedro.datasets.tiles import TileFolderDataset
from lowlight_kedro.pipelines.validation import ValidationOptions, check_tiles

SIDE = 16
VALIDATION = ValidationOptions(image_size=SIDE, min_std=1e-5, max_saturated=0.95, on_content="stop")


def random_tiles(rng, n=4):
    return rng.uniform(-1, 1, (n, 3, SIDE, SIDE)).astype(np.float32)


class Tiles:
    """A folder with a stack of four, a float stack of two and two single tiles; `check` validates it."""

    def __init__(self, folder, rng):
        self.dataset, self.folder = TileFolderDataset(filepath=str(folder)), folder
        self.stack, self.floats, self.single = random_tiles(rng), random_tiles(rng, 2), random_tiles(rng, 2)
        self.records = [{"tile_id": f"s{k}", "stack": "long/a.npy", "index": k, "is_clean": True} for k in range(4)]
        self.records += [{"tile_id": f"f{k}", "stack": "long/f.npy", "index": k, "is_clean": True} for k in range(2)]
        self.records += [{"tile_id": f"p{k}", "is_clean": True} for k in range(2)]

    def write(self):
        self.dataset.save({"long/a.npy": self.stack, "p0.pt": self.single[0], "long/p1.pt": self.single[1]})
        np.save(self.folder / "long/f.npy", self.floats)

    def save(self, array, name="long/a.npy"):
        np.save(self.folder / name, array, allow_pickle=True)

    def spoil(self, which, place, value):
        which[place] = value
        self.write()

    def tear(self):
        path = self.folder / "long/a.npy"
        path.write_bytes(path.read_bytes()[:-7])

    def number(self, record, index):
        self.records[record]["index"] = index

    def found(self):
        return check_tiles(TileSet({"tiles": self.records}, self.folder, self.folder / "unread.json", SIDE), VALIDATION)

    def check(self):
        table, problems = self.found()
        assert table["tile_id"].tolist() == [tile["tile_id"] for tile in self.records]
        return [tuple(problem) for problem in problems.itertuples(index=False)]


@pytest.fixture
def tiles(tmp_path, rng):
    tiles = Tiles(tmp_path / "tiles", rng)
    tiles.write()
    return tiles


def test_sound_tiles_of_both_layouts_have_no_problem_and_their_statistics(tiles):
    assert tiles.check() == []
    table, _ = tiles.found()
    values = np.concatenate([tiles.stack, tiles.floats, tiles.single]).reshape(8, -1)
    np.testing.assert_allclose(table["mean"], values.mean(1), atol=STEP)
    np.testing.assert_allclose(table["std"], values.std(1), atol=STEP)
    np.testing.assert_allclose(table["max"], values.max(1), atol=STEP)


FAULTS = {  # what is done, and what is to be found: kind, tile or file, words; what else must be said then
    "missing": (lambda t: (t.folder / "long/a.npy").unlink(), "missing", "long/a.npy", "4 tiles need it, the first: s0", set()),
    "torn": (Tiles.tear, "unreadable", "long/a.npy", "not a readable stack", set()),
    "pickle": (lambda t: t.save(np.array([{}], object)), "unreadable", "long/a.npy", "Python objects", set()),
    "flat": (lambda t: t.save(np.zeros((3, 8))), "unreadable", "long/a.npy", "an array (3, 8), expected tiles", set()),
    "dtype": (lambda t: t.save(t.stack.astype(float)), "dtype", "long/a.npy", "dtype is float64, expected uint16 or float32", set()),
    "shape": (lambda t: t.save(np.zeros((4, 3, 8, 8), np.uint16)), "shape", "long/a.npy", "expected (N, 3, 16, 16)", set()),
    "index": (lambda t: t.number(0, 4), "index", "s0", "is number 4 of a stack of 4, expected 0 to 3", {"extra"}),
    "negative": (lambda t: t.number(0, -4), "index", "s0", "is number -4 of a stack of 4", {"extra"}),
    "place": (lambda t: t.number(1, 0), "place", "s1", "is number 0 of long/a.npy, and so is s0", {"extra", "duplicated"}),
    "extra": (lambda t: t.save(t.stack, "long/z.npy"), "extra", "long/z.npy", "a file that the metadata does not list", set()),
    "unlisted": (lambda t: t.records.pop(2), "extra", "long/a.npy", "1 of its 4 tiles are not in the metadata: 2", set()),
    "finite": (lambda t: t.spoil(t.floats, (1, 0, 0, 0), np.nan), "finite", "f1", "1 values are not finite", set()),
    "range": (lambda t: t.spoil(t.floats, (1, 0, 0, 0), 1.5), "range", "f1", "expected within [-1, 1]", set()),
    "constant": (lambda t: t.spoil(t.stack, 3, 0.25), "constant", "s3", "standard deviation is 0", set()),
    "saturated": (lambda t: t.spoil(t.stack, (3, 1), 1), "saturated", "s3", "100.0% of the pixels", set()),
    "duplicated": (lambda t: t.spoil(t.stack, 3, t.single[0]), "duplicated", "p0", "has the same content as s3", set()),
    "name": (lambda t: t.records[1].update(tile_id="s0"), "name", "s0", "stands 2 times", set()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_named_once(fault, tiles):
    act, kind, name, words, follows = FAULTS[fault]
    act(tiles)
    problems = tiles.check()
    assert [(who, words in message) for who, what, message in problems if what == kind] == [(name, True)], problems
    assert {what for _, what, _ in problems} - {kind} == follows


def test_a_stack_of_thousands_is_opened_once(tiles, monkeypatch, rng):
    from lowlight_kedro.datasets import tiles as module

    opened = []
    monkeypatch.setattr(module, "open_stack", lambda path, real=module.open_stack: opened.append(path.name) or real(path))
    tiles.stack = random_tiles(rng, 300)
    tiles.records = [{"tile_id": f"s{k}", "stack": "long/a.npy", "index": k, "is_clean": True} for k in range(300)] + tiles.records[4:]
    tiles.write()
    opened.clear()
    assert tiles.check() == []
    assert opened == ["a.npy", "f.npy"]

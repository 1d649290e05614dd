"""The predecessor's layouts, and ours."""

import json
import pickle

import numpy as np
import pytest
import torch
from kedro.io import DatasetError
from torch.utils.data import DataLoader

from lowlight_kedro.datasets.edm_pt import EDMPTDataset
from lowlight_kedro.datasets.stacks import decode, encode, write_stack

TILES = [
    {"tile_id": "a_10s", "data_type": "long", "split": "train", "pt_path": "sub/a.pt"},
    {"tile_id": "b_10s", "data_type": "clean", "split": "train"},
    {"tile_id": "c_10s", "is_clean": True, "data_type": "noisy", "split": "train"},
    {"tile_id": "d_0.1s", "data_type": "short", "split": "train"},
    {"tile_id": "e_10s", "data_type": "noisy", "split": "train"},
    {"tile_id": "f_0.04s", "split": "train"},
    {"tile_id": "g_10s", "data_type": "long", "split": "val"},
]
CLEAN = ["a_10s", "b_10s", "c_10s"]


@pytest.fixture(params=["tiles", "files"])
def layout(request, tmp_path):
    """Tiles at `pt_path`, at the root and in `long/`; metadata flat or by file."""
    places = {"a_10s": "sub/a.pt", "b_10s": "b_10s.pt", "c_10s": "long/c_10s.pt"}
    for number, place in enumerate(places.values()):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        torch.save(torch.full((3, 256, 256), number / 10), tmp_path / place)
    if request.param == "tiles":
        metadata = {"tiles": TILES}
    else:
        metadata = {
            "files": [
                {"split": s, "tiles": [{k: v for k, v in t.items() if k != "split"} for t in TILES if t["split"] == s]}
                for s in ("train", "val")
            ]
        }
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    return tmp_path


def test_clean_tiles_only_and_empty_labels(layout):
    dataset = EDMPTDataset(layout, layout / "metadata.json", split="train", use_labels=False, label_dim=0)
    assert dataset.tile_ids.tolist() == CLEAN
    for number in range(3):
        image, label = dataset[number]
        assert (tuple(image.shape), image.dtype, tuple(label.shape), label.dtype) == ((3, 256, 256), torch.float32, (0,), torch.float32)
        assert float(image[0, 0, 0]) == pytest.approx(number / 10)


def test_it_feeds_a_data_loader(layout):
    images, labels = next(iter(DataLoader(EDMPTDataset(layout, layout / "metadata.json"), batch_size=3)))
    assert (tuple(images.shape), tuple(labels.shape)) == ((3, 3, 256, 256), (3, 0))


@pytest.mark.parametrize("labels", [{"use_labels": True}, {"label_dim": 3}])
def test_labels_are_refused_with_the_reason(layout, labels):
    with pytest.raises(ValueError, match=r"the prior P\(x_clean\) is unconditional"):
        EDMPTDataset(layout, layout / "metadata.json", **labels)


def test_a_missing_file_names_the_places_where_it_was_looked_for(layout):
    dataset = EDMPTDataset(layout, layout / "metadata.json", split="val")
    with pytest.raises(DatasetError, match=r"tile g_10s is missing; looked for .*g_10s\.pt, .*long/g_10s\.pt"):
        dataset[0]


def test_a_tile_of_another_shape_or_a_pickle_is_refused(layout):
    torch.save(torch.zeros(1, 256, 256), layout / "sub/a.pt")
    with pytest.raises(DatasetError, match=r"a\.pt: got float32 \(1, 256, 256\), expected float32 \(3, 256, 256\)"):
        EDMPTDataset(layout, layout / "metadata.json")[0]
    torch.save({"code": EDMPTDataset}, layout / "sub/a.pt")
    with pytest.raises(DatasetError, match=r"a\.pt: not a readable tensor file"):
        EDMPTDataset(layout, layout / "metadata.json")[0]


def test_a_split_without_clean_tiles_says_so(layout):
    with pytest.raises(ValueError, match=r"no clean tile in split 'test' \(0 tiles there, none clean\)"):
        EDMPTDataset(layout, layout / "metadata.json", split="test")


@pytest.fixture
def mixed(tmp_path, rng):
    """Ten clean tiles: two 16-bit stacks, one float stack, two single files; and their values."""
    tiles = decode(encode(rng.uniform(-1, 1, (10, 3, 16, 16)).astype(np.float32)))
    write_stack(tmp_path / "long/a.npy", tiles[:4])
    write_stack(tmp_path / "long/b.npy", tiles[4:6])
    np.save(tmp_path / "long/floats.npy", tiles[6:8])
    records = [{"tile_id": f"t{k}", "stack": "long/a.npy", "index": k} for k in range(4)]
    records += [{"tile_id": f"t{4 + k}", "stack": "long/b.npy", "index": k} for k in range(2)]
    records += [{"tile_id": f"t{6 + k}", "stack": "long/floats.npy", "index": k} for k in range(2)]
    for k in (8, 9):
        torch.save(torch.from_numpy(tiles[k]), tmp_path / f"t{k}.pt")
        records.append({"tile_id": f"t{k}"})
    (tmp_path / "metadata.json").write_text(json.dumps({"tiles": [record | {"is_clean": True} for record in records]}))
    return tmp_path, torch.from_numpy(tiles), records


def open_set(folder):
    return EDMPTDataset(folder, folder / "metadata.json", image_size=16)


@pytest.mark.parametrize(("indices", "kind"), [
    ([3, 0, 4, 0, 5, 1], torch.uint16), ([6, 7], torch.float32), ([9, 3, 6, 0, 8, 5], torch.float32), ([2, 6], torch.float32),
])  # fmt: skip
def test_a_batch_is_its_tiles_in_the_order_asked_for_whatever_the_files(mixed, indices, kind):
    folder, tiles, _ = mixed
    dataset = open_set(folder)
    stored = dataset.stored(indices)
    assert stored.dtype == kind
    assert torch.equal(decode(stored), tiles[indices])
    assert torch.equal(torch.stack([image for image, _ in dataset.__getitems__(indices)]), tiles[indices])
    for index in indices:
        image, label = dataset[index]
        assert (image.dtype, tuple(label.shape)) == (torch.float32, (0,))
        assert torch.equal(image, tiles[index])


@pytest.mark.parametrize("workers", [0, 2])
def test_values_and_order_do_not_depend_on_workers(mixed, workers):
    folder, tiles, _ = mixed
    order = [[9, 0, 4], [1, 8, 6], [2, 3, 5]]
    images = [batch for batch, _ in DataLoader(open_set(folder), batch_sampler=order, num_workers=workers)]
    assert all(torch.equal(batch, tiles[indices]) for batch, indices in zip(images, order, strict=True))


def test_a_training_set_that_was_read_from_still_pickles(mixed):
    folder, tiles, _ = mixed
    dataset = open_set(folder)
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[1][0], tiles[1])
    assert copy.fingerprint == dataset.fingerprint


def rewrite(folder, records):
    (folder / "metadata.json").write_text(json.dumps({"tiles": records}))
    return open_set(folder)


@pytest.mark.parametrize("index", [-1, 4])
def test_a_number_that_the_stack_does_not_have_is_refused(mixed, index):
    folder, _, records = mixed
    with pytest.raises(DatasetError, match=rf"a\.npy: tile t0 is number {index} of 4, expected 0 to 3"):
        rewrite(folder, [records[0] | {"index": index}])[0]


def test_a_stack_of_another_type_or_shape_or_none_is_refused(mixed):
    folder, _, records = mixed
    np.save(folder / "long/a.npy", np.zeros((4, 3, 16, 16)))
    with pytest.raises(DatasetError, match=r"a\.npy: got float64 \(4, 3, 16, 16\), expected uint16 or float32 \(N, 3, 16, 16\)"):
        rewrite(folder, records)[0]
    write_stack(folder / "long/a.npy", np.zeros((4, 3, 8, 8), np.float32))
    with pytest.raises(DatasetError, match=r"a\.npy: got uint16 \(4, 3, 8, 8\), expected"):
        rewrite(folder, records)[0]
    (folder / "long/a.npy").unlink()
    with pytest.raises(DatasetError, match=r"a\.npy: not a readable stack \(FileNotFoundError"):
        rewrite(folder, records)[0]

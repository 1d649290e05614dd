"""The predecessor's layouts, and ours."""

import json

import pytest
import torch
from kedro.io import DatasetError
from torch.utils.data import DataLoader

from lowlight_kedro.datasets.edm_pt import EDMPTDataset

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
    assert [tile["tile_id"] for tile in dataset.tiles] == CLEAN
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

"""Folders of `.pt` become stacks without loss worth the name, and one bad tile stops nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lowlight_kedro.datasets.edm_pt import EDMPTDataset, TileSet
from lowlight_kedro.datasets.jobs import JobsDataset
from lowlight_kedro.datasets.stacks import decode, encode, holds
from lowlight_kedro.datasets.tiles import TileFolderDataset
from lowlight_kedro.pipelines.import_tiles import ImportOptions, describe_import, groups, import_stacks
from lowlight_kedro.pipelines.options import ExecutorOptions
from lowlight_kedro.pipelines.training.loading import batch_source
from lowlight_kedro.pipelines.training.options import LoaderOptions
from lowlight_kedro.pipelines.validation import ValidationOptions, check_tiles

SIDE = 16
VALIDATION = ValidationOptions(image_size=SIDE, min_std=1e-5, max_saturated=0.95, on_content="stop")
IMPORT = ImportOptions(image_size=SIDE, tiles_per_stack=4, clip=False)


def random_tiles(rng, n):
    return rng.uniform(-1, 1, (n, 3, SIDE, SIDE)).astype(np.float32)


def import_all(source, metadata, target, options=IMPORT):
    """The two nodes, with what Kedro does between them."""
    folder = Path(target._describe()["filepath"])
    record = {"path": str(folder.with_name("records")), "filename_suffix": ".json"}
    saved = JobsDataset(
        parts={
            "tiles": {"path": str(folder), "dataset": "lowlight_kedro.datasets.tiles.TileDataset"},
            "record": record | {"dataset": "lowlight_kedro.datasets.atomic.AtomicJSONDataset"},
        },
        many=["tiles"], prune=True, verify=["tiles"],
    )  # fmt: skip
    saved.save(import_stacks(metadata, TileFolderDataset(filepath=str(source)).load(), options, ExecutorOptions(name="sequential")))
    return describe_import(metadata, saved.load(), options)


@pytest.fixture
def predecessor(tmp_path, rng):
    """Nine single tiles in the predecessor's layout, flat, one of them noisy; and their values."""
    folder, values = tmp_path / "predecessor", random_tiles(rng, 9)
    records = [{"tile_id": f"scene_10s_r{k}", "split": "train", "row": k} for k in range(8)] + [
        {"tile_id": "scene_0.1s_r8", "split": "train"}
    ]
    for k, record in enumerate(records):
        path = folder / ("long" if k % 2 else ".") / f"{record['tile_id']}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch.from_numpy(values[k]), path)
    return folder, {"tiles": records, "source": "test"}, values


def test_imported_tiles_are_the_old_ones_to_half_a_step_and_validate(predecessor, tmp_path):
    folder, metadata, values = predecessor
    target = TileFolderDataset(filepath=str(tmp_path / "new"))
    new, report = import_all(folder, metadata, target)
    assert (report["tiles"], report["imported"], report["stacks"], report["refused"]) == (9, 9, 3, [])
    assert report["max_rounding_error"] == np.abs(decode(encode(values)) - values).max()
    assert 0.4 < report["max_rounding_error_steps"] < 0.51
    assert [(tile["tile_id"], tile["split"]) for tile in new["tiles"]] == [(tile["tile_id"], tile["split"]) for tile in metadata["tiles"]]
    assert (new["source"], new["tiles"][3]["row"]) == ("test", 3)
    (tmp_path / "metadata.json").write_text(json.dumps(new))
    dataset = EDMPTDataset(tmp_path / "new", tmp_path / "metadata.json", image_size=SIDE)
    assert len(dataset) == 8  # the noisy one is kept, in `short`, and not trained on
    for k in range(8):
        np.testing.assert_array_equal(dataset[k][0].numpy(), decode(encode(values[k])))
    _, problems = check_tiles(TileSet(new, tmp_path / "new", tmp_path / "metadata.json", SIDE), VALIDATION)
    assert problems.empty


def test_bad_tiles_are_listed_and_the_others_imported(predecessor, tmp_path):
    folder, metadata, values = predecessor
    outside = values[0] * 1.5
    torch.save(torch.from_numpy(outside), folder / "scene_10s_r0.pt")
    torch.save(torch.full((3, SIDE, SIDE), torch.inf), folder / "scene_10s_r2.pt")
    (folder / "long/scene_10s_r3.pt").write_bytes(b"torn")
    (folder / "scene_10s_r4.pt").unlink()
    torch.save(torch.zeros(3, 8, 8), folder / "long/scene_10s_r5.pt")
    target = TileFolderDataset(filepath=str(tmp_path / "new"))
    new, report = import_all(folder, metadata, target)
    reasons = {entry["tile_id"][-2:]: entry["reason"] for entry in report["refused"]}
    assert reasons.keys() == {"r0", "r2", "r3", "r4", "r5"}
    assert "expected within [-1, 1]; import_tiles.clip=true would clip them" in reasons["r0"]
    assert "not finite" in reasons["r2"]
    assert "not a readable tensor file" in reasons["r3"]
    assert reasons["r4"] == "no file for it"
    assert "shape is (3, 8, 8)" in reasons["r5"]
    assert report["outside"] == {"scene_10s_r0": int((np.abs(outside) > 1).sum())}
    assert check_tiles(TileSet(new, tmp_path / "new", tmp_path / "unread.json", SIDE), VALIDATION)[1].empty
    clipped, report = import_all(folder, metadata, target, IMPORT.model_copy(update={"clip": True}))
    assert [tile["tile_id"][-2:] for tile in clipped["tiles"]] == ["r0", "r1", "r6", "r7", "r8"]
    assert len(report["refused"]) == 4
    np.testing.assert_array_equal(target.load()["long/import_00000.npy"]()[0], encode(np.clip(outside, -1, 1)))


def test_no_usable_tile_is_an_error(predecessor, tmp_path):
    folder, metadata, _ = predecessor
    with pytest.raises(ValueError, match=r"none of the 9 tiles could be imported; the first: shape is"):
        import_all(folder, metadata, TileFolderDataset(filepath=str(tmp_path / "new")), IMPORT.model_copy(update={"image_size": 32}))


def test_a_second_import_writes_only_what_is_missing_and_files_keep_their_fields(predecessor, tmp_path):
    folder, metadata, values = predecessor
    nested = {"files": [{"frame": "x", "split": "train", "tiles": [{"tile_id": tile["tile_id"]} for tile in metadata["tiles"]]}]}
    target = TileFolderDataset(filepath=str(tmp_path / "new"))
    first, _ = import_all(folder, nested, target)
    assert first["files"][0]["frame"] == "x"
    stacks = sorted((tmp_path / "new").rglob("*.npy"))
    before = {path: path.stat().st_ino for path in stacks}
    stacks[0].unlink()
    stacks[1].write_bytes(b"torn")
    second, _ = import_all(folder, nested, target)
    assert second == first
    assert {path for path in stacks if path.stat().st_ino == before[path]} >= set(stacks[2:])
    assert holds(stacks[0], values[:4])
    assert holds(stacks[1], values[4:8])


def test_a_smaller_import_takes_the_stacks_of_the_larger_one_away_and_no_other_file(predecessor, tmp_path):
    folder, metadata, _ = predecessor
    target = TileFolderDataset(filepath=str(tmp_path / "new"))
    import_all(folder, metadata, target)
    (tmp_path / "new/long/mine.npy").write_bytes(b"not of an import")
    new, _ = import_all(folder, {"tiles": metadata["tiles"][:3]}, target)
    assert sorted(target.load()) == ["long/import_00000.npy", "long/mine.npy"]
    assert len(new["tiles"]) == 3


def test_each_tile_is_in_one_stack_and_stacks_are_full():
    listed = [{"tile_id": f"{k}", "is_clean": k % 3 > 0} for k in range(20)]
    parts = groups({"tiles": listed}, 4)
    assert sorted(number for numbers in parts.values() for number in numbers) == list(range(20))
    assert [len(numbers) for numbers in parts.values()] == [4, 4, 4, 1, 4, 3]
    assert all(listed[number]["is_clean"] == name.startswith("long/") for name, numbers in parts.items() for number in numbers)


def test_importing_by_the_project_fills_the_training_set(empty_project, predecessor):
    folder, metadata, _ = predecessor
    shutil.copytree(folder, empty_project.data / "01_raw/tiles")
    (empty_project.data / "01_raw/tiles/metadata.json").write_text(json.dumps(metadata))
    empty_project.run("import_tiles", "validation", tile_size=SIDE)
    assert json.loads((empty_project.data / "08_reporting/import_report.json").read_text())["imported"] == 9
    assert json.loads((empty_project.data / "03_primary/validation_report.json").read_text())["passed"]


@pytest.mark.parametrize("kind", ["stacks", "single"])
def test_batches_are_the_same_bits_with_and_without_workers(kind, predecessor, tmp_path):
    folder, metadata, values = predecessor
    if kind == "stacks":
        metadata, _ = import_all(folder, metadata, TileFolderDataset(filepath=str(tmp_path / "new")))
        folder = tmp_path / "new"
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    runs = []
    for workers in (0, 2):
        dataset = EDMPTDataset(folder, tmp_path / "metadata.json", image_size=SIDE)
        loader = LoaderOptions(workers=workers, pin_memory=False, persistent_workers=False, prefetch_factor=2)
        runs.append(list(batch_source(dataset, ["scene_10s_r1"], 3, 0, loader)(0, 21)))
    values = decode(encode(values)) if kind == "stacks" else values
    expected = dict(zip((tile["tile_id"] for tile in metadata["tiles"]), values, strict=True))
    for (names, batch), (names_again, again) in zip(*runs, strict=True):
        assert names == names_again
        assert batch.dtype == (torch.uint16 if kind == "stacks" else torch.float32)
        assert torch.equal(batch, again)
        np.testing.assert_array_equal(decode(batch).numpy(), np.stack([expected[name] for name in names]))
    assert {name for names, _ in runs[0] for name in names} == {f"scene_10s_r{k}" for k in (0, 2, 3, 4, 5, 6, 7)}

"""What `kedro run` leaves behind."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.edm_pt import EDMPTDataset
from lowlight_kedro.datasets.stacks import decode
from lowlight_kedro.pipeline_registry import register_pipelines
from tests.conftest import make_frame


def test_tiles_metadata_and_index_agree(finished):
    index = pd.read_csv(finished.data / "03_primary/index.csv")
    folder = finished.data / "03_primary/tiles"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == set(index["stack"])
    assert set(index["split"]) == {"train", "val", "test"}
    assert index.groupby("scene_id")["split"].nunique().max() == 1
    assert (index["is_clean"] == (index["data_type"] == "long")).all()
    columns = {"scene_id", "split", "data_type", "is_clean", "exposure_s", "iso", "camera", "cfa", "black_level", "white_level",
               "row", "column", "top", "left", "mean", "std", "min", "max", "saturated_fraction"}  # fmt: skip
    assert columns <= set(index.columns)
    assert set(index["cfa"]) == {"RGGB", "xtrans"}
    for row in index.sample(5, random_state=0).rename(columns={"index": "number"}).itertuples():
        stack = np.load(folder / row.stack, mmap_mode="r")
        assert (stack.dtype, stack.shape[1:]) == (np.uint16, (3, 64, 64))
        assert decode(stack[row.number]).mean() == pytest.approx(row.mean, abs=1e-5)


def test_the_training_set_is_clean_and_unlabelled(finished):
    tiles = EDMPTDataset(finished.data / "03_primary/tiles", finished.data / "03_primary/metadata.json", image_size=64)
    image, label = tiles[0]
    assert (image.dtype, tuple(image.shape), tuple(label.shape)) == (torch.float32, (3, 64, 64), (0,))
    assert len(tiles) == 3 * 2 * 3
    assert (set(tiles.tiles["data_type"]), set(tiles.tiles["split"])) == ({"long"}, {"train"})


def test_a_pair_of_exposures_differs_by_its_ratio(finished):
    """The scaled short exposure has the brightness of the long one: the ratio is not inverted."""
    index = pd.read_csv(finished.data / "03_primary/index.csv")
    light = (index["mean"] + 1) / 2
    means = light.groupby([index["scene_id"], index["data_type"]]).mean().unstack()
    np.testing.assert_allclose(means["short"], means["long"], rtol=0.15)


def test_the_reports_tell_what_happened(finished):
    report = json.loads((finished.data / "08_reporting/preprocessing_report.json").read_text())
    assert (report["raws"], report["used"], report["pairs"], report["skipped"], report["unpaired"]) == (12, 12, 6, [], [])
    validation = json.loads((finished.data / "03_primary/validation_report.json").read_text())
    assert validation["passed"]
    assert validation["clean"] * 2 == validation["tiles"]
    assert validation["decided_by"] == {"is_clean": validation["tiles"]}


def test_checkpoints_describe_themselves_without_pickle(finished):
    with safe_open(finished.data / "06_models/prior.safetensors", framework="pt") as file:
        description = json.loads(file.metadata()["lowlight_kedro"])
    assert description["network"]["name"] == "pyramid_unet"
    assert description["images"] == 128
    statistics = json.loads((finished.data / "05_model_input/statistics.json").read_text())
    assert description["scaling"] == {"mean": statistics["mean"], "scale": statistics["std"] / 0.5}


def test_every_test_frame_is_restored_and_evaluated(finished):
    table = pd.read_csv(finished.data / "08_reporting/evaluation.csv")
    assert table["frame"].tolist() == ["Sony/short/10001_00_0.1s", "Sony/short/10002_00_0.1s"]
    for frame in table["frame"]:
        for place in (
            "07_model_output/linear/{}.tif",
            "07_model_output/srgb/{}.tif",
            "07_model_output/preview/{}.png",
            "08_reporting/comparisons/{}.png",
        ):
            assert (finished.data / place.format(frame)).stat().st_size > 1000
    catalog = finished.catalog()
    restored = catalog.load("restored")["Sony/short/10002_00_0.1s"]["linear"]()
    assert restored.shape == (3, 192, 288)
    assert (table["restored_psnr_linear"] > table["scaled_psnr_linear"]).all()


def test_no_temporary_file_is_left(finished):
    assert list(finished.data.rglob(".*")) == []


def test_every_catalog_entry_of_the_pipelines_is_declared_with_a_layer(finished):
    config = finished.catalog()
    needed = set().union(*(pipeline.datasets() for pipeline in register_pipelines().values()))
    for name in sorted(name for name in needed if not name.startswith("param")):
        assert name in config, name
        assert config.get(name).metadata["kedro-viz"]["layer"], name


def test_nothing_is_done_twice_and_results_repeat(finished, project):
    """Running inference again gives the same pixels; training that is complete is not trained further."""
    before = {path.name: path.read_bytes() for path in (project.data / "07_model_output/linear").rglob("*.tif")}
    state = (project.data / "06_models/training_state.safetensors").read_bytes()
    project.run("training", "inference")
    assert {path.name: path.read_bytes() for path in (project.data / "07_model_output/linear").rglob("*.tif")} == before
    assert (project.data / "06_models/training_state.safetensors").read_bytes() == state


def test_a_run_that_ends_early_is_complete_and_its_table_keeps_what_ticks_took(project):
    early = {"selection": {"column": "psnr_0.3", "patience_ticks": 1, "min_delta": 1000.0}}
    path = project.data / "06_models/training_state.safetensors"
    project.run("training", training=early | {"resume": False})
    state, history = path.read_bytes(), project.catalog().load("training_history")
    assert history["kimg"].tolist() == [0.032, 0.064]
    assert history.notna().all(axis=None)
    assert (history[["seconds", "images_per_second", "memory_gib"]] > 0).all(axis=None)
    project.run("training", training=early)
    assert path.read_bytes() == state
    pd.testing.assert_frame_equal(project.catalog().load("training_history"), history)


def test_what_people_look_at_stands_upright(project):
    """Preview and sRGB as the camera was held; linear values as the sensor lies."""
    turned = replace(make_frame(np.random.default_rng(0), shape=(128, 160), exposure_s=0.1), orientation=6)
    write_dng(project.raw / "Sony/short/10007_00_0.1s.dng", turned)
    project.run("inference", inference={"exposure_ratio": {"value": 100.0}})
    parts = project.catalog().load("restored")["Sony/short/10007_00_0.1s"]
    assert {name: parts[name]().shape for name in ("linear", "srgb", "preview")} == {
        "linear": (3, 128, 160), "srgb": (3, 160, 128), "preview": (3, 160, 128),
    }  # fmt: skip


def test_kedro_viz_is_given_pictures_of_the_results_and_their_places(finished):
    catalog = finished.catalog()
    for name in ("restored", "frame_tiles"):
        arguments = catalog.get(name).metadata["kedro-viz"]["preview_args"]
        assert len(catalog.get(name).preview(**arguments)) > 1000
    assert len(catalog.get("comparisons").preview()) > 1000
    assert len(catalog.get("tiles").preview()) > 1000
    assert catalog.get("restored")._describe()["path"].endswith("07_model_output/linear")
    assert catalog.get("tiles")._describe()["path"].endswith("03_primary/tiles")


def test_each_node_is_of_its_pipelines_namespace_and_tag_and_none_goes_back_in_the_layers(finished):
    """Kedro-Viz folds namespaces, shows no layer at all where they make a cycle, and orders those by name that no node orders."""
    pipelines, catalog = register_pipelines(), finished.catalog()
    for name, pipeline in pipelines.items():
        assert name == "__default__" or all(node.namespace == name and name in node.tags for node in pipeline.nodes)
    assert {node.name for node in pipelines["__default__"].only_nodes_with_tags("gpu").nodes} == {
        "training.train_prior", "inference.restore_frames"
    }  # fmt: skip
    layer = {
        name: catalog.get(name).metadata["kedro-viz"]["layer"]
        for name in set().union(*(pipeline.datasets() for pipeline in pipelines.values()))
        if "param" not in name
    }
    assert set(layer.values()) <= {
        "01_raw", "02_intermediate", "03_primary", "05_model_input", "06_models", "07_model_output", "08_reporting"
    }  # fmt: skip
    for node in (node for pipeline in pipelines.values() for node in pipeline.nodes):
        assert all(layer[read] <= layer[made] for read in node.inputs if read in layer for made in node.outputs), node.name

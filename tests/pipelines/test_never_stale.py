"""Results follow from what is there now: order by edges, damage found, failed checks withdrawn."""

import logging
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from kedro.framework.session import KedroSession

from lowlight_kedro.pipeline_registry import register_pipelines
from lowlight_kedro.pipelines.validation.nodes import ValidationError
from tests.conftest import ROOT

PLACES = ("filepath", "path", "data_root", "metadata_json")
KINDS = {"calibrations": "json", "darks": "npz"}  # of files, where a folder holds two datasets


def places(name, entry):
    """Files and folders of a catalog entry."""
    parts = [entry, *entry.get("parts", {}).values()]
    return {f"{part[key]}/{KINDS.get(name, '')}" for part in parts for key in PLACES if key in part}


def unordered(pipeline, catalog):
    """(written entry, read entry) of one place whose nodes may run in either order."""
    written = {name: node for node in pipeline.nodes for name in node.outputs}
    read = [(name, node) for node in pipeline.nodes for name in node.inputs if name in catalog]
    for name, maker in written.items():
        later = {node.name for node in pipeline.from_nodes(maker.name).nodes}
        for other, reader in read:
            shared = any(a.startswith(b) or b.startswith(a) for a in places(name, catalog[name]) for b in places(other, catalog[other]))
            if shared and reader.name not in later:
                yield name, other


@pytest.mark.parametrize("environment", ["base", "eld", "photographs"])
def test_who_reads_a_file_runs_after_who_writes_it_whatever_pipelines_run_together(environment):
    with KedroSession.create(ROOT, env=environment) as session:
        catalog = session.load_context().config_loader["catalog"]
    pipelines = register_pipelines()
    assert list(unordered(pipelines["__default__"], catalog)) == []
    for first, second in combinations(sorted(pipelines.keys() - {"__default__"}), 2):
        if not pipelines[first].all_outputs() & pipelines[second].all_outputs():
            assert list(unordered(pipelines[first] + pipelines[second], catalog)) == [], (first, second)


def test_a_first_run_and_a_second_give_the_same_records(project):
    """The ratio measured on the pair is known to inference where preprocessing runs with it, also at first."""
    (project.data / "02_intermediate/pairs.csv").unlink()
    project.run("preprocessing", "inference")
    first = {name: parts["record"]() for name, parts in project.catalog().load("restored").items()}
    assert {record["ratio_from"] for record in first.values()} == {"exposure times of the pair"}
    project.run("preprocessing", "inference")
    assert {name: parts["record"]() for name, parts in project.catalog().load("restored").items()} == first


def test_a_damaged_tile_is_found_withdraws_the_statistics_and_is_repaired_by_what_is_told(project, caplog):
    stack = sorted((project.data / "03_primary/tiles/long").glob("*.npy"))[0]
    sound, statistics = stack.read_bytes(), project.data / "05_model_input/statistics.json"
    before = statistics.read_bytes()
    tiles = np.load(stack).astype(np.float32)
    tiles[0, 0, 0, 0] = np.nan
    np.save(stack, tiles)
    with pytest.raises(ValidationError, match="run the pipeline that made them again"):
        project.run("validation")
    assert not statistics.exists()
    with pytest.raises(Exception, match=r"there is no .*statistics\.json; run `kedro run --pipelines validation` first"):
        project.run("training")
    caplog.clear()
    caplog.set_level(logging.INFO, logger="lowlight_kedro")
    project.run("preprocessing", "validation")
    assert stack.read_bytes() == sound
    assert statistics.read_bytes() == before
    index = pd.read_csv(project.data / "03_primary/index.csv")
    assert f"{stack.parent.name}/{stack.name} was not as it had been written" in caplog.text
    assert f"tiles: 1 done, {index['frame'].nunique() - 1} kept from before, 0 failed" in caplog.text

"""Results follow from what is there now: order by edges, damage found, failed checks withdrawn."""

import logging
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from kedro.framework.session import KedroSession

from lowlight_kedro.pipeline_registry import register_pipelines
from lowlight_kedro.pipelines.validation import ValidationError
from tests.conftest import ROOT

KINDS = {"calibrations": "json", "darks": "npz"}  # of files, where a folder holds two datasets


def strings(entry):
    """All that is said in a catalog entry, at any depth, but what it only links to."""
    if isinstance(entry, dict):
        entry = [value for key, value in entry.items() if key != "beside"]
    return {entry} if isinstance(entry, str) else set().union(*map(strings, entry if isinstance(entry, list) else ()))


def places(name, entry):
    """Files and folders of a catalog entry, whatever its arguments are called."""
    return {f"{text}/{KINDS.get(name, '')}" for text in strings(entry) if text.startswith("data/")}


def unordered(pipeline, catalog):
    """(written entry, read entry) of one place whose nodes may run in either order."""
    written = {name: node for node in pipeline.nodes for name in node.outputs}
    read = [(name, node) for node in pipeline.nodes for name in node.inputs if name in catalog]
    for name, maker in written.items():
        later = {node.name for node in pipeline.from_nodes(maker.name).nodes}
        for other, reader in read:
            if share(places(name, catalog[name]), places(other, catalog[other])) and reader.name not in later:
                yield name, other


def share(a, b):
    return any(x.startswith(y) or y.startswith(x) for x in a for y in b)


@pytest.fixture(scope="module", params=["base", "eld", "photographs"])
def catalog(request):
    with KedroSession.create(ROOT, env=request.param) as session:
        return session.load_context().config_loader["catalog"]


def test_who_reads_a_file_runs_after_who_writes_it_whatever_pipelines_run_together(catalog):
    pipelines = register_pipelines()
    assert list(unordered(pipelines["__default__"], catalog)) == []
    for first, second in combinations(sorted(pipelines.keys() - {"__default__"}), 2):
        if not pipelines[first].all_outputs() & pipelines[second].all_outputs():
            assert list(unordered(pipelines[first] + pipelines[second], catalog)) == [], (first, second)


def test_what_a_node_writes_others_read_by_the_same_name_so_that_there_is_an_edge(catalog):
    """Only what training left for itself has a second name: no node may have one name as input and output."""
    nodes = [node for pipeline in register_pipelines().values() for node in pipeline.nodes]
    written = {name for node in nodes for name in node.outputs if name in catalog}
    read = {(name, node) for node in nodes for name in node.inputs if name in catalog and name not in written}
    places_of = {name: places(name, entry) for name, entry in catalog.items()}
    twins = {(name, node.name, twin) for name, node in read for twin in written if share(places_of[name], places_of[twin])}
    assert twins == {(f"earlier_training_{what}", "training.train_prior", f"training_{what}") for what in ("state", "history")}


def test_a_first_run_and_a_second_give_the_same_records(project):
    """The ratio measured on the pair is known to inference where preprocessing runs with it, also at first."""
    (project.data / "03_primary/pairs.csv").unlink()
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

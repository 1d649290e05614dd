"""One training at a time in a folder, whatever became of the one before; what was interrupted; parameters as other plug-ins see them."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner

from lowlight_kedro.hooks import TRAIN, Interrupted, OneTraining, PlainParameters, lock, methods_text, pictures_text, place
from lowlight_kedro.pipelines.options import Choice

HOLD = """
import sys, time
from pathlib import Path
from lowlight_kedro.hooks import lock
held = lock(Path(sys.argv[1]))
print(1, flush=True)
time.sleep(60)
"""


class State:
    def __init__(self, folder):
        self._folder = folder

    def _describe(self):
        return {"filepath": f"{self._folder}/training_state.safetensors"}


def begin(folder):
    namespace, name = TRAIN.split(".")
    training = Pipeline([Node(lambda a: a, "a", "training_state", name=name, namespace=namespace)])
    hook = OneTraining()
    hook.before_pipeline_run(training, {"training_state": State(folder)})
    return hook


def test_a_second_training_in_a_folder_is_refused_until_the_first_is_gone_even_by_a_crash(tmp_path):
    folder = tmp_path / "06_models"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        with pytest.raises(ValueError, match=r"another run trains in .*06_models.*--params data=FOLDER"):
            begin(folder)
        begin(tmp_path / "another")
        first.kill()
        first.wait()
    begin(folder).after_pipeline_run()
    begin(folder).on_pipeline_error()
    begin(folder)
    assert list(folder.iterdir()) == []


def test_what_is_locked_is_told_and_released_by_closing(tmp_path):
    held = lock(Path(tmp_path))
    with pytest.raises(BlockingIOError):
        lock(tmp_path)
    assert held is not None


def test_other_plug_ins_see_plain_mappings_and_the_node_its_typed_parameters():
    typed = Choice(name="dps", options={"dps": {"scale": 0.5}})
    given = {"params:sampler": typed, "parameters": {"sampler": {}}, "tiles": typed}
    seen = dict(given)
    PlainParameters().before_node_run(seen)
    assert seen == {"params:sampler": {"name": "dps", "options": {"dps": {"scale": 0.5}}}, "tiles": typed}
    assert given["params:sampler"] is typed


def run(folder, cut, begun, **asked):
    """scene -> parts -> table; the second node is cut off after its first part where `cut` says so."""
    catalog = DataCatalog.from_config({
        "scene": {"type": "json.JSONDataset", "filepath": f"{folder}/scene.json"},
        "parts": {"type": "partitions.PartitionedDataset", "path": f"{folder}/parts", "dataset": "json.JSONDataset"},
        "table": {"type": "json.JSONDataset", "filepath": f"{folder}/table.json"},
    })  # fmt: skip

    def scene():
        begun.append("scene")
        return 1

    def parts(scene):
        begun.append("parts")
        yield {"first": scene}
        if cut:
            raise KeyboardInterrupt
        yield {"second": scene}

    def table(parts):
        begun.append("table")
        return len(parts)

    pipeline = Pipeline([Node(scene, None, "scene"), Node(parts, "scene", "parts"), Node(table, "parts", "table")])
    manager, hook = _create_hook_manager(), Interrupted()
    manager.register(hook)
    hook.after_context_created(SimpleNamespace(config_loader={"globals": {"data": str(folder)}}))
    hook.before_pipeline_run(asked, pipeline, catalog)
    SequentialRunner().run(pipeline, catalog, manager, **asked)
    hook.after_pipeline_run(pipeline)
    return catalog.load("table")


def test_where_no_mark_can_be_made_the_run_goes_on(tmp_path):
    """On a read-only disk whoever writes a result says so."""
    (tmp_path / "unfinished").write_text("a file")
    assert run(tmp_path, False, []) == 2


def test_each_node_is_told_with_its_number_as_it_begins(tmp_path, caplog):
    caplog.set_level("INFO")
    run(tmp_path, False, [])
    assert [record.getMessage()[-8:] for record in caplog.records if record.name == "lowlight_kedro.hooks"] == [
        "(1 of 3)",
        "(2 of 3)",
        "(3 of 3)",
    ]


def test_only_missing_outputs_does_an_interrupted_node_again_with_what_follows_and_nothing_else(tmp_path):
    begun = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, True, begun)
    (tmp_path / "table.json").write_text("7")  # of an earlier run
    begun.clear()
    assert run(tmp_path, False, begun, only_missing_outputs=True) == 2
    assert begun == ["parts", "table"]
    begun.clear()
    run(tmp_path, False, begun, only_missing_outputs=True)
    assert begun == []
    (tmp_path / "table.json").unlink()
    run(tmp_path, False, begun, only_missing_outputs=True)
    assert begun == ["table"]


@pytest.mark.parametrize(("told", "shown"), [
    ({"filepath": Path("bucket/a.png"), "protocol": "s3"}, "s3://bucket/a.png"),
    ({"filepath": Path("data/a.png"), "protocol": "file"}, "data/a.png"),
    ({"filepath": "data/a.html"}, "data/a.html"), ({}, "in memory only"),
])  # fmt: skip
def test_a_place_on_another_file_system_is_shown_with_its_protocol(told, shown):
    assert place(SimpleNamespace(_describe=lambda: told), "filepath") == shown


def test_the_end_of_a_run_tells_where_its_pictures_are_and_how_each_method_was_asked():
    told = pictures_text([f"out/{number}.png" for number in range(14)], ["pages: out/index.html"])
    assert told.splitlines()[1:4] == ["restored:", "  out/0.png", "  out/1.png"]
    assert told.splitlines()[-2:] == ["  ... and 2 more", "pages: out/index.html"]
    table = pd.DataFrame({"method": ["scaled", "dps"] * 2, "estimate": [None, "sample"] * 2, "psnr_srgb": [10.0, 20.0, 12.0, 22.0]})
    assert [line.split() for line in methods_text(table, "out").splitlines() if "dps" in line or "scaled" in line] == [
        ["scaled", "11.000"], ["dps", "sample", "21.000"]
    ]  # fmt: skip

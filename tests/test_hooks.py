"""One training at a time in a folder, whatever became of the one before; parameters as other plug-ins see them."""

import subprocess
import sys
from pathlib import Path

import pytest
from kedro.pipeline import Node, Pipeline

from lowlight_kedro.hooks import TRAIN, OneTraining, PlainParameters, lock
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

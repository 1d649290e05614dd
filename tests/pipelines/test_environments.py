"""Every environment builds its parameters and its catalog."""

import inspect

import pytest
from kedro.framework.session import KedroSession

from lowlight_kedro.pipeline_registry import register_pipelines
from lowlight_kedro.pipelines.calibration.options import CalibrationOptions
from lowlight_kedro.pipelines.comparison.options import ComparisonOptions
from lowlight_kedro.pipelines.evaluation.options import EvaluationOptions
from lowlight_kedro.pipelines.import_tiles.options import ImportOptions
from lowlight_kedro.pipelines.inference.options import InferenceOptions
from lowlight_kedro.pipelines.options import ExecutorOptions
from lowlight_kedro.pipelines.photographs.options import PhotographOptions
from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions
from lowlight_kedro.pipelines.sensor_options import SensorOptions
from lowlight_kedro.pipelines.training.options import TrainingOptions
from lowlight_kedro.pipelines.validation.options import ValidationOptions
from tests.conftest import ROOT

OPTIONS = {
    "preprocessing": PreprocessingOptions, "validation": ValidationOptions, "training": TrainingOptions,
    "inference": InferenceOptions, "evaluation": EvaluationOptions, "sensor": SensorOptions,
    "executor": ExecutorOptions, "calibration": CalibrationOptions, "import_tiles": ImportOptions,
    "photographs": PhotographOptions, "comparison": ComparisonOptions,
}  # fmt: skip
ENVIRONMENTS = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "base")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_parameters_are_complete_and_valid(environment):
    with KedroSession.create(ROOT, env=environment) as session:
        context = session.load_context()
        parameters = context.config_loader["parameters"]
        assert context.catalog.get("raw_frames") is not None
    assert parameters.keys() == OPTIONS.keys()
    for name, options in OPTIONS.items():
        options.model_validate(parameters[name])


def test_the_a40_environment_holds_the_values_it_was_asked_for():
    with KedroSession.create(ROOT, env="a40") as session:
        training = session.load_context().config_loader["parameters"]["training"]
    wanted = {"batch_size": 256, "batch_gpu": 32, "total_kimg": 200, "snapshot_ticks": 50}
    assert {key: training[key] for key in wanted} == wanted
    assert training["loader"] == {"workers": 4, "pin_memory": True, "persistent_workers": True, "prefetch_factor": 2}
    assert training["corruption"]["name"] == "uniform"


def test_environments_hold_only_what_differs():
    """Soft merging: what an environment does not say comes from base."""
    with KedroSession.create(ROOT, env="demo") as session:
        training = session.load_context().config_loader["parameters"]["training"]
    assert training["ema"]["options"]["halflife"] == {"kimg": 1, "rampup": 0.05}


def test_every_parameter_of_a_node_is_typed():
    for pipeline in register_pipelines().values():
        for node in pipeline.nodes:
            signature = list(inspect.signature(node.func).parameters.values())
            for name, parameter in zip(node.inputs, signature, strict=True):
                if name.startswith("params:"):
                    assert parameter.annotation is OPTIONS[name.removeprefix("params:")], (node.name, name)

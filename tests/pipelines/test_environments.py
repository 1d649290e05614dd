"""Every environment builds its parameters and its catalog."""

import inspect
from functools import cache

import pytest
import torch
from click import ClickException
from kedro.framework.session import KedroSession
from pydantic import ValidationError

from lowlight_kedro.config_loader import _merged
from lowlight_kedro.device import choose_device
from lowlight_kedro.diffusion.compute import checkpoint_blocks
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.memory import count_pass
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.pipeline_registry import register_pipelines
from lowlight_kedro.pipelines.averaging import AveragingOptions
from lowlight_kedro.pipelines.calibration import CalibrationOptions
from lowlight_kedro.pipelines.comparison.nodes import ComparisonOptions
from lowlight_kedro.pipelines.evaluation.nodes import EvaluationOptions
from lowlight_kedro.pipelines.import_tiles import ImportOptions
from lowlight_kedro.pipelines.inference.options import InferenceOptions
from lowlight_kedro.pipelines.options import ExecutorOptions, SensorOptions
from lowlight_kedro.pipelines.photographs import PhotographOptions
from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions
from lowlight_kedro.pipelines.training.options import TrainingOptions
from lowlight_kedro.pipelines.validation import ValidationOptions
from tests.conftest import ROOT

OPTIONS = {
    "preprocessing": PreprocessingOptions, "validation": ValidationOptions, "training": TrainingOptions,
    "inference": InferenceOptions, "evaluation": EvaluationOptions, "sensor": SensorOptions,
    "executor": ExecutorOptions, "calibration": CalibrationOptions, "import_tiles": ImportOptions,
    "photographs": PhotographOptions, "comparison": ComparisonOptions, "averaging": AveragingOptions,
}  # fmt: skip
ENVIRONMENTS = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "base")


@cache
def parameters_of(environment):
    """Not to be changed; reading an environment takes a quarter of a second."""
    with KedroSession.create(ROOT, env=environment) as session:
        return session.load_context().config_loader["parameters"]


def changed(options, wrong):
    """The parameters of a group in conf/base with what `--params` says of it, as the loader merges them."""
    return _merged(parameters_of("base")[options], wrong)


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
    training = parameters_of("a40")["training"]
    wanted = {"batch_size": 256, "batch_gpu": 32, "total_kimg": 200, "snapshot_ticks": 50}
    assert {key: training[key] for key in wanted} == wanted
    assert training["loader"] == {"workers": 4, "pin_memory": True, "persistent_workers": True, "prefetch_factor": 2}
    assert training["corruption"]["name"] == "uniform"
    assert training["compute"]["precision"] == "bf16"
    assert training["compute"]["limits"] == {"gpu_fraction": 0.9, "cpu_fraction": 0.25, "cpu_images": 16}  # the rest is base's


# bytes of memory that an environment is for; of a GPU 10 % are left to context, workspaces and fragmentation, of a laptop 3/4 to others
MEMORY = {
    ("a40", False): 0.9 * 48e9,
    ("a40", True): 0.9 * 10e9,  # with checkpointing: the variant for small GPUs
    ("h100", False): 0.9 * 80e9,
    ("cpu", False): 0.25 * 8e9,
}


@pytest.mark.parametrize(("environment", "checkpointing"), MEMORY)
def test_a_pass_fits_the_memory_that_the_environment_is_for(environment, checkpointing):
    """With four running means; counted at full size, see benchmarks/activations.py."""
    changed = {"training": {"compute": {"checkpointing": True}}} if checkpointing else {}
    with KedroSession.create(ROOT, env=environment, runtime_params=changed) as session:
        config = session.load_context().config_loader
        options, tile = TrainingOptions.model_validate(config["parameters"]["training"]), config["globals"]["tile_size"]
    assert options.compute.checkpointing == checkpointing
    with torch.device("meta"):
        denoiser = Denoiser(NETWORKS[options.network.name](**options.network.chosen), 0.5)
    if checkpointing:
        checkpoint_blocks(denoiser)
    images = options.compute.limits.cpu_images if options.batch_gpu == "auto" else options.batch_gpu
    cost = count_pass(denoiser, images, options.crop or tile, options.compute.precision, as_on_gpu=options.device == "cuda")
    assert cost.total(means=4) < MEMORY[environment, checkpointing]


def test_cuda_without_a_gpu_is_an_error_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for wanted in ("cuda", "cuda:1", "tpu"):
        with pytest.raises(ValueError, match=rf"device '{wanted}' was asked for.*set device to auto or cpu"):
            choose_device(wanted)
    assert (choose_device("auto"), choose_device("cpu")) == (torch.device("cpu"), torch.device("cpu"))


def test_a_gpu_that_is_there_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (choose_device("auto"), choose_device("cuda:1")) == (torch.device("cuda"), torch.device("cuda:1"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps") == torch.device("mps")


def test_the_prior_of_photographs_restores_by_what_it_was_trained_on():
    parameters = parameters_of("photographs")
    assert parameters["inference"]["guidance"]["name"] == parameters["training"]["corruption"]["name"] == "noise_map"
    assert parameters["inference"]["estimate"] == "mean"


def test_environments_hold_only_what_differs():
    """Soft merging: what an environment does not say comes from base."""
    training = parameters_of("demo")["training"]
    assert training["ema"]["options"]["halflife"] == {"kimg": 1, "rampup": 0.05}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"compute": {"precison": "bf16"}}, "compute.precison"),
     ({"compute": {"limits": {"gpu_fraction": 2.0}}}, "compute.limits.gpu_fraction"),
     ({"scaling": {"mean": 0.0, "scale": -1.0}}, "scaling")],
)  # fmt: skip
def test_a_wrong_name_or_number_within_a_group_is_told_with_its_place(wrong, message):
    with pytest.raises(ValidationError, match=message.replace(".", r"\.")):
        TrainingOptions.model_validate(changed("training", wrong))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"trainin": {"total_kimg": 3}}, r"unknown parameters: trainin; did you mean training\?"),
        ({"validaton": {}, "x": 1}, "validaton, x"),
    ],
)
def test_a_group_that_nothing_reads_stops_the_run_before_it_starts(wrong, message):
    with KedroSession.create(ROOT, env="base", runtime_params=wrong) as session, pytest.raises(ClickException, match=message):
        session.load_context()


@pytest.mark.parametrize(
    ("options", "wrong", "message"),
    [("training", {"network": {"options": {"piramid": {}}}}, "unknown network 'piramid'"),
     ("training", {"network": {"options": {"pyramid_unet": {"width": 3}}}}, "network 'pyramid_unet' has no option 'width'"),
     ("training", {"corruption": {"name": "noisemap"}}, "unknown corruption 'noisemap'; choose one of"),
     ("training", {"ema": {"options": {"halflife": {"kimgs": 3}}}}, "ema 'halflife' has no option 'kimgs'"),
     ("executor", {"name": "threads"}, "unknown executor 'threads'"), ("executor", {"options": {"dsk": {}}}, "unknown executor 'dsk'"),
     ("sensor", {"noise": {"model": "gauss"}}, "unknown noise_model 'gauss'"),
     ("preprocessing", {"demosaicer": {"bayer": "malvar"}}, "unknown demosaicer 'malvar'")],
)  # fmt: skip
def test_plug_ins_and_their_options_are_checked_with_the_parameters(options, wrong, message):
    with pytest.raises(ValidationError, match=message):
        OPTIONS[options].model_validate(changed(options, wrong))


def test_every_parameter_of_a_node_is_typed():
    for pipeline in register_pipelines().values():
        for node in pipeline.nodes:
            signature = list(inspect.signature(node.func).parameters.values())
            for name, parameter in zip(node.inputs, signature, strict=True):
                if name.startswith("params:"):
                    assert parameter.annotation is OPTIONS[name.removeprefix("params:")], (node.name, name)

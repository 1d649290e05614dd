"""`kedro run` of this project: what `--params` and `--config` may say, machine and tracker beside an environment, errors as sentences."""

import re
from dataclasses import replace

import click
import pytest
import torch
from click.testing import CliRunner
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DatasetError
from pydantic import ValidationError

from lowlight_kedro.cli import read_params, run, sentence, split_items, with_sentences
from lowlight_kedro.hooks import KnownNames
from lowlight_kedro.pipeline_registry import register_pipelines
from lowlight_kedro.pipelines.options import Choice
from lowlight_kedro.pipelines.training.options import TrainingOptions
from lowlight_kedro.pipelines.training.work import settled
from lowlight_kedro.pipelines.validation import ValidationOptions
from tests.conftest import ROOT


def params(value):
    return read_params(None, None, value)


def session(env="base", **parameters):
    bootstrap_project(ROOT)
    with KedroSession.create(ROOT, env=env, runtime_params=parameters) as made:
        return made.load_context()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a.b=1, a.c=null,d=x y", {"a": {"b": 1, "c": None}, "d": "x y"}),
        ("inference.crop=[0,0,64,64],training.seed=1", {"inference": {"crop": [0, 0, 64, 64]}, "training": {"seed": 1}}),
        ("x={a: 1, b: [2,3]},y=1e-4", {"x": {"a": 1, "b": [2, 3]}, "y": 1e-4}),
        ("file='a,b.ARW',z=true", {"file": "a,b.ARW", "z": True}),
        ({"training.total_kimg": 3, "inference": {"crop": [1, 2]}}, {"training": {"total_kimg": 3}, "inference": {"crop": [1, 2]}}),
    ],
)
def test_parameters_are_yaml_by_dotted_names_with_lists_on_the_command_line_and_in_files(text, expected):
    assert params(text) == expected


@pytest.mark.parametrize("wrong", ["training.seed", "=3", "a=[1,2", "a=1]"])
def test_what_is_no_parameter_is_refused_with_its_form(wrong):
    with pytest.raises(click.BadParameter, match=r"must be name=value|bracket"):
        params(wrong)


def test_commas_divide_only_outside_of_brackets_and_quotes():
    assert split_items("a=[1,[2,3]],b='x,y',c={d: [1,2]} , e=2") == ["a=[1,[2,3]]", "b='x,y'", "c={d: [1,2]}", "e=2"]


def test_kedros_run_is_ours_and_all_its_options_are_there():
    from kedro.framework.cli.project import run as kedros

    assert [option.name for option in run.params] == [option.name for option in kedros.params]
    assert next(option for option in run.params if option.name == "params").callback is read_params


def test_an_error_is_its_sentence_and_a_fault_of_the_program_keeps_its_trace():
    with pytest.raises(ValidationError) as caught:
        ValidationOptions.model_validate({"image_size": 4, "min_std": 0, "max_saturated": 1, "on_content": "stop", "x": 1})
    assert "image_size: Input should be greater than or equal to 16 (got 4)" in sentence(caught.value)
    assert "x: no such parameter (got 1)" in sentence(caught.value)
    assert "pydantic" not in sentence(caught.value)

    def fails(error):
        raise error

    with pytest.raises(click.ClickException, match="not fit"):
        with_sentences(fails)(ValueError("not fit"))
    with pytest.raises(KeyError):
        with_sentences(fails)(KeyError("ours"))


@pytest.mark.parametrize("asked", [["--async"], ["--runner-params", "is_async=True"]])
def test_async_is_refused_by_name_before_anything_runs(asked):
    result = CliRunner().invoke(run, asked)
    assert result.exit_code != 0
    assert "--async is for nodes that return all they make at once" in result.output


def test_data_and_machine_are_two_choices_and_the_command_line_wins():
    parameters = [session("sid", **given).config_loader["parameters"] for given in ({}, {"machine": "h100", "training": {"batch_gpu": 8}})]
    plain, both = parameters
    assert both["preprocessing"] == plain["preprocessing"]
    assert both["training"]["network"]["options"]["pyramid_unet"]["widths"] == [256, 512, 768]
    assert (both["training"]["batch_gpu"], both["training"]["compute"]["precision"]) == (8, "bf16")
    assert both["training"]["corruption"] == plain["training"]["corruption"]


def test_a_machine_that_is_none_is_told_with_those_there_are():
    with pytest.raises(ValueError, match=r"machine must be an environment with parameters.* got 'h200'; there are: a40, cpu"):
        session("sid", machine="h200")


def test_a_tracker_is_a_third_choice_that_replaces_entries_of_the_catalog_and_is_none_by_itself():
    plain, tracked = session("sid").config_loader, session("sid", tracker="mlflow", machine="h100").config_loader
    assert tracked["parameters"]["training"]["batch_size"] == 256
    assert (
        plain["catalog"]["prior"]["filepath"]
        == tracked["catalog"]["prior"]["dataset"]["filepath"]
        == "data/sid/06_models/prior.safetensors"
    )
    others = {"prior", "training_history", "training_curves", "evaluation_summary", "report"}
    assert {name for name, entry in plain["catalog"].items() if tracked["catalog"][name] != entry} == others
    assert tracked["mlflow"]["server"] == {"mlflow_tracking_uri": "sqlite:///data/sid/mlflow.db"}
    assert set(plain["mlflow"]["tracking"]["disable_tracking"]["pipelines"]) == set(register_pipelines())
    assert "disable_tracking" not in tracked["mlflow"]["tracking"]
    with pytest.raises(ValueError, match=r"tracker must be an environment with catalog.* got 'wandb'; there are: .*mlflow"):
        session("sid", tracker="wandb")


def test_folders_and_the_tile_size_are_parameters_too():
    context = session("base", data="elsewhere", raw="my/raws", tile_size=64, photograph_folder="pictures")
    catalog = context.config_loader["catalog"]
    assert catalog["frames"]["filepath"] == "elsewhere/02_intermediate/frames.csv"
    assert (catalog["raw_frames"]["filepath"], catalog["photographs"]["filepath"]) == ("my/raws", "pictures")
    assert catalog["tiles"]["image_size"] == context.params["preprocessing"].tiles.size == 64


def test_a_path_elsewhere_is_taken_or_refused_when_the_catalog_is_built():
    """Never made into a folder of that name on this disk."""
    catalog = session("base", data="memory://data", raw="memory://raws", photograph_folder="memory://p", import_from="memory://i").catalog
    elsewhere = {name for name in catalog.filter() if refused(catalog, name)}
    for name in set(catalog.filter(name_regex="^(?!param)")) - elsewhere:
        assert getattr(catalog.get(name), "_protocol", None) == "memory", name
    assert {"raw_frames", "photographs", "import_files", "prior", "restored", "tiles", "calibrations", "frame_tiles"} <= elsewhere
    assert refused(session("base", events="memory://curves").catalog, "training_history")
    assert not elsewhere & {"frames", "evaluation_table", "report", "evaluation_figure", "comparisons", "tile_statistics"}


def refused(catalog, name):
    try:
        catalog.get(name)
    except DatasetError as error:
        assert "expected a path on this machine, got memory://" in str(error)  # noqa: PT017
        return True
    return False


def before_run(context, *groups):
    class Inputs:
        def inputs(self):
            return {f"params:{group}" for group in groups}

    names = KnownNames()
    names.after_context_created(context)
    names.before_pipeline_run(Inputs(), context.catalog)


@pytest.mark.parametrize(
    ("parameters", "group", "message"),
    [
        ({"inference": {"guidance": {"options": {"noisemap": {"end": 3}}}}}, "inference", "unknown guidance 'noisemap'; choose one of"),
        *(
            ({"inference": {"guidance": {"name": name, "options": {"diffpir": {"strenght": 3}}}}}, "inference", "has no option 'strenght'")
            for name in ("diffpir", "noise_map")  # the chosen one, and one that is not
        ),
        ({"inference": {"sample": {"sampler": "hoin"}}}, "inference", "unknown sampler 'hoin'"),
        ({"preprocessing": {"tiles": {"size": 128, "stride": 64}}}, "preprocessing", r"tiles\.size must be tile_size=256.*got 128"),
        ({"validation": {"image_size": 32}}, "validation", r"validation\.image_size must be tile_size=256"),
    ],
)
def test_what_would_fail_after_hours_stops_before_the_first_node(parameters, group, message):
    with pytest.raises(ValueError, match=message):
        before_run(session(**parameters), group)


def test_options_of_a_dotted_plug_in_are_given_by_its_name_or_as_params_nest_them():
    name = "lowlight_kedro.diffusion.draws.uniform"
    assert Choice(name=name, options={name: {"a": 1}}).chosen == {"a": 1}
    assert Choice(name=name, options=params(f"options.{name}.a=1")["options"]).chosen == {"a": 1}
    assert Choice(name=name, options={}).chosen == {}


@pytest.mark.parametrize(
    ("env", "command"), [("demo", "kedro run --env demo --pipelines validation"), (None, "kedro run --pipelines validation")]
)
def test_what_to_run_first_is_told_for_the_environment_at_hand(env, command, monkeypatch):
    def not_validated(**options):
        raise ValueError("run `kedro run --pipelines validation` first")

    monkeypatch.chdir(ROOT)
    with pytest.raises(click.ClickException) as raised:
        with_sentences(not_validated)(env=env)
    assert raised.value.message == f"run `{command}` first"


@pytest.mark.parametrize(
    ("wanted", "reason"), [("demoo", "did you mean demo? There are: a40, "), ("nosuch", "no environment 'nosuch' in conf/; There are")]
)
def test_an_environment_that_is_not_there_is_told_with_those_that_are(wanted, reason, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(click.UsageError, match=re.escape(reason)):
        with_sentences(lambda **options: None)(env=wanted)
    with_sentences(lambda **options: None)(env="demo")


@pytest.mark.parametrize(("flags", "chosen", "warned"), [("avx512_bf16", "bf16", False), ("avx2", "fp32", True)])
def test_a_training_takes_bf16_where_the_device_has_it_and_warns_of_what_is_emulated(flags, chosen, warned, tmp_path, monkeypatch, caplog):
    options = TrainingOptions.model_validate(session("photographs").params["training"])
    assert options.compute.precision == "auto"
    monkeypatch.setattr("lowlight_kedro.device.PROCESSOR", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    assert settled(options, torch.device("cpu")).compute.precision == chosen
    asked = options.model_copy(update={"compute": replace(options.compute, precision="bf16")})
    assert settled(asked, torch.device("cpu")).compute.precision == "bf16"
    assert ("emulates it" in caplog.text) == warned

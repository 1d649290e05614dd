"""`kedro run` of this project: lists in `--params`, dotted names in `--config` files, and errors as sentences."""

import re
from collections.abc import Callable, Mapping
from copy import copy
from functools import wraps
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import KedroCliError
from kedro.io import DatasetError
from kedro.validation.exceptions import ParameterValidationError
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lowlight_kedro.plugins import did_you_mean

OPENING, CLOSING, QUOTES = "[{(", "]})", "\"'"
PARAMS_HELP = """Parameters that win over the configuration: name=value, several separated by commas. Values are YAML:
numbers, true, null, text, lists: --params "inference.crop=[0,0,64,64],training.seed=1" (quote brackets in the shell)."""


def split_items(text: str) -> list[str]:
    """Parts of `a=1,b=[2,3],c={d: "e,f"}` at the commas outside of brackets and quotes."""
    items, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in QUOTES:
            quote = character
        elif character in OPENING:
            depth += 1
        elif character in CLOSING:
            depth -= 1
        if character == "," and not depth and not quote:
            items.append("")
        else:
            items[-1] += character
    return [item.strip() for item in items if item.strip()]


def _named(item: str) -> str:
    name, equals, value = item.partition("=")
    if not equals or not name.strip():
        raise click.BadParameter(f"{item!r} must be name=value, as training.seed=1; several are separated by commas")
    if any(value.count(opening) != value.count(closing) for opening, closing in zip(OPENING[:2], CLOSING[:2], strict=True)):
        raise click.BadParameter(f"{item!r} opens a bracket that it does not close, or the other way round; a list is name=[1,2,3]")
    return f"{name.strip()}={value.strip()}"


def read_params(context: click.Context, option: click.Parameter, value: str | dict[str, Any]) -> dict[str, Any]:
    """What `--params` or the `params` of a `--config` file say, nested; dotted names in files too.

    Raises:
        BadParameter: it is not name=value, or the value is no YAML.
    """
    try:
        if not isinstance(value, dict):
            return OmegaConf.to_container(OmegaConf.from_dotlist([_named(item) for item in split_items(value)]))  # type: ignore[return-value]
        nested = OmegaConf.create({})
        for name, content in value.items():
            OmegaConf.update(nested, str(name), content)
        return OmegaConf.to_container(nested)  # type: ignore[return-value]
    except (OmegaConfBaseException, ValueError) as error:
        raise click.BadParameter(f"{value!r} is no list of name=value: {error}") from error


class RunError(KedroCliError):
    """A run that ended for a reason that a person can do something about."""

    def show(self, file: Any = None) -> None:
        """The reason; where it arose with `kedro --verbose run`."""
        if self.VERBOSE_ERROR:
            super().show(file)
        click.secho(f"Error: {self.message}", err=True)


FOR_PROGRAMMERS = (  # what pydantic and Kedro say, and what is said instead
    (
        r"(?s)No module named 'kedro_mlflow'.*",
        "kedro-mlflow is not installed: pip install 'lowlight-kedro[mlflow]', or run without tracker=mlflow",
    ),
    (r"\n +For further information visit \S+", ""),
    (r"- Parameter '(\w+)': Failed to instantiate \w+ for parameter '\w+': \d+ validation errors? for \w+", r"in \1:"),
    (r" \[type=\w+, input_value=\{.*, input_type=\w+\]", ""),
    (r" \[type=\w+, input_value=(.*), input_type=\w+\]", r" (got \1)"),
    (r"\n(\S+)\n  (?:Value error, )?", r"\n  \1: "),
    (r"Extra inputs are not permitted", "no such parameter"),
)


def sentence(error: Exception) -> str:
    """What an error says, without what pydantic and Kedro add for programmers."""
    text = str(error).strip()
    for said, instead in FOR_PROGRAMMERS:
        text = re.sub(said, instead, text)
    return text


def _require_environment(options: Mapping[str, Any]) -> None:
    wanted, folder = options.get("env"), Path(options.get("conf_source") or "conf")
    if wanted is None or not folder.is_dir() or (folder / wanted).is_dir():
        return
    known = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "_")))
    hint = " ".join([did_you_mean(wanted, known), "There are:"]).strip()
    raise click.UsageError(f"no environment {wanted!r} in {folder}/; {hint} {', '.join(known)}")


def with_sentences(callback: Callable[..., Any]) -> Callable[..., Any]:
    """`callback` whose foreseen errors are sentences; a fault of the program keeps its traceback."""

    @wraps(callback)
    def run_and_tell(*arguments: Any, **options: Any) -> Any:
        if options.get("is_async") or (options.get("runner_params") or {}).get("is_async"):
            raise click.UsageError(
                "--async is for nodes that return all they make at once; those of this project save results one by one. Run without it; "
                "files are worked on side by side with --params executor.name=processes"
            )
        _require_environment(options)
        try:
            return callback(*arguments, **options)
        except (ValueError, DatasetError, OSError, ParameterValidationError, OmegaConfBaseException) as error:
            text, env = sentence(error), options.get("env")
            raise RunError(text.replace("kedro run --pipelines", f"kedro run --env {env} --pipelines") if env else text) from error

    return run_and_tell


def _option(option: click.Parameter) -> click.Parameter:
    if option.name != "params":
        return option
    ours = copy(option)
    ours.callback = read_params
    ours.help = PARAMS_HELP  # type: ignore[attr-defined]
    return ours


run = copy(kedro_run)
run.params = [_option(option) for option in kedro_run.params]
run.callback = with_sentences(kedro_run.callback)  # type: ignore[arg-type]


@click.group(name="lowlight_kedro")
def cli() -> None:
    """Commands of the project."""


cli.add_command(run)

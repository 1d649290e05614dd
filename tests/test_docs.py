"""What README and docs tell people to type and to follow: commands that parse, parameters that exist, links that lead somewhere."""

import re
import shlex
from functools import cache

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from lowlight_kedro.cli import read_params
from lowlight_kedro.command.arguments import parser
from lowlight_kedro.config_loader import LAID_OVER
from lowlight_kedro.pipeline_registry import register_pipelines
from lowlight_kedro.pipelines.options import _dotted
from tests.conftest import ROOT
from tests.pipelines.test_environments import OPTIONS

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TOLD = [page for page in PAGES if page.name != "LOG.md"]  # the log tells what was typed then
PLACEHOLDER = re.compile(r"[A-Z]{3,}|\.\.\.|<[^>]*>|\$")


def commands(page, program):
    """Commands of a page that begin with `program`: lines of code blocks, without their comments, and code within sentences."""
    text = page.read_text()
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))]
    places = [(line, re.search(rf"(?:^|\s)({program}\b)", line)) for line in lines + inline]
    found = [re.sub(r"\s#.*", "", line[place.start(1) :]) for line, place in places if place]
    return [shlex.split(command) for command in found]


def cases(program):
    return [pytest.param(command, id=f"{page.name}: {' '.join(command)}"[:120]) for page in TOLD for command in commands(page, program)]


GLOBALS = ("raw", "data", "tile_size", "photograph_folder", "import_from", "start_from", "keep_snapshots")


@cache
def parameters(environment):
    bootstrap_project(ROOT)
    with KedroSession.create(ROOT, env=environment) as session:
        return session.load_context().config_loader["parameters"]


def option(command, *names):
    """The value of the first of `names` in a command."""
    return next((command[i + 1] for i, word in enumerate(command[:-1]) if word in names), None)


def changed(tree, path, value):
    """`tree` with another value at a path that must exist."""
    first, *rest = path
    assert first in tree, f"{first} is none of {', '.join(tree)}"
    return tree | {first: changed(tree[first], rest, value) if rest else value}


@pytest.mark.parametrize("command", cases("kedro run"))
def test_every_kedro_run_names_what_exists(command):
    environment, pipelines = option(command, "--env"), option(command, "--pipelines")
    assert environment is None or PLACEHOLDER.search(environment) or (ROOT / "conf" / environment).is_dir()
    assert pipelines is None or set(pipelines.split(",")) <= set(register_pipelines())
    told = read_params(None, None, option(command, "--params") or "")
    known = parameters(environment if environment and not PLACEHOLDER.search(environment) else "base")
    for name, value in _dotted(told).items():
        group, *path = name.split(".")
        if not path:  # a global, or what is laid over the environment
            assert group in (*GLOBALS, *LAID_OVER, "events")
        elif group != "restore" and not PLACEHOLDER.search(name):  # of the catalog, and of what comes from somewhere else
            options = changed(known[group], path, value)
            if not PLACEHOLDER.search(str(value)):
                OPTIONS[group].model_validate(options)


@pytest.mark.parametrize("command", cases("lowlight (?:restore|doctor)"))
def test_every_lowlight_command_parses(command):
    """Whole ones as they are; of those that are only mentioned, in a sentence, the options."""
    if command[1] == "doctor" or any("." in word for word in command):
        parser().parse_args(command[1:])
    known = {flag for action in parser()._subparsers._group_actions[0].choices["restore"]._actions for flag in action.option_strings}
    assert {word for word in command if word.startswith("--")} <= known


@pytest.mark.parametrize("command", cases("python benchmarks"))
def test_every_benchmark_has_the_options_that_are_told(command):
    source = (ROOT / command[1]).read_text()
    for flag in (word.split("=")[0] for word in command if word.startswith("--")):
        assert f'"{flag}"' in source or f"'{flag}'" in source, flag


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "docs/decisions").glob("*.md"))], ids=lambda page: page.name)
def test_links_lead_to_files(page):
    made = {"api.md", "contributing.md", "parameters.md", "prior.md", "changelog.md"}  # by docs/site_pages.py
    for target in re.findall(r"\]\(([^)#\s]+)", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)):
        if not target.startswith(("http", "mailto:")) and target not in made:
            assert (page.parent / target).exists(), target


def test_every_page_of_the_docs_is_in_the_sites_navigation():
    told = (ROOT / "mkdocs.yml").read_text()
    assert [page.name for page in sorted((ROOT / "docs").glob("*.md")) if f" {page.name}\n" not in told] == []

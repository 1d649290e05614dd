"""Pages of the site that stand elsewhere in the project, or are made of it: a hook of mkdocs, see mkdocs.yml."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "prior.md": "src/lowlight_kedro/priors/photographs.md",
}
API = """# Python

::: lowlight_kedro.api
    options: {members: []}

::: lowlight_kedro.api.load_prior

::: lowlight_kedro.api.read_raw

::: lowlight_kedro.api.restore

::: lowlight_kedro.api.Restored

::: lowlight_kedro.api.sample

::: lowlight_kedro.api.LoadedPrior

::: lowlight_kedro.api.Settings

::: lowlight_kedro.restoration.settings

## What a guidance is given and returns

::: lowlight_kedro.restoration.guidance.posterior.Posterior

::: lowlight_kedro.restoration.measurement.Measurement

## What a restoration is told

::: lowlight_kedro.restoration.observation.Exposure

::: lowlight_kedro.restoration.observation.Structure

## Frames and noise

::: lowlight_kedro.sensor.frame.Frame

::: lowlight_kedro.sensor.noise
"""


def relinked(text: str) -> str:
    """Links of a page at the top of the project, as they are from docs/; what is no page becomes its name."""
    sites = {source: page for page, source in PAGES.items()}

    def link(found: re.Match[str]) -> str:
        words, target = found["words"], found["target"].removeprefix("../")
        if target.startswith(("http", "#", "mailto:")):
            return found[0]
        if target.startswith("docs/"):
            return f"{found['mark']}[{words}]({target.removeprefix('docs/')})"
        return f"[{words}]({sites[target]})" if target in sites else f"{words} (`{target}`)"

    return re.sub(r"(?P<mark>!?)\[(?P<words>[^\]]*)\]\((?P<target>[^)]*)\)", link, text)


def parameters() -> str:
    """Every default with its comment, as it stands in conf/base; the words around it name the file."""
    files = sorted((ROOT / "conf/base").glob("parameters_*.yml"))
    parts = [f"## {file.stem.removeprefix('parameters_')}\n\n`conf/base/{file.name}`\n\n```yaml\n{file.read_text()}```\n" for file in files]
    first = "# Parameters\n\nEvery default, with unit and source. `--params group.name=value` or a file in `conf/` changes it.\n"
    return "\n".join([first, *parts])


def decisions() -> str:
    """The records of decisions by their titles."""
    files = sorted((ROOT / "docs/decisions").glob("0*.md"))
    titles = [file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for file in files]
    return "# Decisions\n\n" + "\n".join(f"- [{title}]({file.name})" for title, file in zip(titles, files, strict=True)) + "\n"


def on_files(files: Files, config: Any) -> Files:
    """Called by mkdocs with the files of docs/."""
    made = {page: relinked((ROOT / source).read_text(encoding="utf-8")) for page, source in PAGES.items()}
    for page, text in (made | {"api.md": API, "parameters.md": parameters(), "decisions/index.md": decisions()}).items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **others: Any) -> str:
    """Called by mkdocs with each page: links out of docs/ become names."""
    return re.sub(r"\[([^\]]*)\]\((?:\.\./)+([^)]*)\)", lambda found: f"{found[1]} (`{found[2]}`)", markdown)

"""Make the tables of README and docs anew: `make reproduce`, or only some of them, `make reproduce TABLE=quality`.

benchmarks/tables.yml names every table as PAGE/NAME, with the command that prints it. In the page it stands between
`<!-- table: PAGE/NAME -->` and `<!-- end -->`, below a line with its command, date, machine and versions. This script runs the command,
takes the table out of what it prints, and rewrites what stands between the two marks, and nothing else: the sentences around are yours,
read them again. Of a command that serves several tables one run is taken for all. One that fails is told, its table stays as
it was, and the others go on.

    python benchmarks/reproduce.py --list                 # every table, the minutes it takes, and when it was made
    python benchmarks/reproduce.py quality --minutes 10   # of docs/quality.md those that take at most ten minutes

Photographs and raws are looked for in LOWLIGHT_TEST_DATA, else in ../shared/data; a command that needs another variable (`$EDM`: a checkout
of NVlabs/edm) runs where it is set.
"""

import argparse
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from string import Template

import yaml

from lowlight_kedro.datasets.atomic import atomic_path

ROOT = Path(__file__).parent.parent
MARKS = re.compile(r"<!-- table: (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
PRINTED = re.compile(r"(?:^\|.*\|[ ]*\n?){2,}", re.MULTILINE)
VERSIONS = ("torch", "numpy", "rawpy")
GIT, CODE = ["git", "-C", str(ROOT)], ("src", "conf", "benchmarks")


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        name: PAGE/NAME; PAGE is README or a file of docs/.
        command: what prints it, run at the top of the project.
        minutes: about how long it takes on two cores.
        table: which of the tables that it prints, counted from 1.
    """

    name: str
    command: str
    minutes: float
    table: int = 1

    @property
    def page(self) -> Path:
        """The file it stands in."""
        page = self.name.partition("/")[0]
        return ROOT / "README.md" if page == "README" else ROOT / "docs" / f"{page}.md"

    def missing(self, environment: Mapping[str, str]) -> list[str]:
        """Variables of its command that are not set."""
        return [name for name in re.findall(r"\$(\w+)", self.command) if name not in environment]


def known_tables() -> dict[str, Table]:
    """All of benchmarks/tables.yml by name."""
    told = yaml.safe_load((ROOT / "benchmarks/tables.yml").read_text())
    return {name: Table(name, " ".join(entry.pop("command").split()), **entry) for name, entry in told.items()}


def chosen(names: list[str], tables: Mapping[str, Table]) -> list[Table]:
    """Those of `names`, a page's name being all of its tables; without names all.

    Raises:
        ValueError: there is none of a name.
    """
    for name in names:
        if not any(table == name or table.startswith(f"{name}/") for table in tables):
            raise ValueError(f"there is no table {name!r}; choose of: {', '.join(tables)}")
    return [table for key, table in tables.items() if not names or any(key == name or key.startswith(f"{name}/") for name in names)]


def rewritten(text: str, name: str, told: str, table: str) -> str:
    """`text` of a page with another table and another line about it between the marks of `name`.

    Raises:
        ValueError: the page has no such marks, or more than one pair.
    """
    begin = f"<!-- table: {name} -->\n"
    if text.count(begin) != 1 or not any(match[1] == name for match in MARKS.finditer(text)):
        raise ValueError(f"expected <!-- table: {name} --> and <!-- end --> once in the page, got {text.count(begin)} of it")
    return MARKS.sub(lambda match: f"{begin}{told}\n\n{table}<!-- end -->" if match[1] == name else match[0], text)


def found(printed: str) -> list[str]:
    """The Markdown tables in what a command printed."""
    return [match.group().rstrip() + "\n" for match in PRINTED.finditer(printed)]


def machine() -> str:
    """Processor, cores and system; the GPU where torch sees one."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    import torch

    parts = [processor, f"{os.cpu_count()} cores", platform.system()]
    return ", ".join([*parts, torch.cuda.get_device_name()] if torch.cuda.is_available() else parts)


def versions() -> str:
    """Of this project, with its commit, of Python and of what computes."""
    commit = subprocess.run([*GIT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run([*GIT, "status", "--porcelain", "--", *CODE], capture_output=True, text=True, check=False).stdout.strip()
    commit += " with changes" if changed else ""  # of what computes; the pages are being rewritten
    parts = [f"lowlight_kedro {version('lowlight_kedro')}" + (f" at {commit}" if commit else ""), f"Python {platform.python_version()}"]
    return ", ".join([*parts, *(f"{name} {version(name)}" for name in VERSIONS)])


def printed_by(command: str, environment: Mapping[str, str]) -> str:
    """What the command prints; it runs in this interpreter, and its errors go through.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    words = [Template(word).substitute(environment) for word in shlex.split(command)]
    words[0] = sys.executable if words[0] == "python" else str(Path(sys.executable).with_name(words[0]))
    return subprocess.run(words, cwd=ROOT, env=dict(environment), stdout=subprocess.PIPE, text=True, check=True).stdout


def reproduced(tables: list[Table], environment: Mapping[str, str]) -> Iterator[str]:
    """Run and rewrite; yields the names of those that could not be made, after saying why."""
    about, done = (machine(), versions()), dict[str, tuple[str, float]]()
    for table in tables:
        if missing := table.missing(environment):
            print(f"{table.name}: left as it is; set {' and '.join(missing)}", flush=True)
            continue
        print(f"{table.name}: {table.command} (about {table.minutes:g} min)", flush=True)
        try:
            if table.command not in done:
                begin = time.monotonic()
                done[table.command] = printed_by(table.command, environment), (time.monotonic() - begin) / 60
            printed, minutes = done[table.command]
            told = f"`{table.command}`\n({date.today()}; {about[0]}; {about[1]}; {minutes:.1f} min):"
            new = rewritten(table.page.read_text(), table.name, told, found(printed)[table.table - 1])
        except subprocess.CalledProcessError as error:
            print(f"{table.name}: failed, the table stays as it was: the command ended with {error.returncode}", flush=True)
            yield table.name
        except IndexError:
            print(f"{table.name}: failed, the table stays as it was: the command printed no table {table.table}", flush=True)
            yield table.name
        else:
            with atomic_path(table.page) as path:
                path.write_text(new)


def listed(tables: list[Table]) -> None:
    """Print name, minutes and the date in the page of every table."""
    for table in tables:
        body = next((match[2] for match in MARKS.finditer(table.page.read_text()) if match[1] == table.name), "")
        day = re.search(r"\d{4}-\d{2}-\d{2}", body)
        print(f"{table.name:32} {table.minutes:6g} min  {day[0] if day else 'no date'}")


def main() -> int:
    """0 where all that was asked for was made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="pages or tables; without any, all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="only tables that take at most this long")
    parser.add_argument("--list", action="store_true", help="run nothing")
    asked = parser.parse_args()
    try:
        tables = [table for table in chosen(asked.names, known_tables()) if table.minutes <= asked.minutes]
    except ValueError as error:
        parser.error(str(error))
    if asked.list:
        listed(tables)
        return 0
    data = ROOT.parent / "shared/data"
    places = {"LOWLIGHT_TEST_DATA": str(data)} if data.is_dir() else {}
    failed = list(reproduced(tables, places | dict(os.environ)))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

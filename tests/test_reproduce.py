"""`make reproduce`: tables of benchmarks in README and docs have marks and a command, and only what stands between the marks changes."""

import re
import sys
from itertools import pairwise

import pytest

from benchmarks import reproduce
from benchmarks.reproduce import MARKS, Table, found, known_tables, reproduced, rewritten
from tests.conftest import ROOT
from tests.test_docs import TOLD

TABLES = known_tables()
PAGE = """# Page

<!-- table: page/a -->
`old` (2026-01-01):

| x |
|---|
| 1 |
<!-- end -->

Read.

<!-- table: page/b -->
B
<!-- end -->
"""


def test_marks_and_commands_are_of_the_same_tables():
    marked = [name for page in TOLD for name, _ in MARKS.findall(page.read_text())]
    assert sorted(marked) == sorted(TABLES)
    for name, table in TABLES.items():
        assert name in [mark for mark, _ in MARKS.findall(table.page.read_text())], f"{name} does not stand in {table.page.name}"


@pytest.mark.parametrize("page", TOLD, ids=lambda page: page.name)
def test_a_table_below_a_benchmarks_command_has_marks(page):
    paragraphs = [part.strip() for part in MARKS.sub("(made anew)", page.read_text()).split("\n\n")]
    named = [above for above, below in pairwise(paragraphs) if "python benchmarks/" in above and below.startswith("|")]
    assert named + [table for table in paragraphs if table.startswith("|") and "python benchmarks/" in table] == []


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_the_page_tells_the_command_its_date_and_a_table(table):
    told, _, body = next(body for name, body in MARKS.findall(table.page.read_text()) if name == table.name).partition("\n\n")
    assert told.startswith(f"`{table.command}`\n(2"), "expected the command of benchmarks/tables.yml, then the date"
    assert len(found(body)) == 1
    assert found(body)[0].strip() == body.strip()


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_command_is_a_benchmark_with_such_options(table):
    program, script, *words = table.command.split()
    source = (ROOT / script).read_text()
    assert program == "python"
    assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == []


def test_only_what_stands_between_the_marks_is_rewritten():
    new = rewritten(PAGE, "page/a", "`new` (2026-02-02):", "| y |\n|---|\n| 2 |\n")
    assert new == PAGE.replace("`old` (2026-01-01)", "`new` (2026-02-02)").replace("| x |", "| y |").replace("| 1 |", "| 2 |")
    assert rewritten(new, "page/a", "`new` (2026-02-02):", "| y |\n|---|\n| 2 |\n") == new


@pytest.mark.parametrize(
    "text", [PAGE.replace("<!-- table: page/a -->\n", ""), PAGE + PAGE, PAGE.split("<!-- end -->")[0]], ids=["none", "twice", "open"]
)
def test_marks_that_are_missing_twice_or_open_are_refused(text):
    with pytest.raises(ValueError, match=re.escape("expected <!-- table: page/a --> and <!-- end --> once")):
        rewritten(text, "page/a", "`new`:", "| y |\n|---|\n")


def test_tables_are_found_among_what_else_is_printed():
    printed = "12 scenes\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n| c |\n|---|\n| 3 |\nseconds: | 4 |\n"
    assert found(printed) == ["| a | b |\n|---|---|\n| 1 | 2 |\n", "| c |\n|---|\n| 3 |\n"]


def test_one_that_fails_or_lacks_its_data_is_told_and_the_others_are_made(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "page.md"
    page.write_text(PAGE.replace("page/b", "page/c"))
    (tmp_path / "ok.py").write_text("print('| y |\\n|---|\\n| 2 |')\nprint()\nprint('| z |\\n|---|\\n| 3 |')")
    tables = [
        Table("page/b", "python none.py", 1), Table("page/b", "python ok.py", 1, table=3), Table("page/b", "python ok.py $EDM", 1),
        Table("page/c", "python ok.py", 1, table=2),
    ]  # fmt: skip
    assert list(reproduced(tables, {"PATH": "/usr/bin"})) == ["page/b", "page/b"]
    told = capfd.readouterr().out
    assert "ended with 2" in told
    assert "printed no table 3" in told
    assert "left as it is; set EDM" in told
    assert re.search(r"<!-- table: page/c -->\n`python ok.py`\n\(\d{4}-\d\d-\d\d; .*, Python " + sys.version.split()[0], page.read_text())
    assert "| z |\n|---|\n| 3 |\n<!-- end -->\n" in page.read_text()
    assert page.read_text().startswith(PAGE.split("<!-- table: page/b")[0])

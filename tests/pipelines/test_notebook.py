"""The notebooks run from top to bottom: the tour on the outputs of a run, the other on what comes with the package."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

EMPTY = nbformat.v4.new_code_cell("%reset -f")  # one kernel for both: it takes as long to start as the tour


@pytest.fixture(scope="module")
def outputs(finished):
    """Of each notebook."""
    read = {name: nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4) for name in ("demo_tour", "restore_from_python")}
    both = next(iter(read.values())).copy()
    both.cells = [cell for notebook in read.values() for cell in (EMPTY.copy(), *notebook.cells)]
    environment = {
        "LOWLIGHT_ROOT": ROOT, "LOWLIGHT_ENV": "test", "LOWLIGHT_CONF": finished.conf,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        for key, value in environment.items():
            patched.setenv(key, str(value))
        NotebookClient(both, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    return {name: [output for cell in notebook.cells for output in cell.get("outputs", [])] for name, notebook in read.items()}


def pictures(outputs):
    return sum("image/png" in output.get("data", {}) for output in outputs)


def texts(outputs):
    return [output["data"]["text/plain"] for output in outputs if "text/plain" in output.get("data", {})]


def test_the_tour_runs(outputs):
    assert pictures(outputs["demo_tour"]) >= 4
    assert "(18, (3, 64, 64), (0,))" in texts(outputs["demo_tour"])


def test_restoring_from_python_runs(outputs):
    told = texts(outputs["restore_from_python"])
    assert pictures(outputs["restore_from_python"]) == 4
    inside = next(int(text.strip("'").split("%")[0]) for text in told if "90 % interval" in text)
    assert 70 <= inside <= 97  # docs/uncertainty.md
    assert float(told[-1]) < 0.15  # half of the noise and more is gone

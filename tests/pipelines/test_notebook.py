"""The notebook runs from top to bottom on the outputs of a run."""

import nbformat
from nbclient import NotebookClient

from tests.conftest import ROOT


def test_the_tour_runs(finished, monkeypatch):
    for key, value in {
        "LOWLIGHT_ROOT": ROOT,
        "LOWLIGHT_ENV": "test",
        "LOWLIGHT_CONF": finished.conf,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }.items():
        monkeypatch.setenv(key, str(value))
    notebook = nbformat.read(ROOT / "notebooks/demo_tour.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    texts = [output.get("data", {}).get("text/plain") for output in outputs]
    assert "(18, (3, 64, 64), (0,))" in texts


def test_restoring_from_python_runs(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(ROOT / "notebooks/restore_from_python.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    texts = [output["data"]["text/plain"] for output in outputs if "text/plain" in output.get("data", {})]
    inside = next(int(text.strip("'").split("%")[0]) for text in texts if "90 % interval" in text)
    assert 70 <= inside <= 97  # docs/uncertainty.md
    assert float(texts[-1]) < 0.15  # half of the noise and more is gone

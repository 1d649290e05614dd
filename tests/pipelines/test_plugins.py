"""One plug-in of each kind from outside the package, by dotted path."""

import sys

import pandas as pd
import pytest

from lowlight_kedro.plugins import choose, code_of, configured
from lowlight_kedro.sensor.demosaic import DEMOSAICERS

OUTSIDE = '''
"""Another package's plug-ins."""
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.samplers import SAMPLERS
from lowlight_kedro.restoration.guidance import GUIDANCE
from lowlight_kedro.sensor.demosaic import DEMOSAICERS
from lowlight_kedro.sensor.noise import PoissonGaussian

used = set()

def spy(kind, function):
    def wrapped(*arguments, **options):
        used.add(kind)
        return function(*arguments, **options)
    return wrapped

network = spy("network", NETWORKS["raw_unet"])
sampler = spy("sampler", SAMPLERS["ancestral"])
guidance = spy("guidance", GUIDANCE["diffpir"])
demosaicer = spy("demosaicer", DEMOSAICERS["bilinear"])

class Noise(PoissonGaussian):
    def variance(self, signal):
        used.add("noise_model")
        return super().variance(signal)
'''


@pytest.fixture
def outside(tmp_path, monkeypatch):
    (tmp_path / "outside.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "outside"
    sys.modules.pop("outside", None)


def test_one_of_each_kind_from_another_package(project, outside):
    (project.data / "06_models/training_state.safetensors").unlink()
    project.run(
        preprocessing={"demosaicer": {"bayer": "outside.demosaicer", "xtrans": "outside.demosaicer"}},
        training={"network": {"name": "outside.network"}, "corruption": {"name": "lowlight_kedro.diffusion.draws.uniform"}},
        inference={"guidance": {"name": "outside.guidance"}, "estimate": "sample", "sample": {"sampler": "outside.sampler"}},
        sensor={"noise": {"model": "outside.Noise"}},
    )  # fmt: skip
    assert sys.modules["outside"].used == {"demosaicer", "network", "guidance", "sampler", "noise_model"}
    assert pd.read_csv(project.data / "08_reporting/evaluation.csv")["guidance"].unique().tolist() == ["outside.guidance"]


def test_entry_points_are_found(monkeypatch):
    class Point:
        name = "theirs"

        @staticmethod
        def load():
            return "loaded"

    monkeypatch.setattr("lowlight_kedro.plugins.entry_points", lambda group: [Point] if group == "lowlight_kedro.guidance" else [])
    assert choose("guidance", {}, "theirs") == "loaded"
    with pytest.raises(ValueError, match="unknown network 'theirs'; choose one of: ours"):
        choose("network", {"ours": 1}, "theirs")


def test_a_dotted_path_that_does_not_exist_says_so():
    with pytest.raises(ValueError, match=r"sampler 'no\.such\.thing' cannot be imported.*; a module must be installed"):
        choose("sampler", {}, "no.such.thing")


def test_an_argument_that_is_no_option_because_it_is_not_keyword_only_is_told_so():
    with pytest.raises(ValueError, match=r"no option 'width'; its options: none \(options are the keyword-only arguments"):
        configured("network", {"net": lambda width=3: width}, "net", {"width": 5})


def test_an_edited_plug_in_is_other_code_and_the_packages_own_are_none(outside, tmp_path):
    assert code_of("demosaicer", DEMOSAICERS, DEMOSAICERS) == {}
    before = code_of("demosaicer", DEMOSAICERS, ["malvar2004", "outside.demosaicer"])
    assert before.keys() == {"outside.demosaicer"}
    (tmp_path / "outside.py").write_text(OUTSIDE.replace("Another package's", "Our").replace("used =", "# a comment\nused ="))
    assert code_of("demosaicer", DEMOSAICERS, ["outside.demosaicer"]) == before
    (tmp_path / "outside.py").write_text(OUTSIDE.replace("bilinear", "malvar2004"))
    assert code_of("demosaicer", DEMOSAICERS, ["outside.demosaicer"]) != before


@pytest.mark.parametrize(("edited", "counts"), [
    ("theirs/deep/filters.py", True), ("theirs/more.py", True), ("theirs/__init__.py", True), ("beside.py", True),
    ("site-packages/bought.py", False), ("unused.py", False),
])  # fmt: skip
def test_what_a_plug_in_imports_of_its_author_is_its_code_and_what_is_installed_is_not(tmp_path, monkeypatch, edited, counts):
    plug_in = "from . import filters\nfrom ..more import deeper\nimport beside, bought, numpy, json\ndemosaicer = filters.blur\n"
    files = {
        "theirs/__init__.py": "", "theirs/deep/__init__.py": "", "theirs/deep/main.py": plug_in,
        "theirs/deep/filters.py": "def blur(a, b): return a\n", "theirs/more.py": "deeper = 1\n",
        "beside.py": "", "site-packages/bought.py": "", "unused.py": "",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(tmp_path)
    before = code_of("demosaicer", {}, ["theirs.deep.main.demosaicer"])
    (tmp_path / edited).write_text(f"{files[edited]}constant = 2\n")
    assert (code_of("demosaicer", {}, ["theirs.deep.main.demosaicer"]) != before) == counts
    for name in [name for name in sys.modules if name.partition(".")[0] in ("theirs", "beside", "bought")]:
        del sys.modules[name]

import subprocess
import sys

import pytest
import torch

from lowlight_kedro import device
from lowlight_kedro.device import choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 amx_tile", "bf16"),
        ("flags\t\t: fpu avx512f amx_bf16", "bf16"),
        ("Features\t: fp asimd bf16 i8mm", "bf16"),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", "fp32"),
        ("model name\t: bf16", "fp32"),
        (None, "fp32"),  # no such file: another system
    ],
)
def test_auto_takes_bf16_where_the_processor_computes_in_it(told, expected, tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    if told is not None:
        file.write_text(f"processor\t: 0\n{told}\nbugs\t\t: none\n")
    monkeypatch.setattr(device, "PROCESSOR", file)
    assert choose_precision("auto", CPU) == expected
    assert choose_precision("bf16", CPU) == "bf16"
    assert choose_precision("fp32", CPU) == "fp32"


FAULTS = """
import resource, sys, torch
from lowlight_kedro.device import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
print(*(before, faults(), faults()) if keep_freed_memory() else ())
"""


def test_large_tensors_get_the_memory_of_those_before():
    pytest.importorskip("resource")
    told = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout.split()
    if not told:
        pytest.skip("this C library has no mallopt")
    fresh, _, kept = map(int, told)  # the first few find their places
    assert 5 * kept < fresh  # each of ten is fresh otherwise

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
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
torch.ones(2**24)  # 64 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("this C library has no mallopt")
    return int(done.stdout)


def test_large_tensors_get_the_memory_of_those_before():
    assert 5 * faults("keep") < faults("as it is")  # each of a hundred is fresh otherwise

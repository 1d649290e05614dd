import subprocess
import sys

import pytest

pytest.importorskip("resource")

CODE = """
import resource, sys, torch
from lowlight_kedro.restoration.allocator import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
torch.ones(2**24)  # 64 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("this C library has no mallopt")
    return int(done.stdout)


def test_large_tensors_get_the_memory_of_those_before():
    assert 5 * faults("keep") < faults("as it is")  # each of a hundred is fresh otherwise

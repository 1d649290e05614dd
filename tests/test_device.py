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

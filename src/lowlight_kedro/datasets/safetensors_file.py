"""Checkpoints as files: tensors in safetensors, the description as JSON in the header; nothing is pickled."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes a second to import
    from lowlight_kedro.diffusion.checkpoint import Checkpoint

KEY = "lowlight_kedro"


class CheckpointReadError(ValueError):
    """A file that is no checkpoint of ours, with its name and the reason."""


def _refusal(path: Path, error: Exception) -> str:
    size = path.stat().st_size
    reason = "the file is empty" if not size else f"no {error} in its header" if isinstance(error, KeyError) else str(error)
    return (
        f"{path}: not a safetensors checkpoint of lowlight_kedro ({reason}; {size} bytes); "
        "name a prior (06_models/prior.safetensors of a training, or a snapshot of it); remove the file if it is a damaged state"
    )


def read_checkpoint(path: Path) -> "Checkpoint":
    """Read a file.

    Raises:
        CheckpointReadError: it is missing, torn, or no checkpoint of ours (a pickle is never opened).
    """
    from safetensors import SafetensorError, safe_open

    from lowlight_kedro.diffusion.checkpoint import Checkpoint

    if not path.exists():
        raise CheckpointReadError(f"there is no checkpoint {path}; run `kedro run --pipelines training` first")
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})[KEY])
            if not isinstance(description, dict):
                raise ValueError(f"its description is {str(description)[:40]!r}, expected a mapping")
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, description, str(path))  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointReadError(_refusal(path, error)) from error

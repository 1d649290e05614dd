"""Snapshots: priors along a training, to choose from."""

import math

from lowlight_kedro.diffusion.checkpoint import Checkpoint, identity, prior_of
from lowlight_kedro.diffusion.selection import better


def snapshot_of(state: Checkpoint, best_by: str) -> Checkpoint:
    """A prior to choose from: `prior_of`, the further running means, and its row of the history.

    Args:
        state: a packed training state.
        best_by: the column of the history by which the best is chosen.
    """
    prior, images = prior_of(state), state.description["images"]
    means = state.description.get("emas", [])
    further = {name: tensor for name, tensor in state.tensors.items() if name.startswith(tuple(f"{mean}." for mean in means))}
    figures = [row for row in state.description["history"] if round(row["kimg"] * 1000) == images][-1:]
    told = {"figures": dict(*figures), "best_by": best_by} | ({"emas": means} if means else {})
    return Checkpoint(prior.tensors | further, prior.description | told, state.source)


def snapshot_name(images: int) -> str:
    """What the snapshot after so many images is called; names sort as the counts do."""
    return f"prior-{images / 1000:010.3f}kimg"


def is_new_best(new: Checkpoint, best: Checkpoint | None) -> bool:
    """Whether a snapshot should take the place of the best one so far.

    A best one of another run gives way. So does one with as many images or more: a run goes on from an earlier state
    where it was stopped or begun anew, and will come there again.
    """
    column = new.description["best_by"]
    value = new.description["figures"].get(column, math.nan)
    if math.isnan(value):
        return False
    if best is None or identity(best.description) != identity(new.description):
        return True
    stale = best.description["images"] >= new.description["images"]
    return stale or better(value, best.description["figures"].get(column, math.nan), column)

"""The running mean of any width after a run: from snapshots that hold power-function means."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from lowlight_kedro.diffusion.checkpoint import Checkpoint, CheckpointMismatchError, prior_of
from lowlight_kedro.diffusion.ema import POWER, reconstruction

SAME = ("network", "data", "scaling", "batch_size", "seed")  # what snapshots of one run agree in


def _means(snapshot: Checkpoint) -> Iterator[tuple[float, float, dict[str, Tensor]]]:
    """(images, sigma_rel, weights) of the power-function means of a snapshot; the first mean is stored as `ema`."""
    names = snapshot.description.get("averages", [])
    for prefix, name in zip(["ema.", *(f"{name}." for name in names[1:])], names, strict=False):
        if name.startswith(POWER):
            weights = {key.removeprefix(prefix): tensor for key, tensor in snapshot.tensors.items() if key.startswith(prefix)}
            yield float(snapshot.description["images"]), float(name.removeprefix(POWER)), weights


def reconstruct_prior(snapshots: Sequence[Checkpoint], sigma_rel: float) -> Checkpoint:
    """A prior whose weights are the mean of width `sigma_rel` at the last of the `snapshots` (training states of one run).

    Sums are formed in double precision.

    Raises:
        CheckpointMismatchError: snapshots of different runs, or none with power-function means.
    """
    ordered = sorted((snapshot for snapshot in snapshots if snapshot.description["images"]), key=lambda one: one.description["images"])
    means = [mean for snapshot in ordered for mean in _means(snapshot)]
    if not means:
        raise CheckpointMismatchError("no snapshot holds power-function means; train with training.ema.name=power")
    last = ordered[-1]
    differs = [key for key in SAME if any(one.description.get(key) != last.description.get(key) for one in ordered)]
    if differs:
        raise CheckpointMismatchError(f"the snapshots are of different runs: they differ in {', '.join(differs)}")
    times, widths, weights = zip(*means, strict=True)
    shares = reconstruction(times, widths, times[-1], sigma_rel).tolist()
    prior = prior_of(last)
    tensors = {
        name: sum(share * part[name].double() for share, part in zip(shares, weights, strict=True)).to(tensor.dtype)
        for name, tensor in prior.tensors.items()
    }
    return Checkpoint(tensors, prior.description | {"averages": [f"{POWER}{sigma_rel}"]})

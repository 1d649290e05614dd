"""Priors that were trained apart as one file, weights rounded to 16 bits: how the shipped prior was made.

`python benchmarks/assemble_prior.py --general FILE --bayer FILE --bayer-fade 0.03 0.06 [--xtrans FILE --xtrans-fade 0.01 0.02] --out FILE`
and, so that its answers to mosaics are seconded, by demosaicnet with gates to be trained (kedro run --env second --pipelines training, with
--params start_from=FILE), or as those of another prior are: `python benchmarks/assemble_prior.py --general FILE --second [FILE] --out FILE`
and, when its spread has been learned (`kedro run --env spread --pipelines training`, with `--params start_from=FILE` of that):
`python benchmarks/assemble_prior.py --general FILE --spread data/photographs/06_models/prior.safetensors --out FILE`
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from lowlight_kedro.datasets.checkpoint import CheckpointDataset
from lowlight_kedro.datasets.safetensors_file import read_checkpoint
from lowlight_kedro.diffusion.checkpoint import Checkpoint
from lowlight_kedro.diffusion.prior import assembled, prior_of, separated, with_second
from lowlight_kedro.evaluation.baselines import network

MOSAICS, DEMOSAICNET = ("bayer", "xtrans"), "demosaicnet"


def read(path: Path, part: str) -> Checkpoint:
    """A prior or a training state; of a prior of several networks the one for `part`."""
    checkpoint = read_checkpoint(path)
    return separated(prior_of(checkpoint) if "history" in checkpoint.description else checkpoint, part)


def with_part_of(prior: Checkpoint, source: Checkpoint, part: str) -> Checkpoint:
    """`prior` as it is, with the `second` opinions or the `spread` of another one.

    Second opinions make another mean; a spread, which told the errors of the mean before, goes with those that they replace.

    Raises:
        ValueError: the other one has no such part.
    """
    added = {name: tensor for name, tensor in source.tensors.items() if name.startswith(f"{part}.")}
    if not added:
        parts = ", ".join(sorted({name.split(".")[0] for name in source.tensors}))
        raise ValueError(f"{source.source} has no part {part}, got {parts}; give --{part} a prior that was trained with it")
    network, theirs = prior.description["network"], source.description["network"]
    if part == "second":
        network = {"name": network["name"], "options": network["options"] | {"second": theirs["options"]["second"]}}
    else:
        network = network | {"spread": theirs["spread"]}
    replaced = ("second.", "spread.") if part == "second" else ("spread.",)
    own = {name: tensor for name, tensor in prior.tensors.items() if not name.startswith(replaced)}
    return replace(prior, tensors=own | added, description=prior.description | {"network": network})


def write(prior: Checkpoint, path: Path) -> None:
    """Weights in 16 bits."""
    halves = {name: tensor.to(torch.float16) for name, tensor in prior.tensors.items()}
    CheckpointDataset(filepath=str(path)).save(replace(prior, tensors=halves))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {sum(map(torch.numel, halves.values())) / 1e6:.2f} million weights")


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--general", type=Path, required=True)
    for name in MOSAICS:
        parser.add_argument(f"--{name}", type=Path)
        parser.add_argument(
            f"--{name}-fade", type=float, nargs=2, help="noise, see `noise_seen`: its network below the first, not above the second"
        )
    parser.add_argument("--second", nargs="?", const=DEMOSAICNET, help="a prior that has second opinions, or none: the package demosaicnet")
    parser.add_argument("--spread", type=Path, help="a prior with one; the others of its networks are those of `--general`")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.second == DEMOSAICNET:
        write(with_second(read_checkpoint(options.general), {name: network(name, front=()) for name in MOSAICS}), options.out)
        return
    for part, source in (("second", options.second), ("spread", options.spread)):
        if source:
            write(with_part_of(read_checkpoint(options.general), read_checkpoint(Path(source)), part), options.out)
            return
    mosaics = {name: (read(path, name), tuple(getattr(options, f"{name}_fade"))) for name in MOSAICS if (path := getattr(options, name))}
    write(assembled(read(options.general, "general"), mosaics), options.out)


if __name__ == "__main__":
    main()

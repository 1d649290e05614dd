"""What `lowlight` is told. Nothing heavy is imported here: --help and wrong options are answered at once."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from lowlight_kedro.package import __version__
from lowlight_kedro.plugins import did_you_mean

EXAMPLES = """examples:
  lowlight restore IMG_0001.ARW
  lowlight restore IMG_0001.ARW night/ --out restored --workers 4
  lowlight restore IMG_0001.ARW --ratio 30 --strength 0.8 --overwrite

For each raw, as --files says:
  dng     NAME_restored.dng    linear DNG, for raw editors
  jpeg    NAME_restored.jpg    to look at, in full size or as --preview says
  page    NAME_restored.html   before and after, uncertainty, how it was made
  tiff    NAME_restored.tif    sRGB, 16 bits
  linear  NAME_linear.tif      white-balanced linear camera RGB, 16 bits, for measurements
  cfa     NAME_cfa.dng         the mosaic without its noise, for the editor's own demosaicer
  std     details/NAME_std.tif standard deviation of `linear`
  defects details/NAME_defects.csv  where photosites were taken for defects
and in details/ always a record of how it was made.
Exit status: 0 all restored, 1 some not, 2 wrong use, 130 stopped by Ctrl-C (the same command goes on)."""


FILES = {  # to parts of `restored`
    "dng": ("dng",), "jpeg": ("preview",), "page": ("before", "page"), "tiff": ("srgb",), "linear": ("linear",), "cfa": ("cfa",),
    "std": ("std",), "defects": ("defects",),
}  # fmt: skip
LEAST_PREVIEW = 16  # as inference.display.preview_side


def _number(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a {'whole ' if kind is int else ''}number, got {text!r}") from None


def _within(low: float, high: float, text: str) -> float:
    value: float = _number(float, text)
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"must lie in [{low:g}, {high:g}], got {text}")
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    return _within(0, 1, text)


def positive(text: str) -> float:
    """A number above 0, to a million."""
    return _within(1e-6, 1e6, text)


def _at_least(least: int, text: str) -> int:
    value: int = _number(int, text)
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
    return value


def count(text: str) -> int:
    """A whole number from 1."""
    return _at_least(1, text)


def parts(text: str) -> list[str]:
    """Names of files, separated by commas, as parts of the catalog's `restored`, in the order of FILES."""
    asked = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in asked if name not in FILES]
    if unknown or not asked:
        raise argparse.ArgumentTypeError(f"choose some of {', '.join(FILES)}, separated by commas, got {', '.join(unknown) or 'none'}")
    return [part for name, parts_of in FILES.items() if name in asked for part in parts_of]


def pixels(text: str) -> int:
    """A side of a picture."""
    return _at_least(LEAST_PREVIEW, text)


def place(text: str) -> int:
    """A whole number from 0."""
    return _at_least(0, text)


def parser() -> argparse.ArgumentParser:
    """Of the whole command."""
    whole = argparse.ArgumentParser(prog="lowlight", description="Restore dark, noisy camera raws.")
    whole.add_argument("--version", action="version", version=f"lowlight {__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="restore | doctor")
    restore = commands.add_parser(
        "restore", help="restore raws", description="Restore dark, noisy camera raws with the prior that comes with the package.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    restore.add_argument("raws", nargs="+", metavar="RAW", help="raw files, or folders that are searched for raws")
    restore.add_argument("--out", default="restored", metavar="DIR", help="folder of the results (default: ./restored)")
    restore.add_argument("--files", type=parts, metavar="LIST", help=f"what is written, of {','.join(FILES)} (default: dng,jpeg,page)")
    restore.add_argument("--preview", type=pixels, metavar="PIXELS", help="longer side of the jpeg (default: all pixels of the sensor)")
    restore.add_argument("--ratio", type=positive, metavar="R", help="how many times brighter (default: to a mean brightness of 0.1)")
    restore.add_argument("--crop", type=place, nargs=4, metavar=("TOP", "LEFT", "HEIGHT", "WIDTH"), help="a part of the frame only, pixels")
    restore.add_argument("--estimate", choices=("mean", "sample", "mean_of_k"), default="mean",
                         help="the posterior's mean (least error), one draw (noisy to see), mean of 8 draws; default: mean")  # fmt: skip
    restore.add_argument("--strength", type=fraction, default=1.0, metavar="S", help="0: the input, scaled; 1: all noise removed (default)")
    restore.add_argument("--symmetries", type=int, choices=(1, 2, 4, 8), default=1,
                         help="mirrored and turned copies to average over: N times slower, up to 0.4 dB better; default: 1")  # fmt: skip
    restore.add_argument(
        "--prior", metavar="FILE", help="a prior of your own, 06_models/prior.safetensors of a training (default: the package's)"
    )
    restore.add_argument("--calibrations", metavar="DIR", help="noise of your cameras: what `kedro run --pipelines calibration` wrote")
    restore.add_argument(
        "--darks", metavar="DIR", help="raws taken with the lens cap on, same camera and ISO: repairs hot sites, glow, columns"
    )
    restore.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps; default: auto")
    restore.add_argument("--workers", type=count, default=1, metavar="N", help="files at once, each in a process (default: 1)")
    restore.add_argument("--overwrite", action="store_true", help="redo finished files; without it they are left alone")
    restore.add_argument("--verbose", action="store_true", help="show the log, and the full traceback of an error")
    restore.set_defaults(parser=restore)
    commands.add_parser("doctor", help="tell what is installed and usable")
    return whole


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a wrong option ends the program with what may have been meant."""
    whole = parser()
    options, unknown = whole.parse_known_args(arguments)
    if unknown:
        asked: argparse.ArgumentParser = getattr(options, "parser", whole)
        known = [option for action in asked._actions for option in action.option_strings]  # noqa: SLF001  # argparse tells them nowhere else
        asked.error("; ".join(filter(None, [f"unknown option {unknown[0]}", did_you_mean(unknown[0].split("=")[0], known)])))
    return options


def _run(options: argparse.Namespace) -> int:
    if options.command == "doctor":
        from lowlight_kedro.command.doctor import doctor

        return doctor()
    from lowlight_kedro.command.restore import restore

    return restore(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script."""
    options = parsed(arguments)
    try:
        status = _run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who read our lines has seen enough, as `head` has; what Python still holds of them goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    raise SystemExit(main())

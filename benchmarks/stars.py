"""How much of the light of stars a restoration keeps: point sources on a dark sky, by their width and the exposure ratio.

`python benchmarks/stars.py --layouts bayer xtrans --settings x30 x100` (settings of scenes.py)

Light of the green channel in squares of 11 pixels around each star, less that of the sky, over the same of the truth: the median of all
stars, and of those that least squares with the star's own shape and place would measure to a fifth (5 standard deviations), with their
fraction. Below that nobody can tell a star from noise.
"""

import argparse

import numpy as np
import tables
from numpy.typing import NDArray
from scenes import BALANCE, SETTINGS, Scene, Shot, shoot

import lowlight_kedro as ll

SIDE, SPACING, REACH = 384, 16, 5  # pixels
SKY, FAINTEST, BRIGHTEST = 0.002, 0.05, 1.0  # of white: the sky, and the peaks of stars
WIDTHS = (1.3, 1.6, 2.0, 3.0)  # pixels, FWHM


def star_field(fwhm: float, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray]:
    """Light (3, SIDE, SIDE) and the centres (N, 2) of Gaussian stars, integrated over pixels by 5 x 5 points; peaks log-uniform."""
    centres = np.stack(np.meshgrid(*(np.arange(SPACING, SIDE - SPACING, SPACING),) * 2, indexing="ij"), -1).reshape(-1, 2).astype(float)
    centres += rng.uniform(-2, 2, centres.shape)
    peaks = np.exp(rng.uniform(np.log(FAINTEST), np.log(BRIGHTEST), len(centres)))
    colours = rng.uniform(0.7, 1.0, (len(centres), 3))
    light = np.full((3, SIDE, SIDE), SKY)
    points = (np.arange(5) - 2) / 5
    for (row, column), peak, colour in zip(centres, peaks, colours, strict=True):
        rows, columns = (np.arange(round(centre) - 8, round(centre) + 9) for centre in (row, column))
        along = [
            np.exp(-4 * np.log(2) * ((places[:, None] + points - centre) / fwhm) ** 2).mean(1)
            for places, centre in ((rows, row), (columns, column))
        ]
        light[:, rows[:, None], columns] += peak * colour[:, None, None] * np.outer(*along)
    return light.astype(np.float32), centres


def _square(centre: NDArray) -> tuple[slice, ...]:
    return tuple(slice(round(place) - REACH, round(place) + REACH + 1) for place in centre)


def kept(light: NDArray, truth: NDArray, centres: NDArray) -> NDArray:
    """Per star, the light of green in its square over that of the truth, both less the sky's median."""
    sums = [[(green[_square(centre)] - np.median(green)).sum() for centre in centres] for green in (light[1], truth[1])]
    return np.divide(*sums)


def certainty(shot: Shot, centres: NDArray) -> NDArray:
    """Per star, standard deviations to which its light is known where its shape, place and colour are."""
    height, width = shot.signal.shape
    rows, columns = np.indices((height, width))
    channel = np.asarray(shot.cfa)[rows % len(shot.cfa), columns % len(shot.cfa)]
    light = shot.truth / np.reshape(BALANCE, (3, 1, 1)) / shot.ratio
    expected = np.take_along_axis(light, channel[None], 0)[0]
    above = np.take_along_axis(light - np.median(light, (1, 2), keepdims=True), channel[None], 0)[0]
    information = np.square(above) / shot.noise.variance(expected)
    return np.sqrt([information[_square(centre)].sum() for centre in centres])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior")
    parser.add_argument("--layouts", nargs="+", default=["bayer", "xtrans"], choices=["bayer", "xtrans"])
    parser.add_argument("--settings", nargs="+", default=["x30", "x100"], choices=sorted(SETTINGS))
    options = parser.parse_args()
    prior = ll.load_prior(options.prior)
    tables.head("setting", "mosaic", *(f"FWHM {width:g}" for width in WIDTHS))
    for setting in options.settings:
        for layout in options.layouts:
            cells = []
            for number, width in enumerate(WIDTHS):
                light, centres = star_field(width, np.random.default_rng(number))
                shot = shoot(Scene(f"stars {width:g}", light, np.eye(3)), SETTINGS[setting], layout, number)
                out = ll.restore(shot.signal, prior, cfa=shot.cfa, noise=shot.noise, ratio=shot.ratio, white_balance=BALANCE)
                fractions = kept(out.light, shot.truth, centres)
                known = certainty(shot, centres) >= 5
                cells.append(f"{np.median(fractions):.2f}, {np.median(fractions[known]):.2f} of {100 * known.mean():.0f} %")
            tables.row(setting, layout, *cells)


if __name__ == "__main__":
    main()

"""The README's picture: `python benchmarks/picture.py --photographs FOLDER [--name NAME] [--out docs/images/restored.png]`.

A held-out photograph in Bayer: above at a hundredth of the light (A7S II, ISO 1600), below at a normal exposure (ISO 6400); from left
to right the exposure as taken, scaled and demosaiced, the same restored by the shipped prior, and the photograph itself.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peers import developed
from PIL import Image
from scenes import BALANCE, SETTINGS, Scene, held_out, shoot

import lowlight_kedro as ll
from lowlight_kedro.sensor.render import render

ROWS = {"x100": "scaled", "iso6400": "libraw:DHT"}
GAP = 8  # pixels


def shown(light: NDArray, scene: Scene) -> NDArray[np.uint8]:
    """Display sRGB (H, W, 3)."""
    return np.rint(render(light, scene.to_srgb).transpose(1, 2, 0) * 255).astype(np.uint8)


def row(scene: Scene, name: str, demosaicer: str) -> NDArray[np.uint8]:
    """Scaled, restored, true."""
    shot = shoot(scene, SETTINGS[name], "bayer", 0)
    before = developed(shot, None if demosaicer == "scaled" else demosaicer)
    restored = ll.restore(shot.signal, cfa=shot.cfa, noise=shot.noise, white_balance=BALANCE, ratio=shot.ratio).light
    gap = np.full((scene.light.shape[1], GAP, 3), 255, np.uint8)
    return np.concatenate([shown(before, scene), gap, shown(restored, scene), gap, shown(shot.truth, scene)], 1)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--name", default="wallpapers/Kleiber_by_Lukas_Baubkus")
    parser.add_argument("--side", type=int, default=360)
    parser.add_argument("--out", type=Path, default=Path("docs/images/restored.png"))
    options = parser.parse_args()
    scene = next(scene for scene in held_out(options.photographs, 1000, options.side) if scene.name == options.name)
    rows = [row(scene, name, demosaicer) for name, demosaicer in ROWS.items()]
    gap = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    Image.fromarray(np.concatenate([rows[0], gap, rows[1]])).save(options.out, optimize=True)


if __name__ == "__main__":
    main()

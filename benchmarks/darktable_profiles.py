"""darktable's noise profiles against noise that is known: why they are no source of noise here (docs/decisions/0019).

python benchmarks/darktable_profiles.py /usr/share/darktable/noiseprofiles.json

Three tables: what darktable's own way of measuring makes of a known noise, the noise of the camera table over its profiles, and how
a profile's gain grows with ISO in all cameras. Nothing of the file is copied.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tables
import yaml

from lowlight_kedro.datasets.libraw import libraw_demosaicer
from lowlight_kedro.sensor.cfa import sample
from lowlight_kedro.sensor.noise_sources import noise_in_dn

BAYER = ((0, 1), (1, 2))
GAINS = (6e-6, 2.6e-5, 1.7e-3)  # of the A7S II and the D850 at ISO 100, of the D850 at ISO 6400
ISOS = (100, 400, 1600, 6400)
RANGES = {  # white - black in DN; of the two Canons by dcraw's table and black 2048
    ("ILCE-7S", "ILCE-7SM2"): 15871, ("D850", "NIKON D850"): 15871, ("EOS 5D Mark IV", "Canon EOS 5D Mark IV"): 15871,
    ("EOS 70D", "Canon EOS 70D"): 13255, ("EOS 700D", "Canon EOS 700D"): 13255,
}  # fmt: skip
BINS, LEAST = 300, 400  # brightness levels, as many as darktable's tool has; pixels that a level needs


def haar_gain(plane: np.ndarray) -> float:
    """Slope of variance over brightness as darktable's tools/noise measures it: MAD of the finest Haar coefficient, (a - b - c + d) / 4."""
    a, b, c, d = plane[::2, ::2], plane[::2, 1::2], plane[1::2, ::2], plane[1::2, 1::2]
    level, detail = ((a + b + c + d) / 4 * BINS).astype(int), np.abs(a - b - c + d) / 4
    used = [number for number in range(BINS) if (level == number).sum() > LEAST]
    variance = [(np.median(detail[level == number]) / 0.6745) ** 2 for number in used]
    return float(np.polyfit((np.array(used) + 0.5) / BINS, variance, 1)[0])


def own_measuring() -> None:
    """Known gain over the slope that is found, green: a grey ramp, white balance 1, 1024 x 1024."""
    tables.head("demosaicer", *(f"gain {gain:g}" for gain in GAINS))
    rng = np.random.default_rng(0)
    ramp = np.broadcast_to(np.linspace(0.02, 0.9, 1024), (3, 1024, 1024))
    for name in ("PPG", "AHD", "VNG", "LINEAR"):
        found = []
        for gain in GAINS:
            signal = sample(ramp, BAYER)
            noisy = (signal + rng.normal(size=signal.shape) * np.sqrt(gain * signal)).astype(np.float32)
            found.append(f"{gain / haar_gain(libraw_demosaicer(name)(noisy, BAYER)[1]):.1f}")
        tables.row(name, *found)


def against_table(profiles: dict[str, dict[int, tuple[float, float]]]) -> None:
    """Known gain over `a`, known read noise over the root of `b`, both of green."""
    known = yaml.safe_load((Path(__file__).resolve().parents[1] / "conf/base/globals.yml").read_text())["cameras"]
    tables.head("camera", "known", *(f"gain, ISO {iso}" for iso in ISOS), *(f"read noise, ISO {iso}" for iso in ISOS))
    for (model, name), span in RANGES.items():
        noise = {iso: noise_in_dn(name, iso, known) for iso in ISOS}
        gains = [noise[iso]["gain_dn"] / span / profiles[model][iso][0] for iso in ISOS]
        reads = [noise[iso]["read_noise_dn"] / span / np.sqrt(profiles[model][iso][1]) for iso in ISOS]
        tables.row(model, name, *(f"{value:.1f}" for value in (*gains, *reads)))


def over_iso(profiles: dict[str, dict[int, tuple[float, float]]]) -> None:
    """a at the highest ISO up to 6400 over a at the lowest from 100, in proportion to ISO: 1 where only light makes it."""
    found = []
    for levels in profiles.values():
        used = sorted(iso for iso in levels if 100 <= iso <= 6400)
        if len(used) > 3 and used[-1] >= 8 * used[0]:
            found.append(levels[used[-1]][0] / levels[used[0]][0] * used[0] / used[-1])
    every = [b for levels in profiles.values() for _, b in levels.values()]
    tables.head("cameras", "5 %", "25 %", "median", "75 %", "95 %", "profiles", "b not above 0")
    spread = [f"{value:.2f}" for value in np.percentile(found, (5, 25, 50, 75, 95))]
    tables.row(len(found), *spread, len(every), sum(b <= 0 for b in every))


def main(file: str) -> None:
    makers = json.loads(Path(file).read_text(encoding="utf-8"))["noiseprofiles"]
    profiles = {
        model["model"]: {told["iso"]: (told["a"][1], told["b"][1]) for told in model["profiles"] if not told.get("skip")}
        for maker in makers
        for model in maker["models"]
    }
    own_measuring()
    against_table(profiles)
    over_iso(profiles)


if __name__ == "__main__":
    main(sys.argv[1])

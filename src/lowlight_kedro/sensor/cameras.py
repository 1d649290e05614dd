"""Look a camera's measured noise up in a table by name and ISO."""

from collections.abc import Mapping, Sequence

import numpy as np

Table = Mapping[str, Mapping[str, Sequence[float]]]


def find_camera(camera: str, table: Table) -> str | None:
    """The longest table name that occurs in `camera` (case ignored), or None."""
    return max((name for name in table if name.lower() in camera.lower()), key=len, default=None)


def noise_in_dn(camera: str, iso: float, table: Table) -> dict[str, float]:
    """Every tabulated quantity of `camera` at `iso` in DN, log-log interpolated between measured ISOs.

    Raises:
        ValueError: camera not in the table, or ISO outside the measured range.
    """
    name = find_camera(camera, table)
    if name is None:
        raise ValueError(f"no noise table for camera {camera!r}; known: {', '.join(sorted(table))}")
    columns = table[name]
    measured = np.asarray(columns["iso"], float)
    if not measured[0] <= iso <= measured[-1]:
        raise ValueError(f"ISO {iso:g} of {name} is outside the measured range {measured[0]:g} to {measured[-1]:g}")
    return {key: float(np.exp(np.interp(np.log(iso), np.log(measured), np.log(values)))) for key, values in columns.items() if key != "iso"}


def normalised(noise_dn: Mapping[str, float], range_dn: float) -> dict[str, float]:
    """`{gain_dn, read_noise_dn, ...}` in DN to `{gain, read_noise, ...}` in units of white - black."""
    return {key.removesuffix("_dn"): value / range_dn for key, value in noise_dn.items()}


def noise_parameters(
    camera: str, iso: float, range_dn: float, *, table: Table, gain: float | None = None, read_noise: float | None = None
) -> tuple[dict[str, float], str]:
    """Noise of an exposure in units of white - black, and where the numbers come from.

    `gain` and `read_noise`, both given, win over the table.

    Raises:
        ValueError: neither source knows the camera at this ISO; the message says how to give the numbers.
    """
    if gain is not None and read_noise is not None:
        return {"gain": gain, "read_noise": read_noise}, "parameters sensor.noise.gain and read_noise"
    try:
        values = normalised(noise_in_dn(camera, iso, table), range_dn)
    except ValueError as error:
        raise ValueError(f"{error}; give sensor.noise.gain and sensor.noise.read_noise in units of white - black") from error
    return values, f"table {find_camera(camera, table)} at ISO {iso:g}"

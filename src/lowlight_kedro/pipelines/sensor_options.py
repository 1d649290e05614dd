"""Parameters of the sensor, shared by validation and inference."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from lowlight_kedro.pipelines.options import Options
from lowlight_kedro.plugins import choose
from lowlight_kedro.sensor.cameras import columns, noise_parameters
from lowlight_kedro.sensor.noise import NOISE_MODELS, NoiseModel

Positive = Annotated[float, Field(gt=0)]


class NoiseOptions(Options):
    """The noise model by name; `gain` and `read_noise` in units of white - black win over the table.

    `exact` is an option of `poisson_gaussian`, `black_error_dn` (no table has it) of `camera`.
    """

    model: str
    gain: Positive | None
    read_noise: Positive | None
    exact: bool
    black_error_dn: Annotated[float, Field(ge=0)]


class CameraEntry(Options):
    """One camera of the table; see `sensor.cameras.Entry`."""

    bits: Annotated[int, Field(ge=8, le=16)] | None = None
    iso: list[Positive] | None
    gain_dn: list[Positive]
    read_noise_dn: list[Positive] | None = None
    row_noise_dn: list[Positive] | None = None
    tail: list[float] | None = None
    lines: dict[str, tuple[float, float]] | None = None
    gain_switches: list[Positive] | None = None

    @model_validator(mode="after")
    def _columns_fit(self) -> "CameraEntry":
        table, isos = columns(self.model_dump()), self.iso or self.gain_dn
        if "read_noise_dn" not in table:
            raise ValueError("read_noise_dn must be given, as a column or in lines")
        for key, values in table.items():
            if len(values) != len(isos):
                raise ValueError(f"{key} must have one value per ISO, got {len(values)} for {len(isos)}")
        if sorted(set(isos)) != isos:
            raise ValueError(f"iso must ascend, got {isos}")
        return self


class SensorOptions(Options):
    """All of `params:sensor`."""

    noise: NoiseOptions
    cameras: dict[str, CameraEntry]

    def noise_model(self, camera: str, iso: float, range_dn: float) -> tuple[NoiseModel, str]:
        """The noise model of an exposure and where its numbers come from; see `noise_parameters`.

        It is built from whatever of these it has fields for: what the source knows, `step` (one DN), `black_error`, `exact`.
        """
        table = {name: entry.model_dump() for name, entry in self.cameras.items()}
        values, source = noise_parameters(camera, iso, range_dn, table=table, gain=self.noise.gain, read_noise=self.noise.read_noise)
        model: Any = choose("noise_model", NOISE_MODELS, self.noise.model)
        all_known = {
            "step": 1 / range_dn, "black_error": self.noise.black_error_dn / range_dn, "exact": self.noise.exact, **values,
        }  # fmt: skip
        return model(**{key: value for key, value in all_known.items() if key in model.__dataclass_fields__}), source

"""Parameters of the sensor, shared by validation and inference."""

from typing import Annotated, Any

from pydantic import Field

from lowlight_kedro.pipelines.options import Options
from lowlight_kedro.plugins import choose
from lowlight_kedro.sensor.cameras import noise_parameters
from lowlight_kedro.sensor.noise import NOISE_MODELS, NoiseModel

Positive = Annotated[float, Field(gt=0)]


class NoiseOptions(Options):
    """The noise model by name; `gain` and `read_noise` in units of white - black win over the table."""

    model: str
    gain: Positive | None
    read_noise: Positive | None


class SensorOptions(Options):
    """All of `params:sensor`."""

    noise: NoiseOptions
    cameras: dict[str, dict[str, list[Positive]]]

    def noise_model(self, camera: str, iso: float, range_dn: float) -> tuple[NoiseModel, str]:
        """The noise model of an exposure and where its numbers come from; see `noise_parameters`."""
        values, source = noise_parameters(camera, iso, range_dn, table=self.cameras, gain=self.noise.gain, read_noise=self.noise.read_noise)
        model: Any = choose("noise_model", NOISE_MODELS, self.noise.model)
        known = {key: value for key, value in values.items() if key in model.__dataclass_fields__}
        return model(**known), source

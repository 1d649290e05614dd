"""What all typed parameters have in common, and those of the sensor, which validation and inference share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lowlight_kedro.bounds import NotNegative, Positive
from lowlight_kedro.jobs import EXECUTORS, Executor
from lowlight_kedro.plugins import choose, configured
from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate
from lowlight_kedro.sensor.noise import NOISE_MODELS, NoiseModel
from lowlight_kedro.sensor.noise_sources import Assumed, Sources, choose_noise, columns


class Options(BaseModel):
    """Checked before any node runs: an unknown name or a value out of range stops with a list of all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def check_plug_ins(self) -> None:
        """Raise a ValueError where a plug-in or its option does not exist that is too slow to import for every command."""

    def tile_sides(self) -> dict[str, int]:
        """Options that say the side of the tiles, pixels."""
        return {}


class Choice(Options):
    """A plug-in by name; `options` holds those of every plug-in one may switch to, by its name.

    So one word switches, whatever an environment says about the others.
    """

    name: str
    options: dict[str, dict] = {}

    @property
    def chosen(self) -> dict:
        """The options of the plug-in that is chosen; of a dotted one under its whole name, or nested as `--params` gives them."""
        if self.name in self.options:
            return self.options[self.name]
        found: Any = self.options
        for part in self.name.split("."):
            found = found.get(part, {}) if isinstance(found, Mapping) else {}
        return found

    def describe(self) -> dict:
        """Name and chosen options, as stored in checkpoints."""
        return {"name": self.name, "options": self.chosen}

    def check(self, kind: str, table: Mapping[str, Any]) -> None:
        """Raise a ValueError where a plug-in or an option of one does not exist, chosen or not; dotted ones count when they are chosen."""
        for name in self.options:
            if "." not in name and name != self.name.split(".")[0]:
                configured(kind, table, name, self.options[name])
        configured(kind, table, self.name, self.chosen)


def checked(check: Callable[[Any], object]) -> AfterValidator:
    """Beside a type in an annotation: a value for which `check` raises no ValueError."""

    def unchanged(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(unchanged)


def known(kind: str, table: Mapping[str, Any]) -> AfterValidator:
    """Beside `str` in an annotation: the name of a plug-in of this kind."""
    return checked(lambda name: choose(kind, table, name))


def of(kind: str, table: Mapping[str, Any]) -> AfterValidator:
    """Beside `Choice` in an annotation: a plug-in of this kind with its options."""
    return checked(lambda choice: choice.check(kind, table))


def _dotted(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested values by dotted names; an empty mapping has none."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _dotted(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return flat


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`name: earlier value, now value` of each option that differs, nested options by dotted names."""
    old, new = _dotted(earlier), _dotted(now)
    return [
        f"{name}: {old.get(name, 'not given')}, now {new.get(name, 'not given')}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


class ExecutorOptions(Choice):
    """All of `params:executor`: who maps over files."""

    @model_validator(mode="after")
    def _known(self) -> "ExecutorOptions":
        self.check("executor", EXECUTORS)
        return self

    def build(self) -> Executor:
        """The executor with its options."""
        return configured("executor", EXECUTORS, self.name, self.chosen)


FOUND = ("gain", "read_noise", "step", "black_error")  # fields of noise models that the exposure and its sources tell


class NoiseOptions(Options):
    """The noise model by name; `gain` and `read_noise` in units of white - black win over the table.

    `black_error_dn` (no table has it) is an option of `camera`; `options` are further fields of a model of your own.
    """

    model: Annotated[str, known("noise_model", NOISE_MODELS)]
    gain: Positive | None
    read_noise: Positive | None
    black_error_dn: NotNegative
    options: dict[str, Any] = Field(default_factory=dict)
    assumed: Assumed | None = None

    @model_validator(mode="after")
    def _options_fit(self) -> "NoiseOptions":
        model: Any = choose("noise_model", NOISE_MODELS, self.model)
        free = [field for field in model.__dataclass_fields__ if field not in FOUND]
        unknown = [name for name in self.options if name not in free]
        if unknown:
            raise ValueError(f"noise model {self.model!r} has no option {', '.join(unknown)}; its options: {', '.join(free) or 'none'}")
        return self


class CameraEntry(Options):
    """One camera of the table; see `sensor.noise_sources.Entry`."""

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

    def sources(self, calibrations: Sequence[Mapping[str, Any]], own: Mapping[str, Callable[[], NoiseEstimate | None]]) -> Sources:
        """What may know the noise of an exposure: these parameters, calibrations, and what the file tells of itself."""
        noise = self.noise
        given = {"gain": noise.gain, "read_noise": noise.read_noise} if noise.gain and noise.read_noise else None
        return Sources(given, calibrations, {name: entry.model_dump() for name, entry in self.cameras.items()}, own, noise.assumed)

    def noise_model(self, camera: str, iso: float, range_dn: float, sources: Sources) -> tuple[NoiseModel, str, list[str]]:
        """The noise model of an exposure, where its numbers come from, and which sources were passed over; see `choose_noise`.

        It is built from whatever of these it has fields for: what the source knows, `step` (one DN), `black_error`.
        """
        values, source, passed_over = choose_noise(camera, iso, range_dn, sources)
        model: Any = choose("noise_model", NOISE_MODELS, self.noise.model)
        all_known = {"step": 1 / range_dn, "black_error": self.noise.black_error_dn / range_dn, **values, **self.noise.options}
        return model(**{key: value for key, value in all_known.items() if key in model.__dataclass_fields__}), source, passed_over

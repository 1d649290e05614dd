"""How long, how fast, and when: the numbers of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass

from lowlight_kedro.diffusion.ema import Keep


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. Counts in images; `kimg` = thousands of them.

    Attributes:
        batch_size: images per update. batch_gpu: images per pass; updates accumulate batch_size / batch_gpu passes.
        learning_rate: of Adam, ramped up linearly over `ramp_kimg`, constant up to `decay_kimg` (None: for ever) and from
            there falling with the inverse square root of the images (EDM2), and down to 0 over the last `cooldown` share.
        averages: running means of the weights by name (`ema.EMAS`); the first is validated and exported.
        kimg_per_tick: a row of the history each. snapshot_ticks: a state is yielded each.
        check_updates: the loss stays on the device for at most so many updates before it is looked at.
        max_gradient: norm to which a larger gradient of an update is shortened; None: never.
        crop: side of the random crops taken from tiles; None for whole tiles.
        precision: `fp32`, or `bf16` for autocast of the network.
    """

    total_kimg: float
    batch_size: int
    batch_gpu: int
    learning_rate: float
    ramp_kimg: float
    decay_kimg: float | None
    cooldown: float
    averages: Mapping[str, Keep]
    kimg_per_tick: float
    snapshot_ticks: int
    check_updates: int
    max_gradient: float | None
    crop: int | None
    precision: str
    seed: int

    @property
    def total_images(self) -> int:
        """Images of the whole run, whole batches."""
        return -(-round(self.total_kimg * 1000) // self.batch_size) * self.batch_size

    def rate_at(self, images: int) -> float:
        """Learning rate for the update that starts at this image count."""
        up = min((images + self.batch_size) / max(self.ramp_kimg * 1000, 1), 1)
        fall = 1 if self.decay_kimg is None else max(images / (self.decay_kimg * 1000), 1) ** -0.5
        left = (self.total_images - images) / self.total_images
        return self.learning_rate * up * fall * min(left / self.cooldown if self.cooldown else 1, 1)

    def ema_keeps(self, images: int) -> dict[str, float]:
        """Weight of the old mean, by name, in the update that ends at this image count."""
        return {name: keep(images, self.batch_size) for name, keep in self.averages.items()}

    def tick_at(self, images: int) -> int:
        """How many ticks are over at this image count."""
        return images // max(round(self.kimg_per_tick * 1000), self.batch_size)

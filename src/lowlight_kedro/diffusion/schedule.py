"""How long, how fast, and when: the numbers of a training run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. Counts in images; `kimg` = thousands of them.

    Attributes:
        batch_size: images per update. batch_gpu: images per pass; updates accumulate batch_size / batch_gpu passes.
        learning_rate: of Adam, ramped up linearly over `ramp_kimg` and down to 0 over the last `cooldown` share.
        ema_halflife_kimg: half-life of the weights' running mean. ema_rampup: half-life is at most this share of
            the images seen, so that early weights are forgotten (Karras et al. 2022, .05).
        kimg_per_tick: a row of the history each. snapshot_ticks: a state is yielded each.
        max_gradient: norm to which a larger gradient of an update is shortened; None: never.
        crop: side of the random crops taken from tiles; None for whole tiles.
        precision: `fp32`, or `bf16` for autocast of the network.
    """

    total_kimg: float
    batch_size: int
    batch_gpu: int
    learning_rate: float
    ramp_kimg: float
    cooldown: float
    ema_halflife_kimg: float
    ema_rampup: float
    kimg_per_tick: float
    snapshot_ticks: int
    max_gradient: float | None
    crop: int | None
    precision: str
    seed: int

    @property
    def total_images(self) -> int:
        """Images of the whole run, whole batches."""
        return -(-round(self.total_kimg * 1000) // self.batch_size) * self.batch_size

    def snapshot_at(self, images: int) -> bool:
        """Whether the update that ends at this image count ends with a snapshot, too: every `snapshot_ticks` ticks, and at the end."""
        tick_images = max(round(self.kimg_per_tick * 1000), self.batch_size)
        tick = images // tick_images
        ticked = tick > (images - self.batch_size) // tick_images
        return images >= self.total_images or (ticked and tick % self.snapshot_ticks == 0)

    def rate_at(self, images: int) -> float:
        """Learning rate for the update that starts at this image count."""
        up = min((images + self.batch_size) / max(self.ramp_kimg * 1000, 1), 1)
        left = (self.total_images - images) / self.total_images
        return self.learning_rate * up * min(left / self.cooldown if self.cooldown else 1, 1)

    def ema_keep(self, images: int) -> float:
        """Weight of the old mean in the update that ends at this image count."""
        halflife = min(self.ema_halflife_kimg * 1000, max(images * self.ema_rampup, 1e-8))
        return 0.5 ** (self.batch_size / halflife)

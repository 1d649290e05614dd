"""What a layout is told besides the table of headers."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LayoutRules:
    """Parameters of all layouts; each uses those that concern it.

    Attributes:
        pattern: regular expression for the last part of a frame's name, with a group `scene` and optionally `exposure`.
        gap_s: seconds of pause that end a burst, for raws whose names tell no scene; None = one scene per folder.
        lists: published lists of pairs, text by path relative to the raw folder, e.g. `Sony_train_list.txt`.
    """

    pattern: str
    gap_s: float | None = None
    lists: Mapping[str, str] = field(default_factory=dict)

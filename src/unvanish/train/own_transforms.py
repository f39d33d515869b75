"""The user's own transforms in a training: beside what they may stand, and that a resumed run has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unvanish.core.names import show
from unvanish.core.plain import name_value
from unvanish.train.errors import TrainError
from unvanish.train.verbs import MIXED

INSTEAD = (
    "augment",
    *(name for name in MIXED if name != "rect"),
    "close_mosaic",
)  # arguments of the augmentation whose place they take


def refuse_augmentation(given: Mapping[str, Any], data: Any, transforms: Any) -> None:
    """TrainError for transforms beside arguments that they would make idle, or beside loaders."""
    if transforms is None:
        return
    for key in given:
        if str(key).replace("-", "_") in INSTEAD:
            raise TrainError(
                f"transforms take the place of all augmentation, so {key} would do nothing: leave it out"
            )
    if data is not None and hasattr(data, "train"):
        raise TrainError(f"data is {name_value(data)} with loaders of its own; put the transforms into these")


def require_transforms(saved: Mapping[str, Any], transforms: Any) -> None:
    """TrainError if a run is resumed without the transforms it was begun with, or with some it never had."""
    about = saved.get("about")
    before = str(about.get("transforms") or "") if isinstance(about, Mapping) else ""
    if before and transforms is None:
        raise TrainError(
            f"the run was begun with transforms={show(before)}, which are no part of its state; give them"
        )
    if transforms is not None and not before:
        raise TrainError("the run was begun without transforms; leave them out, or start a new run")


def name_transforms(transforms: Any) -> str:
    """What transforms are called, for the record of a run."""
    listed = transforms if isinstance(transforms, list | tuple) else [transforms]
    return ", ".join(getattr(one, "__name__", type(one).__name__) for one in listed)[:200]

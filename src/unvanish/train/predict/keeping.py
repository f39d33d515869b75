"""Which predictions are kept, and what of them is written: pictures, label files, cut-out objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unvanish.core.names import as_file_name
from unvanish.core.plain import name_value
from unvanish.train.errors import TrainError
from unvanish.train.predict.prediction import Prediction
from unvanish.train.verbs import WRITTEN


@dataclass(frozen=True)
class Keeping:
    """The classes that count, None for all, and what is written."""

    classes: frozenset[int] | None = None
    save: bool = False
    save_txt: bool = False
    save_conf: bool = False
    save_crop: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any], names: list[str]) -> Keeping:
        """Read the arguments of a call; TrainError for a value that is none."""
        flags = {}
        for name in WRITTEN:
            value = given.get(name, False)
            if not isinstance(value, bool):
                raise TrainError(f"{name}={name_value(value)} is not true or false")
            flags[name] = value
        if flags["save_conf"] and not flags["save_txt"]:
            raise TrainError("save_conf adds the confidence to label files; give save_txt too")
        return cls(_read_classes(given.get("classes"), names), **flags)

    def keep(self, found: Prediction) -> Prediction:
        """The prediction with the objects of the chosen classes only."""
        if self.classes is None or found.boxes is None:
            return found
        wanted = torch.tensor(sorted(self.classes), device=found.boxes.cls.device)
        return found[torch.isin(found.boxes.cls, wanted.to(found.boxes.cls.dtype))]

    def write(self, found: Prediction, folder: Path, number: int) -> Iterator[Path]:
        """Write what was asked for into a folder; the files."""
        origin = Path(found.origin)
        stem = as_file_name(origin.stem if origin.suffix else f"{found.origin} {number}")
        folder.mkdir(parents=True, exist_ok=True)
        if self.save:
            yield found.save(folder / f"{stem}.jpg")
        if self.save_txt:
            yield found.save_txt(folder / "labels" / f"{stem}.txt", save_conf=self.save_conf)
        if self.save_crop:
            yield from found.save_crop(folder / "crops")

    @property
    def writes(self) -> bool:
        """Whether anything is written."""
        return self.save or self.save_txt or self.save_crop


def choose_folder(task: str, given: Mapping[str, Any]) -> Path:
    """The folder of the predictions: `project`/`name`, or the next free one unless `exist_ok`."""
    folder = Path(given.get("project") or Path("runs") / task) / (given.get("name") or "predict")
    number = 2
    while folder.exists() and not given.get("exist_ok"):
        folder = folder.with_name(f"{given.get('name') or 'predict'}{number}")
        number += 1
    return folder


def _read_classes(given: Any, names: list[str]) -> frozenset[int] | None:
    """Classes by number or name; TrainError for one that the network does not know."""
    if given is None:
        return None
    found = set()
    for one in given if isinstance(given, list | tuple | set) else [given]:
        number = int(one) if isinstance(one, int) or str(one).isdigit() else None
        if number is None and one in names:
            number = names.index(one)
        if number is None or isinstance(one, bool) or not 0 <= number < len(names):
            raise TrainError(f"classes={name_value(one)}: the network knows {', '.join(names[:20])}")
        found.add(number)
    return frozenset(found)

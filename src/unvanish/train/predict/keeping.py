"""Which predictions are kept, and what of them is written: pictures, label files, cut-out objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unvanish.core.names import as_file_name
from unvanish.core.plain import name_value
from unvanish.lab.data.chosen import find_classes
from unvanish.lab.data.problems import DataError
from unvanish.train.arguments import Arguments
from unvanish.train.checkpoint.folder import make_next
from unvanish.train.errors import TrainError
from unvanish.train.predict.prediction import Prediction
from unvanish.train.verbs import FLAGS


@dataclass(frozen=True)
class Keeping:
    """The classes that count, None for all; what is written and shown; `augment`: several views of each."""

    classes: frozenset[int] | None = None
    save: bool = False
    save_txt: bool = False
    save_conf: bool = False
    save_crop: bool = False
    show: bool = False
    augment: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any], names: list[str]) -> Keeping:
        """Read the arguments of a call; TrainError for a value that is none."""
        flags = {}
        for name in FLAGS:
            value = given.get(name, False)
            if not isinstance(value, bool):
                raise TrainError(f"{name}={name_value(value)} is not true or false")
            flags[name] = value
        if flags["save_conf"] and not flags["save_txt"]:
            raise TrainError("save_conf adds the confidence to label files; give save_txt too")
        return cls(read_classes(given.get("classes"), names), **flags)

    @property
    def writes(self) -> bool:
        """Whether anything is written."""
        return self.save or self.save_txt or self.save_crop


@dataclass
class Shelf:
    """The folder in which predictions are put, each under a name of its own."""

    folder: Path
    keeping: Keeping
    taken: Counter[str] = field(default_factory=Counter)

    def put(self, found: Prediction) -> None:
        """Write what was asked for of a prediction."""
        origin = Path(found.origin)
        stem = as_file_name(origin.stem if origin.suffix else found.origin)
        self.taken[stem] += 1
        if self.taken[stem] > 1:  # of another folder
            stem = f"{stem}_{self.taken[stem]}"
        if self.keeping.save:
            found.save(self.folder / f"{stem}.jpg")
        if self.keeping.save_txt:
            found.save_txt(self.folder / "labels" / f"{stem}.txt", save_conf=self.keeping.save_conf)
        if self.keeping.save_crop:
            found.save_crop(self.folder / "crops")


def make_shelf(keeping: Keeping, arguments: Arguments, task: str) -> Shelf | None:
    """The folder of a call's predictions, `project`/`name` or the next free one; None if none is written."""
    if not keeping.writes:
        return None
    wanted = Path(arguments.project or Path("runs") / task) / (arguments.name or "predict")
    try:
        if arguments.exist_ok:
            wanted.mkdir(parents=True, exist_ok=True)
            return Shelf(wanted, keeping)
        return Shelf(make_next(wanted), keeping)
    except OSError as error:
        raise TrainError(f"the folder {wanted} cannot be made: {error}; give project= or name=") from error


def read_classes(given: Any, names: list[str]) -> frozenset[int] | None:
    """Classes by number or name; TrainError for one that is not among `names`."""
    try:
        return find_classes(given, names)
    except DataError as error:
        raise TrainError(str(error)) from error

"""The splits of a data set of the library `datasets`: from the hub, its cache, or a local folder.

Notable: a local folder is read as what its files are (arrow, parquet, JSON, CSV), never by a script or a
configuration in it, and pictures stay bytes until they are decoded within our own limits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unvanish.core.names import show
from unvanish.core.registry import suggest
from unvanish.lab.data.content import Source
from unvanish.lab.data.problems import DataError
from unvanish.lab.data.spec import SAVED

FORMS = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "json", ".json": "json", ".csv": "csv"}
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
VALIDATION = ("validation", "valid", "val", "dev", "test")
OLDEST = 4  # version of the library, from which it runs no script of a data set
FILES = 10_000
MISSING = "the library datasets is not installed; pip install 'unvanish[datasets]'"
Rows = Any  # a datasets.Dataset


def find_splits(source: Source, subset: str) -> tuple[Rows, Rows | None]:
    """The training and the validation rows, the latter None if there are none; DataError without a set."""
    splits = open_splits(source, subset)
    wanted = source.spec.parts.get("train", ())
    found = wanted or [name for name in SPLITS["train"] if name in splits] or list(splits)[: len(splits) == 1]
    val = source.spec.parts.get("val") or [n for n in VALIDATION if n in splits and n not in found][:1]
    for name in (*found, *val):
        if name not in splits:
            near = suggest(name, splits)
            raise DataError(
                f"{source.spec.name}: there is no split {name!r}{near}; there are {', '.join(splits)}"
            )
    if not found:
        raise DataError(
            f"{source.spec.name}: name the training split, `train:`; there are {', '.join(splits)}"
        )
    train, *others = (join(splits, names) for names in (found, val) if names)
    return train, others[0] if others else None


def join(splits: Mapping[str, Rows], names: Sequence[str]) -> Rows:
    """The rows of one or several splits."""
    library = import_datasets()
    return splits[names[0]] if len(names) == 1 else library.concatenate_datasets([splits[n] for n in names])


def open_splits(source: Source, subset: str) -> dict[str, Rows]:
    """All splits by name."""
    library = import_datasets()
    name = source.spec.path[0] if source.spec.path else ""
    if not name:
        raise DataError(f"{source.spec.file or 'data'}: `path` must name a data set or a folder, as hf:imdb")
    folder = next(iter(source.folders()), None)
    try:
        if folder is None:
            options = library.DownloadConfig(local_files_only=not source.download)
            found = library.load_dataset(name, subset or None, download_config=options)
        elif any((folder / name).is_file() for name in SAVED):
            found = library.load_from_disk(str(folder))
        else:
            form, files = find_files(folder, subset)
            found = library.load_dataset(form, data_files=files)
    except DataError:
        raise
    except Exception as error:  # the library has many errors of its own
        first = (str(error).splitlines() or [""])[0][:200]
        place = folder or f"hf:{show(name)}"
        there = "" if folder else "; it is neither a folder here nor in the library's cache, if that is meant"
        raise DataError(f"{place} cannot be opened: {type(error).__name__}: {show(first)}{there}") from error
    return dict(found) if isinstance(found, Mapping) else {"train": found}


def import_datasets() -> Any:
    """The library; DataError if it is missing or runs scripts."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(MISSING) from error
    version = str(datasets.__version__).partition(".")[0]
    if version.isdigit() and int(version) < OLDEST:
        raise DataError(
            f"datasets {datasets.__version__} may run a data set's script; take {OLDEST}.0 or newer"
        )
    return datasets


def find_files(folder: Path, subset: str) -> tuple[str, dict[str, list[str]]]:
    """The form of the data files below a folder, and the files of each split, by their names."""
    base = folder / subset if subset and (folder / subset).is_dir() else folder
    files = [
        Path(place, name)
        for place, below, names in os.walk(base)
        for name in names
        if not (below.sort() or name.startswith("."))
    ][:FILES]
    for suffix, form in FORMS.items():
        chosen = sorted(f for f in files if f.suffix.lower() == suffix and f.name != "dataset_infos.json")
        if chosen:
            splits: dict[str, list[str]] = {}
            for file in chosen:
                splits.setdefault(split_of(file, base), []).append(str(file))
            return form, splits
    raise DataError(f"{folder} holds no file of {', '.join(FORMS)}, and `save_to_disk` did not write it")


def split_of(file: Path, base: Path) -> str:
    """The split that a file's name, or its folder's, says; train if none does."""
    words = (
        str(file.relative_to(base)).lower().replace("-", "_").replace("/", "_").replace(".", "_").split("_")
    )
    return next((split for split, known in SPLITS.items() if any(w in known for w in words)), "train")

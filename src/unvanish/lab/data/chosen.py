"""Which labels count: those of some classes, and all as one class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from unvanish.core.names import show
from unvanish.core.plain import name_value
from unvanish.lab.data.boxes import Boxed
from unvanish.lab.data.content import Content
from unvanish.lab.data.labels import Labels
from unvanish.lab.data.part import Part
from unvanish.lab.data.problems import DataError

ONE = "object"  # the name of the only class


def find_classes(given: Any, names: Sequence[str]) -> frozenset[int] | None:
    """Classes by number or name, alone, in a list, or with commas; DataError for one that is not known."""
    if given is None:
        return None
    if isinstance(given, str) and given not in names:
        given = [word.strip() for word in given.strip("[]").split(",")]
    found = set()
    for one in given if isinstance(given, list | tuple | set) else [given]:
        number = names.index(one) if one in names else int(one) if str(one).isdigit() else None
        if number is None or isinstance(one, bool) or not 0 <= number < len(names):
            raise DataError(f"classes={name_value(one)}: there are {', '.join(map(show, names[:20]))}")
        found.add(number)
    return frozenset(found)


def choose_labels(content: Content, classes: Any, single: bool) -> Content:
    """The content with objects of some classes only (all if None), or all as one class (`single`).

    DataError if none is left to train on.
    """
    wanted = find_classes(classes, content.names)
    if wanted is None and not single:
        return content
    train, val, test = (_relabel(part, wanted, single) for part in (content.train, content.val, content.test))
    assert train is not None
    if isinstance(train, Boxed) and not any(len(r.labels.classes) for r in train.records):
        raise DataError(f"classes={name_value(classes)}: the training part has no object of these")
    content = replace(content, train=train, val=val, test=test)
    if not single:
        return content
    one = {"classes": 1}
    preparation = {**content.preparation, **one, "names": [ONE], "single_cls": True}
    return replace(content, facts={**content.facts, **one}, names=(ONE,), preparation=preparation)


def _relabel(part: Part | None, wanted: frozenset[int] | None, single: bool) -> Part | None:
    """A part with the labels that count; parts without boxes are returned unchanged."""
    if not isinstance(part, Boxed):
        return part
    records = [replace(record, labels=_select(record.labels, wanted, single)) for record in part.records]
    return Boxed(records, part.size, part.images, part.masked)


def _select(labels: Labels, wanted: frozenset[int] | None, single: bool) -> Labels:
    """The labels of some classes, all of class 0 if `single`."""
    kept = np.arange(len(labels.classes))
    if wanted is not None:
        kept = np.flatnonzero(np.isin(labels.classes, sorted(wanted)))
    classes = labels.classes[kept]
    polygons = tuple(labels.polygons[i] for i in kept) if labels.polygons else ()
    return Labels(np.zeros_like(classes) if single else classes, labels.boxes[kept], polygons)

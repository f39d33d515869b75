"""Images with YOLO label files, in the layout of COCO128: `images/train2017/*.jpg`, `labels/train2017/*.txt`.

`train` and `val` are folders, .txt lists of images, or lists of these, below `path`; `names` (or `nc`) gives
the classes. The label file of an image has `labels` in place of the last `images` of its path and the suffix
.txt; `labels` names another folder. Images are letterboxed to `imgsz` (640). Faults of label files are
reported with their line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unvanish.lab.data.boxes import Boxed, BoxLabels, shares
from unvanish.lab.data.content import Content, Source
from unvanish.lab.data.labels import Form, Labels, label_file, read_labels
from unvanish.lab.data.limits import find_below
from unvanish.lab.data.pictures import check_images, decode_images, fits_in_memory, list_images
from unvanish.lab.data.places import is_archive, unpack
from unvanish.lab.data.problems import DataError
from unvanish.lab.data.scenes import Scenes
from unvanish.lab.data.tally import Tally
from unvanish.store.files import read_text

TASKS = ("detect", "segment")
LIST = 200_000_000  # bytes of a list of images


def read(source: Source, *, labels: str = "", archive: str = "") -> Content:
    """The images and labels of the training and validation lists."""
    names = source.spec.names
    if not names:
        raise DataError(f"{source.spec.file or 'data'}: `names` (or `nc`) must give the classes")
    size = source.imgsz or 640
    train = part(source, "train", size, labels, archive)
    val = part(source, "val", size, labels, archive) if "val" in source.spec.parts else None
    facts = {"classes": len(names), "channels": 3, "size": size}
    preparation = {"input": "letterbox", **facts, "names": list(names)}
    return Content(train, val, facts, names, None, Scenes(), shares, preparation)


def part(source: Source, name: str, size: int, labels: str, archive: str) -> Boxed:
    """The images of one part with their labels, in memory if they are small."""
    images = [image for entry in entries(source, name, archive) for image in images_of(entry, source)]
    if not images:
        raise DataError(f"{source.spec.file or source.spec.name}: {name} has no image. {source.problems}")
    records, tally = [], Tally()
    for image, shape in zip(images, check_images(images, source.problems), strict=True):
        if shape is not None:
            found = labels_of(image, source, labels, shape, tally)
            records.append(BoxLabels(image, shape[::-1], found))
    tally.require_labels(f"{source.spec.file or source.spec.name}: {name}", source.task)
    masked = source.task == "segment"
    made = Boxed(records, size, masked=masked)
    if records and fits_in_memory(len(records), 3, size, source.cache, source.problems):
        paths = [record.path for record in records]
        held, good = decode_images(paths, made.read, f"letterbox{size}", source.problems)
        return Boxed([records[i] for i in good], size, held, masked)
    return made


def entries(source: Source, name: str, archive: str) -> list[Path]:
    """The folders, lists or images that a part names."""
    named = source.spec.parts.get(name) or ("images/train" if name == "train" else "images/val",)
    if archive and source.look(named[0]) is None:
        folder = unpack(source.need(archive))
        found = [next(find_below(folder, entry), None) for entry in named]
    else:
        found = [source.need(entry) for entry in named]
    missing = [entry for entry, place in zip(named, found, strict=True) if place is None]
    if missing:
        raise DataError(f"{source.spec.name}: {archive} does not contain {', '.join(missing)}")
    return [unpack(p) if is_archive(p) else p for p in found if p is not None]


def images_of(entry: Path, source: Source) -> Iterator[Path]:
    """The images of a folder, of a .txt list (relative to it or to the data set), or the image itself."""
    if entry.is_dir():
        yield from list_images(entry)
        return
    if entry.suffix != ".txt":
        yield entry
        return
    try:
        lines = read_text(entry, LIST).splitlines()
    except OSError as error:
        raise DataError(f"{entry} is no list of images: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        roots = [Path(), entry.parent, *source.folders()]
        found = next((root / line.strip() for root in roots if (root / line.strip()).is_file()), None)
        if found is None:
            source.problems.add(entry, number, "missing image", f"{line.strip()} does not exist")
        else:
            yield found


def labels_of(image: Path, source: Source, folder: str, size: tuple[int, int], tally: Tally) -> Labels:
    """The labels of an image of `size` (W, H); faults are reported, and counted in `tally`."""
    file = label_file(image)
    beside = image.with_suffix(".txt")
    if not folder and not file.is_file() and beside.is_file():
        file = beside
        source.problems.add(file, 0, "labels beside images", "read from the folder of its image")
    if folder:
        below = image.parent.name if image.parent.name != "images" else ""
        base = source.need(folder)
        file = next(
            (f for f in (base / below / file.name, base / file.name) if f.is_file()), base / file.name
        )
    found, problems = read_labels(file, Form(source.spec.names, source.task == "segment", size))
    source.problems.extend(problems)
    tally.add(found, problems)
    return found

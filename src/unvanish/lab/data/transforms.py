"""The user's own transforms of training images, in place of the data set's augmentation.

Notable:
- They get each image as it is fed, square and of 8 bits: a PIL image, or an array (H, W, C) of red, green,
  blue for albumentations. What comes back is scaled to the batch's size, and normalised as validation is.
- Boxes go along if the library takes them: albumentations with `bbox_params`, torchvision's v2.
- Every generator that such libraries draw from is seeded by run, epoch and batch, and put back.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unvanish.core.names import show
from unvanish.lab.data.augment import resize
from unvanish.lab.data.content import View
from unvanish.lab.data.part import Batch
from unvanish.lab.data.problems import DataError

TASKS = ("classify", "detect")
SPARE = 1e-3  # by which fractions may leave 0 to 1
PIXELS = 1.0  # of a box's side: less is no object
Array = npt.NDArray[Any]
Boxes = tuple[Tensor, Tensor]  # corners x, y, x, y in pixels (N, 4), and classes (N,)
FORMATS = ("yolo", "albumentations", "pascal_voc", "coco")


@dataclass(frozen=True)
class OwnTransforms:
    """The last step of training batches: transforms of somebody's, image by image, then the `still` one."""

    apply: Any
    still: View
    boxed: bool

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        x, y = batch
        size = tuple(x.shape[-2:])
        with seed_all(self.apply, int(torch.randint(2**31, (1,), generator=generator))):
            if not self.boxed:
                images = [self._image(image) for image in x]
            else:
                pairs = [self._scene(x[i], y[y[:, 0] == i]) for i in range(len(x))]
                images = [image for image, _ in pairs]
                y = torch.cat([rows_of(i, boxes, image) for i, (image, boxes) in enumerate(pairs)])
        channels = x.shape[1]
        if odd := [image for image in images if image.shape[0] != channels]:
            raise DataError(f"transforms give {odd[0].shape[0]} channels, the images have {channels}")
        return self.still((torch.cat([resize(image[None], size) for image in images]), y), generator)

    def _image(self, image: Tensor) -> Tensor:
        with naming_errors():
            if is_of(self.apply, "albumentations"):
                return to_bytes(self.apply(image=to_array(image))["image"])
            return to_bytes(self.apply(to_pil(image)))

    def _scene(self, image: Tensor, rows: Tensor) -> tuple[Tensor, Boxes]:
        call = call_albumentations if is_of(self.apply, "albumentations") else call_torchvision
        with naming_errors():
            return call(self.apply, image, corners_of(rows, image))


def own_view(transforms: Any, still: View, task: str) -> OwnTransforms:
    """The last step of training batches by the user's transforms; DataError if they are not for the task."""
    listed = isinstance(transforms, list | tuple)
    if task not in TASKS:
        raise DataError(f"transforms are for the tasks {' and '.join(TASKS)}, not for {task}")
    if not all(callable(one) for one in (transforms if listed else [transforms])) or (
        listed and not transforms
    ):
        raise DataError(
            f"transforms must be a function of an image, or a list of some, not {show(transforms)[:60]}"
        )
    if listed:
        transforms = compose(transforms, task)
    if task == "detect":
        require_boxes(transforms)
    return OwnTransforms(transforms, still, task == "detect")


def compose(transforms: Sequence[Any], task: str) -> Any:
    """One transform of several."""
    if not all(is_of(one, "albumentations") for one in transforms):
        if task == "detect" and all(is_of(one, "torchvision.transforms.v2") for one in transforms):
            from torchvision.transforms import v2

            return v2.Compose(list(transforms))
        return InTurn(tuple(transforms))
    import albumentations

    boxes = albumentations.BboxParams("yolo", label_fields=["labels"]) if task == "detect" else None
    return albumentations.Compose(list(transforms), bbox_params=boxes)


@dataclass(frozen=True)
class InTurn:
    """Functions of an image, one after the other."""

    functions: tuple[Callable[[Any], Any], ...]

    def __call__(self, image: Any) -> Any:
        for function in self.functions:
            image = function(image)
        return image


def require_boxes(transforms: Any) -> None:
    """DataError if transforms take no boxes, or have them in a way that is not known."""
    if is_of(transforms, "torchvision.transforms.v2"):
        return
    if not is_of(transforms, "albumentations"):
        raise DataError(
            f"{type(transforms).__name__} moves no boxes; for detect give those of torchvision.transforms.v2,"
            " or albumentations.Compose(..., bbox_params=...)"
        )
    if box_params(transforms) is None:
        raise DataError(
            "these transforms of albumentations would leave the boxes where they are; give a list of some,"
            " or albumentations.Compose([...], bbox_params=BboxParams('yolo', label_fields=['labels']))"
        )


def box_params(transforms: Any) -> Any:
    """How a composition of albumentations takes boxes; None if it does not."""
    held = (getattr(transforms, "processors", None) or {}).get("bboxes")
    return getattr(held, "params", None)


def is_of(transforms: Any, library: str) -> bool:
    """Whether an object is of a library, or a subclass of what is."""
    return any(f"{cls.__module__}.".startswith(f"{library}.") for cls in type(transforms).__mro__)


def call_albumentations(transforms: Any, image: Tensor, boxes: Boxes) -> tuple[Tensor, Boxes]:
    """An image and its boxes through a composition of albumentations."""
    params = box_params(transforms)
    form = str(params.format)
    if form not in FORMATS:
        raise DataError(f"boxes of the format {form!r} are not known; there are {', '.join(FORMATS)}")
    height, width = image.shape[-2:]
    labels = list(params.label_fields or ())
    given = boxes_as(form, boxes[0], (width, height)).tolist()
    classes = boxes[1].tolist()
    if not labels:
        given = [[*box, number] for box, number in zip(given, classes, strict=True)]
    found = transforms(image=to_array(image), bboxes=given, **dict.fromkeys(labels, classes))
    made = to_bytes(found["image"])
    listed = [list(box) for box in found["bboxes"]]
    rows = torch.tensor(listed, dtype=torch.float) if listed else torch.zeros(0, 5)
    numbers = found[labels[0]] if labels else rows[:, 4]
    wide = made.shape[-1], made.shape[-2]
    return made, (boxes_from(form, rows[:, :4], wide), torch.as_tensor(numbers).float())


def call_torchvision(transforms: Any, image: Tensor, boxes: Boxes) -> tuple[Tensor, Boxes]:
    """An image and its boxes through transforms of torchvision's v2."""
    from torchvision import tv_tensors

    size = image.shape[-2], image.shape[-1]
    held = tv_tensors.BoundingBoxes(boxes[0], format="XYXY", canvas_size=size)
    found, target = transforms(tv_tensors.Image(image), {"boxes": held, "labels": boxes[1]})
    corners = torch.as_tensor(target["boxes"]).float().as_subclass(Tensor)
    if len(corners) != len(target["labels"]):
        raise DataError("transforms give another number of boxes than of labels")
    return to_bytes(found), (corners, torch.as_tensor(target["labels"]).float().as_subclass(Tensor))


def boxes_as(form: str, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Corners in pixels as a format of albumentations; `size`: width and height."""
    near, far = corners[:, :2], corners[:, 2:]
    sides = torch.tensor(size)
    if form == "coco":
        return torch.cat((near, far - near), 1)
    if form == "pascal_voc":
        return corners
    if form == "albumentations":
        return torch.cat((near / sides, far / sides), 1)
    return torch.cat(((near + far) / 2 / sides, (far - near) / sides), 1)


def boxes_from(form: str, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of `boxes_as`."""
    first, second = boxes[:, :2], boxes[:, 2:]
    sides = torch.tensor(size)
    if form == "coco":
        return torch.cat((first, first + second), 1)
    if form == "pascal_voc":
        return boxes
    if form == "albumentations":
        return torch.cat((first * sides, second * sides), 1)
    return torch.cat(((first - second / 2) * sides, (first + second / 2) * sides), 1)


def corners_of(rows: Tensor, image: Tensor) -> Boxes:
    """The boxes of an image of rows (N, 6), within it, in pixels, and their classes."""
    sides = torch.tensor([image.shape[-1], image.shape[-2]])
    middle, half = rows[:, 2:4] * sides, rows[:, 4:6] * sides / 2
    corners = torch.cat((middle - half, middle + half), 1)
    return torch.minimum(corners.clamp_min(0), torch.cat((sides, sides)).float()), rows[:, 1]


def rows_of(number: int, boxes: Boxes, image: Tensor) -> Tensor:
    """Rows (N, 6) of an image's boxes: number, class, x, y, w, h in shares, without what has left it."""
    sides = torch.tensor([image.shape[-1], image.shape[-2]])
    corners = torch.minimum(boxes[0].clamp_min(0), torch.cat((sides, sides)).float())
    seen = ((corners[:, 2:] - corners[:, :2]) > PIXELS).all(1)
    near, far = corners[seen, :2] / sides, corners[seen, 2:] / sides
    first = torch.full((int(seen.sum()), 1), float(number))
    return torch.cat((first, boxes[1][seen, None], (near + far) / 2, far - near), 1)


def to_array(image: Tensor) -> Array:
    """An image (C, H, W) as an array (H, W, C)."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def to_pil(image: Tensor) -> Any:
    """An image (C, H, W) of bytes as a PIL image."""
    from PIL.Image import fromarray

    return fromarray(image[0].numpy()) if len(image) == 1 else fromarray(to_array(image))


def to_bytes(image: Any) -> Tensor:
    """What transforms gave, as uint8 (C, H, W); DataError if it is no image of bytes or of fractions."""
    from PIL.Image import Image

    if isinstance(image, Image | np.ndarray):
        array = np.array(image)
        found = torch.from_numpy(array[..., None] if array.ndim == 2 else array).movedim(-1, 0)
    elif isinstance(image, Tensor):
        found = image.as_subclass(Tensor)
    else:
        raise DataError(f"transforms give a {type(image).__name__}, not an image, an array or a tensor")
    if found.ndim != 3 or not found.numel():
        raise DataError(
            f"transforms give a tensor of the shape {tuple(found.shape)}, not one image (C, H, W)"
        )
    if found.dtype == torch.uint8:
        return found.contiguous()
    low, high = float(found.min()), float(found.max())
    if not found.is_floating_point() or not -SPARE <= low <= high <= 1 + SPARE:
        raise DataError(
            f"transforms give numbers from {low:.4g} to {high:.4g}; give bytes, or fractions from 0 to 1:"
            " leave Normalize out, since images are normalised here, for validation and prediction too"
        )
    return found.mul(255).round_().clamp_(0, 255).to(torch.uint8)


@contextmanager
def naming_errors() -> Iterator[None]:
    """Turn an error of somebody's transforms into one line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # of the user's own code, in any way
        first = (str(error).splitlines() or [""])[0][:200]
        raise DataError(f"transforms fail: {type(error).__name__}: {show(first)}") from error


@contextmanager
def seed_all(transforms: Any, seed: int) -> Iterator[None]:
    """Seed the generators of Python, NumPy and torch, which are put back, and one of the transforms' own."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    own = getattr(transforms, "set_random_seed", None)
    if callable(own):
        own(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])

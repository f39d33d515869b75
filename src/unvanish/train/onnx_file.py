"""Writing a network as ONNX: with what its users need to know in the file, and checked against onnxruntime.

Notable:
- Any number of samples goes through a file; texts and sequences may have any length, if the network can be
  written so; images have one size, or with `dynamic` any that its stride divides.
- Recurrent layers are written without packed sequences, which exporters do not know (`Recurrent.packs`).
- The check runs a second size wherever the file leaves one open.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.lab.tasks import tasks
from unvanish.train.comparing import compare, compare_outputs, list_tensors
from unvanish.train.errors import TrainError
from unvanish.train.loop.step import call

FIXED = "ONNX: the exporter fixes sizes that should stay open"
OPSETS = (18, 23)  # versions of the operators that torch writes
KEY = "unvanish"  # of the whole description, as weights carry it


@dataclass(frozen=True)
class GraphForm:
    """How a file is written: which sizes are open, the version of operators, whether it is simplified."""

    dynamic: bool = False
    opset: int | None = None
    simplify: bool = True

    def __post_init__(self) -> None:
        low, high = OPSETS
        if self.opset is not None and not low <= self.opset <= high:
            raise TrainError(f"opset={self.opset} is not written; it is between {low} and {high}")


class OneInput(nn.Module):
    """A network of one input under the plain signature that exporters need."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x)


class TwoInputs(OneInput):
    """The same with two inputs."""

    def forward(self, source: Tensor, target: Tensor) -> Any:  # type: ignore[override]
        return self.network(source, target)


def require_packages() -> None:
    """TrainError if a package that writes ONNX is missing."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainError(f"export to ONNX needs {' and '.join(missing)}: pip install 'unvanish[export]'")


def write_onnx(
    network: nn.Module, example: tuple[Tensor, ...], path: Path, form: GraphForm, about: Mapping[str, Any]
) -> None:
    """Write the file of a network on the CPU; TrainError if it cannot be written so."""
    require_packages()
    plain = (OneInput if len(example) == 1 else TwoInputs)(network).eval()
    shapes = tuple(open_sides(part, form.dynamic, number) for number, part in enumerate(example))
    settings: dict[str, Any] = {"dynamo": True, "verbose": False, "optimize": form.simplify}
    if form.opset is not None:
        settings["opset_version"] = form.opset
    with warnings.catch_warnings(), _quiet(), _explain(), write_apart(network):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(plain, example, dynamic_shapes=shapes, **settings)
    assert program is not None
    program.model.metadata_props.update(describe_file(about, example))
    program.save(str(path))


def open_sides(part: Tensor, dynamic: bool, number: int) -> dict[int, Any]:
    """The axes of an input that are left open."""
    auto: Any = torch.export.Dim.AUTO
    sides: dict[int, Any] = {0: torch.export.Dim("batch")}
    if part.ndim == 4 and dynamic:
        return sides | {2: auto, 3: auto}
    if part.ndim in (2, 3) and number < 2:
        return sides | {1: auto}
    return sides


@contextlib.contextmanager
def write_apart(network: nn.Module) -> Iterator[None]:
    """Within the block, recurrent layers run without packed sequences."""
    packing: list[Any] = [m for m in network.modules() if getattr(m, "packs", False) is True]
    for module in packing:
        module.packs = False
    try:
        yield
    finally:
        for module in packing:
            module.packs = True


def describe_file(about: Mapping[str, Any], example: Sequence[Tensor]) -> dict[str, str]:
    """What a file says of itself: names, task, imgsz, stride, and the whole description."""
    task = str(about.get("task", ""))
    names = dict(enumerate(about.get("names", ())))
    found = {"names": json.dumps(names), "task": task, KEY: json.dumps(dict(about))}
    if example[0].ndim == 4:
        found["imgsz"] = json.dumps(list(example[0].shape[2:]))
        found["stride"] = str(tasks()[task].stride if task in tasks() else 1)
    return found


def enlarge_example(
    example: tuple[Tensor, ...], held: Sequence[Sequence[Any]], step: int
) -> tuple[Tensor, ...]:
    """An example of other sizes wherever a file's inputs leave them open (`held`: their shapes)."""
    made = []
    for number, (part, shape) in enumerate(zip(example, held, strict=True)):
        other = part
        for axis, side in enumerate(shape):
            if not isinstance(side, int):
                count = part.shape[axis] + (1 if axis == 0 else step + number)
                other = other.index_select(axis, torch.arange(count) % part.shape[axis])
        made.append(other)
    return tuple(made)


@torch.no_grad()
def check_onnx(
    network: nn.Module, example: tuple[Tensor, ...], path: Path, form: GraphForm, close: float
) -> None:
    """TrainError if onnxruntime, where installed, does not say what the network says, at two sizes."""
    if importlib.util.find_spec("onnxruntime") is None:
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    instead = "leave out dynamic" if form.dynamic else "use the weights, or torchscript"
    if form.dynamic and example[0].ndim == 4 and any(isinstance(s, int) for s in inputs[0].shape[2:]):
        raise TrainError("dynamic: this network takes images of one size only; leave it out")

    def run(*x: Tensor) -> tuple[Tensor, ...]:
        fed = {i.name: t.numpy() for i, t in zip(inputs, x, strict=True)}
        try:
            return tuple(torch.from_numpy(out) for out in session.run(None, fed))
        except Exception as error:  # onnxruntime has its own for each kind of failure
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise TrainError(f"onnxruntime cannot run the file: {first[:160]}; {instead}") from error

    def own(*x: Tensor) -> Any:
        return call(network, x if len(x) > 1 else x[0])

    compare(own, example, run, "ONNX", close)
    step = 32 if example[0].ndim == 4 else 3
    other = enlarge_example(example, [i.shape for i in inputs], step)
    try:
        made = run(*other)
    except TrainError as error:  # at the size it was written with it ran
        raise TrainError(f"{FIXED}; {instead}") from error
    expected = list_tensors(own(*other))
    if [t.shape for t in made] != [t.shape for t in expected]:
        raise TrainError(f"{FIXED}; {instead}")
    compare_outputs(expected, made, "ONNX", close)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's log of optional libraries."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _explain() -> Iterator[None]:
    """Turn what torch cannot export into a TrainError of one line."""
    try:
        yield
    except Exception as error:
        cause: Any = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        first = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise TrainError(
            f"torch cannot export this network to ONNX: {first[:160]}; use torchscript"
        ) from error

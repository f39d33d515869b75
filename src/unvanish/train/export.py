"""A trained network as a file that runs elsewhere: ONNX, TorchScript, safetensors.

Notable:
- Every export is run once and compared with the network; an export that differs is an error, not a file.
- ONNX needs the packages onnx and onnxscript; the comparison needs onnxruntime, and is skipped without it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.names import as_file_name
from unvanish.core.plain import name_value
from unvanish.core.registry import suggest
from unvanish.store.files import write_whole
from unvanish.train.arguments import fit_side
from unvanish.train.checkpoint.file import save
from unvanish.train.errors import TrainError
from unvanish.train.learner import Learner, require_network
from unvanish.train.loop.step import call

ENDINGS = {"onnx": ".onnx", "torchscript": ".torchscript", "safetensors": ".safetensors"}
TEXTS = ("sentiment", "language", "translate", "sequence")  # tasks without images
CLOSE = 1e-3  # largest difference that passes, as `measure_difference` measures it


def export(learner: Learner, format: str, path: str | Path | None, imgsz: int | None = None) -> Path:
    """Write the file, for images of `imgsz`, and check it; TrainError if a package lacks or it differs."""
    if not isinstance(format, str) or format not in ENDINGS:
        near = suggest(str(format), ENDINGS)
        raise TrainError(f"there is no format {name_value(format)}{near}; there are {', '.join(ENDINGS)}")
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise TrainError(f"path is {name_value(path)}; it is the path of the file to write")
    network = require_network(learner).cpu()
    target = Path(path) if path is not None else _default_path(learner, ENDINGS[format])
    learner.callbacks.run("on_export_start", learner)
    if format == "safetensors":
        save(target, network.state_dict(), learner.about)
    else:
        example = draw_sample(learner, fit_side(imgsz, learner.task))
        ways: dict[str, Callable[..., None]] = {"onnx": _onnx, "torchscript": _torchscript}
        try:
            with write_whole(target, "export") as partial:
                ways[format](network, example, partial)
        except OSError as error:
            raise TrainError(str(error)) from error
    learner.callbacks.run("on_export_end", learner)
    return target


def _default_path(learner: Learner, ending: str) -> Path:
    best = learner.results.best if learner.results is not None else None
    if (
        best is None
        and isinstance(learner.source, (str, Path))
        and Path(learner.source).suffix == ".safetensors"
    ):
        best = Path(learner.source)
    if best is None:
        return Path(f"{as_file_name(learner.name)}{ending}")
    own = best.with_name(f"{as_file_name(learner.name)}{ending}")
    return best.with_suffix(ending) if ending != ".safetensors" else own


def draw_sample(learner: Learner, side: int | None = None) -> tuple[Tensor, ...]:
    """Two random samples of the shapes that the network was trained on; images of another side if given."""
    facts = learner.about.get("facts", {})
    if side is not None:
        if learner.task in TEXTS:
            raise TrainError(f"imgsz={side}: a network for {learner.task} takes no images; leave it out")
        facts = {**facts, "size": side}
    length = int(facts.get("length", 16))
    generator = torch.Generator().manual_seed(0)

    def ids(name: str) -> Tensor:
        return torch.randint(4, int(facts.get(name, 100)), (2, length), generator=generator)

    if learner.task in ("sentiment", "language"):
        return (ids("vocabulary"),)
    if learner.task == "translate":
        return ids("vocabulary"), ids("target_vocabulary")
    if learner.task == "sequence":
        return (torch.randn(2, length, int(facts.get("features", 1)), generator=generator),)
    size = facts.get("size", 32)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return (torch.randn(2, int(facts.get("channels", 3)), *sides, generator=generator),)


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


def _torchscript(network: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's notes on shapes that become constants
        trace: Any = torch.jit.trace
        program = trace(network, example, check_trace=False)
        torch.jit.save(program, str(path))
        load: Any = torch.jit.load
        loaded = load(str(path))
        _compare(network, example, lambda *x: loaded(*x), "TorchScript")


def _onnx(network: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainError(f"export to ONNX needs {' and '.join(missing)}: pip install 'unvanish[export]'")
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in example)
    plain = (OneInput if len(example) == 1 else TwoInputs)(network).eval()
    with warnings.catch_warnings(), _quiet(), _explain():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(plain, example, dynamic_shapes=shapes, dynamo=True, verbose=False)
    assert program is not None
    program.save(str(path))
    if importlib.util.find_spec("onnxruntime") is None:
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]

    def run(*x: Tensor) -> tuple[Tensor, ...]:
        fed = dict(zip(names, (t.numpy() for t in x), strict=True))
        return tuple(torch.from_numpy(out) for out in session.run(None, fed))

    _compare(network, example, run, "ONNX")


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
        cause = error.__cause__ or error
        first = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise TrainError(
            f"torch cannot export this network to ONNX: {first[:160]}; use torchscript"
        ) from error


@torch.no_grad()
def _compare(network: nn.Module, example: tuple[Tensor, ...], run: Callable[..., Any], name: str) -> None:
    """TrainError if the outputs of a file differ from the network's."""
    own, other = _list_tensors(call(network, example)), _list_tensors(run(*example))
    for expected, found in zip(own, other, strict=True):
        apart = measure_difference(expected, found)
        if not apart <= CLOSE:
            text = f"the {name} export differs from the network by {apart:.2g} of its largest output"
            raise TrainError(text)


def measure_difference(expected: Tensor, found: Tensor) -> float:
    """The largest difference over the largest expected value; of (B, C, N) row by row: pixels, scores."""
    rows = (0, 2) if expected.ndim == 3 else tuple(range(expected.ndim))
    largest = expected.abs().amax(rows, keepdim=True).clamp_min(1e-12)
    return float(((found - expected).abs() / largest).max())


def _list_tensors(output: Any) -> tuple[Tensor, ...]:
    """The tensors of an output that may be one."""
    return (output,) if isinstance(output, Tensor) else tuple(output)

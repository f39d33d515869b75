"""A trained network as a file that runs elsewhere: ONNX, TorchScript, safetensors.

Notable:
- Every export is run once and held against the network; an export that differs is an error, not a file.
- ONNX needs the packages onnx and onnxscript; where onnxruntime is installed, it is what the check runs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unvanish.core.registry import suggest
from unvanish.train.arguments import Arguments
from unvanish.train.checkpoint.file import save
from unvanish.train.errors import TrainError
from unvanish.train.loop.step import called
from unvanish.train.predict.predict import ready

if TYPE_CHECKING:
    from unvanish.train.model import Model

ENDINGS = {"onnx": ".onnx", "torchscript": ".torchscript", "safetensors": ".safetensors"}
CLOSE = 1e-3  # largest difference over the largest output, of (B, C, N) over that of its row


def export(model: Model, format: str, path: str | Path | None, arguments: Arguments) -> Path:
    """Write the file and check it; TrainError says what is missing or differs."""
    if format not in ENDINGS:
        raise TrainError(
            f"there is no format {format!r}{suggest(format, ENDINGS)}; there are {', '.join(ENDINGS)}"
        )
    network = ready(model).cpu()
    target = Path(path) if path is not None else _beside(model, ENDINGS[format])
    model.callbacks.run("on_export_start", model)
    if format == "safetensors":
        save(target, network.state_dict(), model.about)
    else:
        example = sample(model)
        ways: dict[str, Callable[..., None]] = {"onnx": _onnx, "torchscript": _torchscript}
        partial = target.with_name(f"{target.stem}.partial{target.suffix}")
        try:
            ways[format](network, example, partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    model.callbacks.run("on_export_end", model)
    return target


def _beside(model: Model, ending: str) -> Path:
    best = model.results.best if model.results is not None else None
    if best is None and isinstance(model.source, (str, Path)) and Path(model.source).suffix == ".safetensors":
        best = Path(model.source)
    if best is None:
        return Path(f"{model.name}{ending}")
    return best.with_suffix(ending) if ending != ".safetensors" else best.with_name(f"{model.name}{ending}")


def sample(model: Model) -> tuple[Tensor, ...]:
    """Inputs of the shapes the network was trained on, two samples."""
    facts = model.about.get("facts", {})
    length = int(facts.get("length", 16))
    made = torch.Generator().manual_seed(0)

    def ids(name: str) -> Tensor:
        return torch.randint(4, int(facts.get(name, 100)), (2, length), generator=made)

    if model.task in ("sentiment", "language"):
        return (ids("vocabulary"),)
    if model.task == "translate":
        return ids("vocabulary"), ids("target_vocabulary")
    if model.task == "sequence":
        return (torch.randn(2, length, int(facts.get("features", 1)), generator=made),)
    size = facts.get("size", 32)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return (torch.randn(2, int(facts.get("channels", 3)), *sides, generator=made),)


class One(nn.Module):
    """A network of one input under a plain signature, which exporters ask for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x)


class Two(One):
    """The same with two inputs."""

    def forward(self, source: Tensor, target: Tensor) -> Any:  # type: ignore[override]
        return self.network(source, target)


def _torchscript(network: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's notes on shapes that become constants
        trace: Any = torch.jit.trace
        traced = trace(network, example, check_trace=False)
        torch.jit.save(traced, str(path))
        load: Any = torch.jit.load
        loaded = load(str(path))
        _compare(network, example, lambda *x: loaded(*x), "TorchScript")


def _onnx(network: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainError(f"export to ONNX needs {' and '.join(missing)}: pip install 'unvanish[export]'")
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in example)
    plain = (One if len(example) == 1 else Two)(network).eval()
    with warnings.catch_warnings(), _quiet(), _told():
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
    """Without the exporter's log of libraries that nobody asked for."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What torch cannot export, in a line."""
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
    """Refuse a file whose outputs are not the network's."""
    own, made = _several(called(network, example)), _several(run(*example))
    for expected, found in zip(own, made, strict=True):
        apart = difference(expected, found)
        if not apart <= CLOSE:
            text = f"the {name} export differs from the network by {apart:.2g} of its largest output"
            raise TrainError(text)


def difference(expected: Tensor, found: Tensor) -> float:
    """How far apart two outputs are, over the largest; row by row of (B, C, N): pixels stand by scores."""
    rows = (0, 2) if expected.ndim == 3 else tuple(range(expected.ndim))
    largest = expected.abs().amax(rows, keepdim=True).clamp_min(1e-12)
    return float(((found - expected).abs() / largest).max())


def _several(output: Any) -> tuple[Tensor, ...]:
    """The tensors of an output that may be one."""
    return (output,) if isinstance(output, Tensor) else tuple(output)

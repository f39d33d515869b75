"""A trained network as a file that runs elsewhere: ONNX, TorchScript, safetensors.

Notable:
- Every export is run once and compared with the network; an export that differs is an error, not a file.
- ONNX needs the packages onnx and onnxscript; the comparison needs onnxruntime, and is skipped without it.
  OpenVINO's file is made from it by OpenVINO's own converter.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.names import as_file_name
from unvanish.core.plain import name_value
from unvanish.core.registry import suggest
from unvanish.store.files import write_bytes, write_whole
from unvanish.train.arguments import fit_side
from unvanish.train.checkpoint.file import save
from unvanish.train.comparing import CLOSE, HALVED, compare
from unvanish.train.errors import TrainError
from unvanish.train.learner import Learner, require_network
from unvanish.train.loop.step import call
from unvanish.train.onnx_file import GraphForm, check_onnx, write_onnx

ENDINGS = {"onnx": ".onnx", "torchscript": ".torchscript", "safetensors": ".safetensors", "openvino": ".xml"}
TEXTS = ("sentiment", "language", "translate", "sequence")  # tasks without images
ONNX = ("onnx", "openvino")  # formats with a form: sizes, operators


def export(
    learner: Learner, format: str, path: str | Path | None, imgsz: int | None = None, **how: Any
) -> Path:
    """Write the file, for images of `imgsz`, and check it; TrainError if a package lacks or it differs.

    `how`: `half` for float16; of ONNX `dynamic`, `opset`, `simplify`.
    """
    if not isinstance(format, str) or format not in ENDINGS:
        near = suggest(str(format), ENDINGS)
        raise TrainError(f"there is no format {name_value(format)}{near}; there are {', '.join(ENDINGS)}")
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise TrainError(f"path is {name_value(path)}; it is the path of the file to write")
    half, form = read_form(format, how)
    network = require_network(learner).cpu()
    target = Path(path) if path is not None else _default_path(learner, ENDINGS[format])
    learner.callbacks.run("on_export_start", learner)
    if half:
        network = copy.deepcopy(network).half()
    if format == "safetensors":
        if imgsz is not None:
            raise TrainError("imgsz: weights are for any size; leave it out")
        save(target, network.state_dict(), learner.about)
    else:
        example = draw_sample(learner, fit_side(imgsz, learner.task))
        example = tuple(x.half() if half and x.is_floating_point() else x for x in example)
        write(network, example, target, format, form, about_file(learner), HALVED if half else CLOSE)
    learner.callbacks.run("on_export_end", learner)
    return target


def read_form(format: str, how: Mapping[str, Any]) -> tuple[bool, GraphForm]:
    """Whether numbers are float16, and the form of an ONNX file; TrainError for what a format has not."""
    given = {name: value for name, value in how.items() if value is not None}
    for name in ("half", "dynamic", "simplify"):
        if not isinstance(given.get(name, False), bool):
            raise TrainError(f"{name}={name_value(given[name])} is not true or false")
    opset = given.get("opset")
    if opset is not None and (isinstance(opset, bool) or not isinstance(opset, int)):
        raise TrainError(f"opset={name_value(opset)} is not a whole number")
    half = bool(given.pop("half", False))
    if format not in ONNX and any(value for value in given.values()):
        raise TrainError(f"{next(iter(given))} is for ONNX, not for {format}: leave it out")
    return half, GraphForm(**given)


def about_file(learner: Learner) -> dict[str, Any]:
    """The description that a file carries."""
    return {"name": learner.name, "task": learner.task, **learner.about}


def write(
    network: nn.Module,
    example: tuple[Tensor, ...],
    target: Path,
    format: str,
    form: GraphForm,
    about: Any,
    close: float,
) -> None:
    """Write a program's file whole or not at all."""
    try:
        with write_whole(target, "export") as partial:
            if format == "torchscript":
                _torchscript(network, example, partial, close)
                return
            graph = partial if format == "onnx" else partial.with_suffix(".onnx")
            write_onnx(network, example, graph, form, about)
            check_onnx(network, example, graph, form, close)
            if format == "openvino":
                convert_to_openvino(graph, partial, target)
    except OSError as error:
        raise TrainError(str(error)) from error


def convert_to_openvino(graph: Path, partial: Path, target: Path) -> None:
    """Convert an ONNX file by OpenVINO's own converter; its weights lie beside, as NAME.bin."""
    try:
        if importlib.util.find_spec("openvino") is None:
            raise TrainError(
                "export to OpenVINO needs openvino, which is not installed: pip install openvino"
            )
        openvino = importlib.import_module("openvino")
        model = openvino.convert_model(str(graph))
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "net.xml"
            openvino.save_model(model, str(place), compress_to_fp16=False)
            write_bytes(target.with_suffix(".bin"), place.with_suffix(".bin").read_bytes(), "weights")
            shutil.copyfile(place, partial)
    finally:
        graph.unlink(missing_ok=True)


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


def _torchscript(network: nn.Module, example: tuple[Tensor, ...], path: Path, close: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's notes on shapes that become constants
        trace: Any = torch.jit.trace
        program = trace(network, example, check_trace=False)
        torch.jit.save(program, str(path))
        load: Any = torch.jit.load
        loaded = load(str(path))
        compare(
            lambda *x: call(network, x if len(x) > 1 else x[0]),
            example,
            lambda *x: loaded(*x),
            "TorchScript",
            close,
        )

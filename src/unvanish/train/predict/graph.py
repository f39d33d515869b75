"""A network in an ONNX file, run by onnxruntime in the form of a module, so that it predicts as weights do.

Notable:
- The file's description, as weights carry it, says how raw inputs are prepared; without one it is refused.
- A side that the file fixes is filled up with padding, for texts; the answer is cut to what was asked.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unvanish.core.names import show
from unvanish.lab.tokens import BEGIN, END, PAD
from unvanish.train.checkpoint.about import find_fault
from unvanish.train.errors import TrainError
from unvanish.train.onnx_file import KEY

LARGEST = 50_000_000  # letters of a description


class GraphNetwork(nn.Module):
    """The graph of a session: inputs and outputs are tensors on the CPU."""

    def __init__(self, path: Path, session: Any) -> None:
        super().__init__()
        self.path, self.session = path, session
        self.inputs = list(session.get_inputs())

    def forward(self, *given: Tensor) -> Any:
        fed, cut = {}, None
        for held, tensor in zip(self.inputs, given, strict=True):
            x, cut = self._fit(tensor.detach().cpu(), held.shape)
            kind = {"tensor(float16)": np.float16, "tensor(float)": np.float32}.get(held.type, np.int64)
            fed[held.name] = x.numpy().astype(kind)
        found = [torch.from_numpy(out) for out in self.session.run(None, fed)]
        found = [out.float() if out.is_floating_point() else out for out in found]
        if cut is not None and found[0].ndim == 3:
            found[0] = found[0][:, :cut]
        return found[0] if len(found) == 1 else tuple(found)

    def _fit(self, x: Tensor, shape: list[Any]) -> tuple[Tensor, int | None]:
        """An input in the file's shape, and its own length if it was filled up; TrainError if none fits."""
        if all(not isinstance(s, int) or s == n for s, n in zip(shape[1:], x.shape[1:], strict=True)):
            return x, None
        if x.ndim == 2 and isinstance(shape[1], int) and x.shape[1] < shape[1]:
            return nn.functional.pad(x, (0, shape[1] - x.shape[1]), value=PAD), x.shape[1]
        wanted, seen = (" x ".join(str(s) for s in list(sides)[1:]) for sides in (shape, x.shape))
        raise TrainError(
            f"{self.path} takes inputs of {wanted}, not of {seen}; export with imgsz= for others"
        )

    @torch.no_grad()
    def translate(self, source: Tensor, length: int = 50) -> Tensor:
        """The likeliest word at each step, (B, at most `length`); padding after a sentence's end."""
        most = self.inputs[1].shape[1]
        steps = min(length, most) if isinstance(most, int) else length
        words = source.new_full((len(source), 1), BEGIN)
        over = torch.zeros(len(source), dtype=torch.bool)
        for _ in range(steps):
            word = self(source, words)[:, -1].argmax(-1).masked_fill(over, PAD)
            words = torch.cat((words, word[:, None]), 1)
            over = over | (word == END)
            if bool(over.all()):
                break
        return words[:, 1:]


def is_graph(model: Any) -> bool:
    """Whether a model is named by an ONNX file."""
    return isinstance(model, (str, Path)) and Path(model).suffix == ".onnx"


def open_graph(path: str | Path) -> tuple[GraphNetwork, dict[str, Any]]:
    """The network of an ONNX file and its description; TrainError if it cannot be read or has none."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise TrainError(
            f"{path} runs on onnxruntime, which is not installed: pip install 'unvanish[export]'"
        )
    import onnxruntime

    if not Path(path).is_file():
        raise TrainError(f"there is no file {path}")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own for each kind of damage
        first = (str(error).splitlines() or [""])[0][:160]
        raise TrainError(f"{path} is no ONNX file that onnxruntime can run: {show(first)}") from error
    text = session.get_modelmeta().custom_metadata_map.get(KEY, "")
    try:
        about = json.loads(text) if 0 < len(text) < LARGEST else None
    except ValueError:
        about = None
    if not isinstance(about, dict) or not about.get("preparation"):
        raise TrainError(
            f"{path} does not say how inputs are prepared; Model(WEIGHTS).export('onnx') writes files that do"
        )
    fault = find_fault(about)
    if fault:
        raise TrainError(f"{path}: {fault}")
    return GraphNetwork(Path(path), session), about

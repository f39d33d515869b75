"""The public `Model`: a network from YAML, or your own module, and what one does with it.

Notable:
- A network is built when its data is known, because the number of classes and the vocabulary come from there.
- `Model("best.safetensors")` needs nothing else: specification, facts and preparation are in the file.
- After training the model holds the best weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from unvanish.core.diagnosis import Diagnosis
from unvanish.train import errors
from unvanish.train.arguments import Arguments, settle
from unvanish.train.callbacks import Callbacks
from unvanish.train.checkpoint.file import Checkpoint, fill, load
from unvanish.train.errors import TrainError
from unvanish.train.predict.prediction import Prediction
from unvanish.train.report.results import Results

WEIGHTS = (".safetensors", ".pt", ".pth")


class Model:
    """A network by zoo name (`resnet20.yaml`), path of a YAML, saved weights, or an `nn.Module` of yours."""

    def __init__(
        self, model: str | Path | Mapping[str, Any] | nn.Module, task: str | None = None, **changes: Any
    ):
        errors.require()
        self.callbacks = Callbacks()
        self.spec: Any = None
        self.network: nn.Module | None = None
        self.facts: dict[str, Any] = {}
        self.about: dict[str, Any] = {}
        self.results: Results | None = None
        self.source = model
        self._task = task
        self._of(model, changes)

    def _of(self, model: Any, changes: Mapping[str, Any]) -> None:
        if isinstance(model, nn.Module):
            self.network, self.name = model, type(model).__name__.lower()
            return
        if isinstance(model, (str, Path)) and Path(model).suffix in WEIGHTS:
            self._saved(load(model))
            return
        from unvanish.lab.models import read

        self.spec = read(model, **changes)
        self.name = self.spec.name

    def _saved(self, found: Checkpoint) -> None:
        """A model out of a checkpoint of ours."""
        spec = found.about.get("spec")
        if spec is None:
            raise TrainError(
                f"{found.path} holds weights only, not what they are of; build the model and load them:"
                f" Model('NAME.yaml').load({str(found.path)!r})"
            )
        from unvanish.lab.models import read

        self.spec, self.about = read(spec), dict(found.about)
        self.name = self.spec.name
        fill(self.build(**self.about["facts"]), found.tensors, found.path)

    # -- what it is

    @property
    def task(self) -> str:
        """What the network is for."""
        return (
            self._task or self.about.get("task") or (self.spec.task if self.spec is not None else "classify")
        )

    @property
    def names(self) -> list[str]:
        """The classes' names, as far as they are known."""
        return list(self.about.get("names", ()))

    def build(self, **facts: Any) -> nn.Module:
        """The network for such data, built where it is not yet, or where the facts are others."""
        if self.spec is None:
            assert self.network is not None
            return self.network
        if self.network is None or any(self.facts.get(k) != v for k, v in facts.items()):
            from unvanish.lab.models import build

            self.network, self.facts = build(self.spec, **facts), dict(facts)
        return self.network

    def load(self, weights: str | Path, strict: bool = False) -> Model:
        """Load weights by name into the network; those that do not fit (another head) stay as they are."""
        found = load(weights)
        left = fill(self.build(**self.facts), found.tensors, weights, strict)
        if left:
            kept = f"{', '.join(left[:3])}{f' and {len(left) - 3} more' if len(left) > 3 else ''}"
            print(f"unvanish: {weights} fits but for {kept}; these begin anew")
        return self

    def info(self) -> str:
        """Name, task, layers and their parameters, in lines."""
        from unvanish.train.report.summary import described

        return described(self)

    # -- what one does with it

    def train(self, data: Any = None, **arguments: Any) -> Results:
        """Train; the arguments are YOLO users' (`unvanish train --help`). TrainError says what is wrong."""
        from unvanish.train.session import train

        given = {**arguments, **({"data": str(data)} if isinstance(data, (str, Path)) else {})}
        return train(self, self.settled(data, arguments), data, given)

    def val(self, data: Any = None, **arguments: Any) -> Results:
        """Loss and metrics on the validation part of the data, by default that of the training."""
        from unvanish.train.session import val

        return val(self, self.settled(data, arguments), data)

    def predict(
        self, source: Any, stream: bool = False, **arguments: Any
    ) -> list[Prediction] | Iterator[Prediction]:
        """What the network says of files, folders, videos, arrays, texts; `stream`: one by one, lazily."""
        from unvanish.train.predict.predict import predictions

        found = predictions(self, source, self.settled(None, arguments))
        return found if stream else list(found)

    def __call__(self, source: Any, **arguments: Any) -> Any:
        return self.predict(source, **arguments)

    def export(self, format: str = "onnx", path: str | Path | None = None, **arguments: Any) -> Path:
        """Write the network as onnx, torchscript or safetensors; returns the file."""
        from unvanish.train.export import export

        return export(self, format, path, self.settled(None, arguments))

    def check(self, data: Any = None, **arguments: Any) -> Diagnosis:
        """`unvanish.check` on the first training batch, with the task's loss."""
        from unvanish.train.session import examined

        return examined(self, self.settled(data, arguments), data)

    def add_callback(self, event: str, function: Callable[..., Any]) -> None:
        """Call `function(trainer)` at an event; TrainError for an event there is none of."""
        self.callbacks.add(event, function)

    def settled(self, data: Any, arguments: Mapping[str, Any]) -> Arguments:
        """Defaults, the task's own, then what the YAML says under `train:`, then the user's."""
        from unvanish.lab.tasks import tasks

        usual = tasks()[self.task].defaults if self.task in tasks() else {}
        own = {**usual, **(getattr(self.spec, "train", None) or {})}
        named = {"data": str(data)} if isinstance(data, (str, Path)) else {}
        source = self.source if isinstance(self.source, (str, Path)) else type(self.source).__name__
        return settle(own, {"model": str(source)}, named, arguments)

    def __repr__(self) -> str:
        built = (
            ""
            if self.network is None
            else f", {sum(p.numel() for p in self.network.parameters()):,} parameters"
        )
        return f"<Model {self.name} ({self.task}){built}>"


YOLO = Model  # the name that users of detectors type

"""The public `Model`: a network from YAML, or a module of your own, and its verbs.

Notable:
- A network is built when its data is known, because the data gives the number of classes and the vocabulary.
- `Model("best.safetensors")` needs nothing else: specification, facts and preparation are in the file.
- After training the model holds the best weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unvanish.core.diagnosis import Diagnosis
from unvanish.lab.tasks import tasks
from unvanish.train.arguments import Arguments, convert, settle
from unvanish.train.errors import TrainError
from unvanish.train.learner import Learner
from unvanish.train.predict.prediction import Prediction
from unvanish.train.report.results import Results
from unvanish.train.verbs import FILES, FLAGS, find_instead, require_taken, require_task


class Model(Learner):
    """A network by zoo name (`resnet20.yaml`), path of a YAML, saved weights, or an `nn.Module` of yours."""

    def train(self, data: Any = None, transforms: Any = None, **arguments: Any) -> Results:
        """Train; the arguments have the names that YOLO users know (`unvanish train --help`).

        `transforms`: of the training images, in place of the data set's augmentation: a function of an image,
        or those of torchvision or albumentations, which move boxes too.

        TrainError if an argument, the data or the network does not fit.
        """
        from unvanish.train.session import train

        require_taken("train", arguments)
        self._require_weights("train")
        settled = self.settle(data, arguments)
        require_task("train", self.task, arguments)
        given = {**arguments, **({"data": str(data)} if isinstance(data, (str, Path)) else {})}
        return train(self, settled, data, given, transforms)

    def val(self, data: Any = None, **arguments: Any) -> Results:
        """Loss and metrics on the validation part of the data, by default the data it was trained on."""
        from unvanish.train.session import val

        require_taken("val", arguments)
        self._require_weights("val")
        require_task("val", self.task, arguments)
        return val(self, self.settle(data, arguments), data)

    def predict(
        self, source: Any, stream: bool = False, **arguments: Any
    ) -> list[Prediction] | Iterator[Prediction]:
        """Predictions for files, folders, videos, arrays or texts; with `stream` one by one, lazily.

        `batch` pictures go through the network at once, by default one. `classes`: only objects of these.
        `augment`: what is found in several views of a picture, joined. `save`, `save_txt`, `save_conf`,
        `save_crop` write pictures, label files and cut-out objects into `project`/`name`, by default
        runs/<task>/predict; `show` shows the pictures.
        """
        from unvanish.train.predict.keeping import Keeping
        from unvanish.train.predict.predict import predict

        require_taken("predict", arguments)
        pictures = self.about.get("preparation", {}).get("input") in ("image", "letterbox")
        require_task("predict", self.task, arguments, pictures or self.network is None)
        keeping = Keeping.of(arguments, self.names)
        settings = {k: v for k, v in arguments.items() if k not in (*FLAGS, "classes")}
        found = predict(self, source, self.settle(None, {"batch": 1, **settings}), keeping)
        return found if stream else list(found)

    def __call__(self, source: Any, **arguments: Any) -> Any:
        return self.predict(source, **arguments)

    def export(self, format: str = "onnx", path: str | Path | None = None, **arguments: Any) -> Path:
        """Write the network as onnx, torchscript, openvino or safetensors; returns the file.

        `imgsz`: the side of images; `half`: in float16; for ONNX `dynamic`: images of any size, `opset`: the
        version of its operators, `simplify=False`: as traced.
        """
        from unvanish.train.export import export

        require_taken("export", arguments)
        self._require_weights("export")
        how = {name.replace("-", "_"): value for name, value in arguments.items()}
        own = {name: how.pop(name) for name in FILES if name in how}
        return export(self, format, path, self.settle(None, how).imgsz, **own)

    def check(self, data: Any = None, **arguments: Any) -> Diagnosis:
        """`unvanish.check` on the first training batch, with the task's loss."""
        from unvanish.train.session import examine

        require_taken("check", arguments)
        self._require_weights("check")
        require_task("check", self.task, arguments)
        return examine(self, self.settle(data, arguments), data)

    def _require_weights(self, verb: str) -> None:
        """TrainError if the network is a file that only predicts."""
        if self.loaded.endswith(".onnx"):
            raise TrainError(
                f"{self.loaded} only predicts; {verb} takes the weights that it was exported from"
            )

    def info(self) -> str:
        """Name, task, layers and their parameters, in lines."""
        from unvanish.train.report.summary import describe

        return describe(self)

    def add_callback(self, event: str, function: Callable[..., Any]) -> None:
        """Call `function(trainer)` at an event; TrainError if the event is unknown."""
        self.callbacks.add(event, function)

    def settle(self, data: Any, arguments: Mapping[str, Any]) -> Arguments:
        """The arguments: the user's, over `train:` of the YAML, over the task's defaults."""
        usual = tasks()[self.task].defaults if self.task in tasks() else {}
        own = {**usual, **(getattr(self.spec, "train", None) or {})}
        self._settle_task(arguments)
        named = {"data": str(data)} if isinstance(data, (str, Path)) else {}
        source = self.source if isinstance(self.source, (str, Path)) else type(self.source).__name__
        return settle(own, {"model": str(source)}, named, arguments)

    def _settle_task(self, arguments: Mapping[str, Any]) -> None:
        """A module of one's own takes the task of the call; TrainError if a network is for another."""
        wanted = convert("task", arguments.get("task"))
        if wanted is None or wanted == self.task:
            return
        if self.spec is not None or self._task is not None:
            raise TrainError(f"task={wanted}: {self.name} is for {self.task}; leave it out")
        self._task = wanted

    def __getattr__(self, name: str) -> Any:
        near = find_instead(name)
        raise AttributeError(f"Model has no {name!r}" + (f": {near}" if near else ""))

    def __repr__(self) -> str:
        built = (
            ""
            if self.network is None
            else f", {sum(p.numel() for p in self.network.parameters()):,} parameters"
        )
        return f"<Model {self.name} ({self.task}){built}>"


YOLO = Model  # the name that users of detectors type

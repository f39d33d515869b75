"""What a trained network says of things it is given: files, folders, videos, arrays, tensors, texts.

Notable: how a raw thing becomes an input (size, mean, vocabulary) was written into the checkpoint when it was
trained, so predicting needs no data set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unvanish.lab.data.problems import DataError
from unvanish.train.arguments import Arguments
from unvanish.train.errors import TrainError
from unvanish.train.loop import devices
from unvanish.train.loop.step import called
from unvanish.train.predict.detector import found
from unvanish.train.predict.prediction import Prediction

if TYPE_CHECKING:
    from unvanish.train.model import Model

BEGIN, LONGEST = 1, 200  # tokens of an answer, at most


def predictions(model: Model, source: Any, arguments: Arguments) -> Iterator[Prediction]:
    """One prediction after the other; TrainError where the model does not know how to read the source."""
    made = devices.accelerator(arguments)
    network = ready(model).to(made.device)
    model.callbacks.run("on_predict_start", model)
    try:
        if model.about.get("preparation", {}).get("input") == "letterbox":
            yield from found(model, network, made, source, arguments)
        else:
            for origin, x in read(model, source):
                started = time.perf_counter()
                yield answered(model, network, origin, devices.moved(made, x), started)
    except DataError as error:
        raise TrainError(str(error)) from error
    model.callbacks.run("on_predict_end", model)


def ready(model: Model) -> nn.Module:
    """The model's network in evaluation mode; TrainError where it was never built."""
    if model.network is None:
        raise TrainError(
            f"{model.name} has no weights yet; train it, or load some: Model('best.safetensors')"
        )
    return model.network.eval()


def read(model: Model, source: Any) -> Iterator[tuple[str, Any]]:
    """Origins and inputs of a batch of one; a tensor that has the batch's dimensions is taken as it is."""
    preparation = model.about.get("preparation")
    if not preparation:
        if not isinstance(source, Tensor):
            raise TrainError(
                "the model knows no preparation of raw data, as it was trained on loaders of your own; give a"
                " tensor"
            )
        yield from ((f"sample {i}", source[i : i + 1]) for i in range(len(source)))
        return
    from unvanish.lab.data import inputs

    yield from inputs(preparation, source)


@torch.no_grad()
def answered(model: Model, network: nn.Module, origin: str, x: Any, started: float) -> Prediction:
    """The network's answer to one input."""
    answer: Callable[..., Mapping[str, Any]] = ANSWERS.get(model.task, _plain)
    found = answer(model, network, x)
    speed = 1e3 * (time.perf_counter() - started)
    return Prediction(origin, model.task, names=tuple(model.names), speed=speed, **found)


def _plain(model: Model, network: nn.Module, x: Any) -> dict[str, Any]:
    output = called(network, x)[0].float().cpu()
    classes = "classes" in model.about.get("facts", {}) and output.ndim == 1
    return {"output": output, "probs": output.softmax(-1) if classes else None}


def _classes(model: Model, network: nn.Module, x: Any) -> dict[str, Any]:
    output = called(network, x)[0].float().cpu()
    return {"output": output, "probs": output.softmax(-1)}


def _translated(model: Model, network: Any, x: Any) -> dict[str, Any]:
    source = x[0] if isinstance(x, (tuple, list)) else x
    ids = network.translate(source, min(LONGEST, 2 * source.shape[1] + 10))[0].cpu()
    return {"output": ids, "text": _text(model, ids)}


def _continued(model: Model, network: nn.Module, x: Any) -> dict[str, Any]:
    """The most probable next tokens, as many as the model was trained on at once."""
    length = int(model.about.get("facts", {}).get("length", 64))
    given, ids = x.shape[1], x
    for _ in range(min(LONGEST, length)):
        following = network(ids[:, -length:])[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, following], 1)
    made = ids[0, given:].cpu()
    return {"output": made, "text": _text(model, made)}


def _text(model: Model, ids: Tensor) -> str:
    from unvanish.lab.data import decode

    return str(decode(model.about["preparation"], ids.tolist()))


ANSWERS: dict[str, Any] = {
    "classify": _classes,
    "sentiment": _classes,
    "translate": _translated,
    "language": _continued,
}

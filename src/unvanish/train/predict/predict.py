"""Predictions of a trained network for files, folders, videos, arrays, tensors and texts.

Notable: the checkpoint says how a raw input is prepared (size, mean, vocabulary), so no data set is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.lab.data import decode, inputs
from unvanish.lab.data.problems import DataError
from unvanish.train.arguments import Arguments
from unvanish.train.errors import TrainError
from unvanish.train.learner import Learner, network_errors, require_network
from unvanish.train.loop import devices
from unvanish.train.loop.step import call
from unvanish.train.predict.detector import detect
from unvanish.train.predict.keeping import Keeping, make_shelf
from unvanish.train.predict.prediction import Prediction

LONGEST = 200  # tokens of an answer, at most


def predict(learner: Learner, source: Any, arguments: Arguments, keeping: Keeping) -> Iterator[Prediction]:
    """One prediction after the other, as `keeping` says; TrainError if the source cannot be read."""
    accelerator = devices.build_accelerator(arguments)
    network = require_network(learner).to(accelerator.device)
    learner.callbacks.run("on_predict_start", learner)
    shelf = make_shelf(keeping, arguments, learner.task)
    try:
        for made in _predict_all(learner, network, accelerator, source, arguments):
            found = keeping.keep(made)
            if shelf is not None:
                shelf.put(found)
            yield found
    except DataError as error:
        raise TrainError(str(error)) from error
    if shelf is not None:
        print(f"unvanish: {shelf.taken.total():,} predictions written to {shelf.folder}")
    learner.callbacks.run("on_predict_end", learner)


def _predict_all(
    learner: Learner, network: nn.Module, accelerator: Any, source: Any, arguments: Arguments
) -> Iterator[Prediction]:
    if learner.about.get("preparation", {}).get("input") == "letterbox":
        with network_errors(learner, "detect objects"):
            yield from detect(learner, network, accelerator, source, arguments)
        return
    for origin, x in read(learner, source, arguments):
        started = time.perf_counter()
        with network_errors(learner, f"read {origin}"):
            found = answer(learner, network, origin, devices.to_device(accelerator, x), started)
        yield found


def read(learner: Learner, source: Any, arguments: Arguments) -> Iterator[tuple[str, Any]]:
    """Origins and inputs, each a batch of one; without a known preparation, the rows of a tensor."""
    preparation = learner.about.get("preparation") or {}
    if arguments.imgsz is not None and preparation.get("input") != "image":
        raise TrainError(f"imgsz={arguments.imgsz}: {learner.name} takes no images; leave it out")
    if not preparation:
        if not isinstance(source, Tensor):
            raise TrainError(
                "the model knows no preparation of raw data, as it was trained on loaders of your own; give a"
                " tensor"
            )
        yield from ((f"sample {i}", source[i : i + 1]) for i in range(len(source)))
        return
    size = {} if arguments.imgsz is None else {"size": arguments.imgsz}
    yield from inputs({**preparation, **size}, source, arguments.rgb)


@torch.no_grad()
def answer(learner: Learner, network: nn.Module, origin: str, x: Any, started: float) -> Prediction:
    """The network's answer to one input; `started` as by `time.perf_counter`."""
    ask: Callable[..., Mapping[str, Any]] = ANSWERS.get(learner.task, _answer_plainly)
    found = ask(learner, network, x)
    speed = 1e3 * (time.perf_counter() - started)
    return Prediction(origin, learner.task, names=tuple(learner.names), speed=speed, **found)


def _answer_plainly(learner: Learner, network: nn.Module, x: Any) -> dict[str, Any]:
    output = call(network, x)[0].float().cpu()
    classes = "classes" in learner.about.get("facts", {}) and output.ndim == 1
    return {"output": output, "probs": output.softmax(-1) if classes else None}


def _classify(learner: Learner, network: nn.Module, x: Any) -> dict[str, Any]:
    output = call(network, x)[0].float().cpu()
    return {"output": output, "probs": output.softmax(-1)}


def _translate(learner: Learner, network: Any, x: Any) -> dict[str, Any]:
    source = x[0] if isinstance(x, (tuple, list)) else x
    ids = network.translate(source, min(LONGEST, 2 * source.shape[1] + 10))[0].cpu()
    return {"output": ids, "text": _decode(learner, ids)}


def _continue(learner: Learner, network: nn.Module, x: Any) -> dict[str, Any]:
    """The most probable next tokens, as many as a sample of the training had."""
    length = int(learner.about.get("facts", {}).get("length", 64))
    given, ids = x.shape[1], x
    for _ in range(min(LONGEST, length)):
        following = network(ids[:, -length:])[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, following], 1)
    following = ids[0, given:].cpu()
    return {"output": following, "text": _decode(learner, following)}


def _decode(learner: Learner, ids: Tensor) -> str:
    return str(decode(learner.about["preparation"], ids.tolist()))


ANSWERS: dict[str, Any] = {
    "classify": _classify,
    "sentiment": _classify,
    "translate": _translate,
    "language": _continue,
}

"""Predictions of a trained network for files, folders, videos, arrays, tensors and texts.

Notable: the checkpoint says how a raw input is prepared (size, mean, vocabulary), so no data set is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.lab.data import decode, inputs
from unvanish.lab.data.inputs import read_views
from unvanish.lab.data.problems import DataError
from unvanish.train.arguments import Arguments
from unvanish.train.errors import TrainError
from unvanish.train.learner import Learner, network_errors, require_network
from unvanish.train.loop import devices
from unvanish.train.loop.step import call
from unvanish.train.predict.detector import detect
from unvanish.train.predict.keeping import Keeping, make_shelf
from unvanish.train.predict.prediction import Prediction
from unvanish.train.predict.probs import Probs
from unvanish.train.predict.timing import Timer, in_batches

LONGEST = 200  # tokens of an answer, at most


def predict(learner: Learner, source: Any, arguments: Arguments, keeping: Keeping) -> Iterator[Prediction]:
    """One prediction after the other, as `keeping` says; TrainError if the source cannot be read."""
    if isinstance(source, int) or (isinstance(source, str) and source.isdigit()):
        raise TrainError(f"source={source}: a camera is not opened; give an iterator of its frames")
    accelerator = devices.build_accelerator(arguments)
    network = require_network(learner).to(accelerator.device)
    learner.callbacks.run("on_predict_start", learner)
    shelf = make_shelf(keeping, arguments, learner.task)
    try:
        for found in _predict_all(learner, network, accelerator, source, arguments, keeping):
            if shelf is not None:
                shelf.put(found)
            if keeping.show:
                found.show()
            yield found
    except DataError as error:
        raise TrainError(str(error)) from error
    if shelf is not None:
        print(f"unvanish: {shelf.taken.total():,} predictions written to {shelf.folder}")
    learner.callbacks.run("on_predict_end", learner)


def _predict_all(
    learner: Learner,
    network: nn.Module,
    accelerator: Any,
    source: Any,
    arguments: Arguments,
    keeping: Keeping,
) -> Iterator[Prediction]:
    kind = learner.about.get("preparation", {}).get("input")
    if kind == "letterbox":
        with network_errors(learner, "detect objects"):
            yield from detect(learner, network, accelerator, source, arguments, keeping)
        return
    if kind == "image":
        with network_errors(learner, "classify pictures"):
            yield from classify(learner, network, accelerator, source, arguments, keeping)
        return
    timer = Timer()
    for origin, x in read(learner, source, arguments):
        timer.mark("preprocess")
        with network_errors(learner, f"read {origin}"):
            found = answer(learner, network, devices.to_device(accelerator, x))
        timer.mark("inference")
        yield Prediction(origin, learner.task, names=tuple(learner.names), speed=timer.share(1), **found)
        timer.begin()


def classify(
    learner: Learner,
    network: nn.Module,
    accelerator: Any,
    source: Any,
    arguments: Arguments,
    keeping: Keeping,
) -> Iterator[Prediction]:
    """The classes of each picture of a source, a batch at a time."""
    size = {} if arguments.imgsz is None else {"size": arguments.imgsz}
    preparation, timer = {**learner.about["preparation"], **size}, Timer()
    for group in in_batches(read_views(preparation, source, arguments.rgb), arguments.batch):
        x = devices.to_device(accelerator, torch.cat([one for _, _, one in group]))
        timer.mark("preprocess")
        with torch.no_grad():
            output = call(network, x).float().cpu()
            probs = output.softmax(-1)
            if keeping.augment:  # the mean over the picture and its mirror image
                probs = (probs + call(network, x.flip(-1)).float().cpu().softmax(-1)) / 2
                output = probs.log()
        timer.mark("inference")
        speed = timer.share(len(group))
        for number, (origin, image, _) in enumerate(group):
            more: dict[str, Any] = {"probs": Probs(probs[number]), "image": image, "speed": speed}
            yield Prediction(origin, learner.task, output[number], tuple(learner.names), **more)
        timer.begin()


def read(learner: Learner, source: Any, arguments: Arguments) -> Iterator[tuple[str, Any]]:
    """Origins and inputs, each a batch of one; without a known preparation, the rows of a tensor."""
    preparation = learner.about.get("preparation") or {}
    if not preparation:
        if not isinstance(source, Tensor):
            raise TrainError(
                "the model knows no preparation of raw data, as it was trained on loaders of your own; give a"
                " tensor"
            )
        yield from ((f"sample {i}", source[i : i + 1]) for i in range(len(source)))
        return
    yield from inputs(preparation, source)


@torch.no_grad()
def answer(learner: Learner, network: nn.Module, x: Any) -> Mapping[str, Any]:
    """The network's answer to one input that is no picture."""
    ask: Callable[..., Mapping[str, Any]] = ANSWERS.get(learner.task, _answer_plainly)
    return ask(learner, network, x)


def _answer_plainly(learner: Learner, network: nn.Module, x: Any) -> dict[str, Any]:
    output = call(network, x)[0].float().cpu()
    classes = "classes" in learner.about.get("facts", {}) and output.ndim == 1
    return {"output": output, "probs": Probs(output.softmax(-1)) if classes else None}


def _classify(learner: Learner, network: nn.Module, x: Any) -> dict[str, Any]:
    output = call(network, x)[0].float().cpu()
    return {"output": output, "probs": Probs(output.softmax(-1))}


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

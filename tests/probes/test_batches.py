"""Whatever a loader yields is read as what forward and loss take, which is said; else it is refused."""

from __future__ import annotations

from collections import UserDict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import unvanish
from unvanish.probes import CheckError, ModelCrash
from unvanish.probes.batches import read_batch

N = 20


class One(nn.Module):
    """x alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Two(One):
    """Two inputs, of which the second is a number for each sample."""

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.body(x * scale[:, None])


class Masked(One):
    """One input, and a mask that may be left out."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.body(x if mask is None else x * mask)


class Labelled(One):
    """As Hugging Face's models: labels in, a loss out."""

    def forward(self, x: Tensor, mask: Tensor | None = None, labels: Tensor | None = None) -> Any:
        scores = self.body(x if mask is None else x * mask)
        loss = None if labels is None else F.cross_entropy(scores, labels)
        return {"logits": scores, "loss": loss}


class Whole(One):
    """A single argument that holds everything."""

    def forward(self, batch: Any) -> Tensor:
        return self.body(batch["x"] if isinstance(batch, (dict, UserDict)) else batch.x)


class Convolution(One):
    """A graph convolution: nodes, edges and, for the readout, the graph of each node."""

    def forward(
        self, x: Tensor, edge_index: Tensor, batch: Tensor, edge_weight: Tensor | None = None
    ) -> Tensor:
        sent = x[edge_index[0]] if edge_weight is None else x[edge_index[0]] * edge_weight[:, None]
        h = x.index_add(0, edge_index[1], sent)
        return self.body(torch.zeros(N, 5).index_add(0, batch, h))


class Anything(One):
    """A wrapper that takes all."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.body(args[0].x if args else kwargs["x"])


class Concat(One):
    """A list of tensors."""

    def forward(self, parts: list[Tensor]) -> Tensor:
        return self.body(sum(parts))


class Detector(One):
    """As torchvision's: a list of images of any size, and a list of records."""

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor]:
        assert targets is not None
        parts = zip(images, targets, strict=True)
        return {"loss": torch.stack([CE(self.body(i), t["labels"]) for i, t in parts]).mean()}


class Answered(One):
    """As small language models: targets may be given."""

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
        scores = self.body(x)
        return scores if targets is None else {"loss": CE(scores, targets)}


class Pairs(One):
    """As a sentence transformer's losses: features of both sentences, and labels."""

    def forward(self, features: list[dict[str, Tensor]], labels: Tensor) -> dict[str, Tensor]:
        a, b = (self.body(f["input"]) for f in features)
        return {"loss": F.mse_loss(F.cosine_similarity(a, b), labels)}


@dataclass
class Record:
    x: Tensor
    y: Tensor
    name: str = "a record"


@dataclass(frozen=True, slots=True)
class Sample:
    x: Tensor
    scale: Tensor
    target: Tensor


Triple = namedtuple("Triple", ["x", "mask", "labels"])
Named = namedtuple("Named", ["scale", "x"])


class Graphs:
    """As PyG's data: a store behind the attributes, keys, items, iteration, calls."""

    def __init__(self, **named: Any) -> None:
        self.__dict__["_store"] = named

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.__dict__["_store"]:
            raise AttributeError(name)
        return self.__dict__["_store"][name]

    def keys(self) -> list[str]:
        return list(self.__dict__["_store"])

    def __getitem__(self, name: str) -> Any:
        return self.__dict__["_store"][name]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__dict__["_store"].items())

    def __call__(self, *names: str) -> Iterator[Any]:
        return iter(self)


class Slotted:
    __slots__ = ("label", "x")

    def __init__(self, x: Tensor, label: Tensor) -> None:
        self.x, self.label = x, label


x, y, scale = torch.randn(N, 5), torch.randint(0, 3, (N,)), torch.rand(N)
mask, weight = torch.ones(N, 5), torch.rand(N)
CE = nn.CrossEntropyLoss()


def weighted(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    return (F.cross_entropy(output, target, reduction="none") * weights).mean()


def squared(output: Tensor) -> Tensor:
    return output.square().mean()


def make_graphs() -> Graphs:
    nodes = torch.randn(2 * N, 5)
    edges = torch.randint(0, 2 * N, (2, 60))
    return Graphs(x=nodes, edge_index=edges, y=y, batch=torch.arange(2 * N) // 2, ptr=torch.arange(N + 1))


Expected = Callable[[nn.Module], Tensor]
KINDS: dict[str, tuple[Callable[[], nn.Module], Any, Any, Expected]] = {
    "tensor": (One, x, squared, lambda m: squared(m(x))),
    "pair": (One, (x, y), CE, lambda m: CE(m(x), y)),
    "list of two": (One, [x, y], CE, lambda m: CE(m(x), y)),
    "triple": (Two, (x, scale, y), CE, lambda m: CE(m(x, scale), y)),
    "list of three": (Two, [x, scale, y], CE, lambda m: CE(m(x, scale), y)),
    "triple with a mask": (Masked, (x, mask, y), CE, lambda m: CE(m(x, mask), y)),
    "two targets": (One, (x, y, weight), weighted, lambda m: weighted(m(x), y, weight)),
    "two of each": (Two, (x, scale, y, weight), weighted, lambda m: weighted(m(x, scale), y, weight)),
    "inputs alone": (Two, (x, scale), squared, lambda m: squared(m(x, scale))),
    "labels in the forward": (Labelled, (x, mask, y), None, lambda m: m(x, mask, y)["loss"]),
    "keywords": (Two, {"x": x, "scale": scale}, squared, lambda m: squared(m(x, scale))),
    "collated": (Labelled, {"x": x, "labels": y}, None, lambda m: m(x, labels=y)["loss"]),
    "user's dict": (Labelled, UserDict(x=x, labels=y), None, lambda m: m(x, labels=y)["loss"]),
    "labels to the loss": (Two, {"x": x, "scale": scale, "labels": y}, CE, lambda m: CE(m(x, scale), y)),
    "other names": (One, {"image": x, "label": y, "path": ["a"] * N}, CE, lambda m: CE(m(x), y)),
    "unused columns": (One, {"x": x, "y": y, "index": torch.arange(N)}, CE, lambda m: CE(m(x), y)),
    "nested": (Two, {"inputs": {"x": x, "scale": scale}, "target": y}, CE, lambda m: CE(m(x, scale), y)),
    "nested and whole": (Whole, ({"x": x, "z": scale}, y), CE, lambda m: CE(m({"x": x}), y)),
    "whole dict": (Whole, {"x": x, "z": scale, "y": y}, CE, lambda m: CE(m({"x": x}), y)),
    "dataclass": (One, Record(x, y), CE, lambda m: CE(m(x), y)),
    "frozen dataclass with slots": (Two, Sample(x, scale, y), CE, lambda m: CE(m(x, scale), y)),
    "any arguments": (Anything, Record(x, y), CE, lambda m: CE(m(Record(x, y)), y)),
    "any keywords": (Anything, {"x": x, "z": y}, squared, lambda m: squared(m(x=x))),
    "whole dataclass": (Whole, Record(x, y), CE, lambda m: CE(m(Record(x, y)), y)),
    "named tuple": (Labelled, Triple(x, mask, y), None, lambda m: m(x, mask, y)["loss"]),
    "named tuple to a loss": (Masked, Triple(x, mask, y), CE, lambda m: CE(m(x, mask), y)),
    "named in another order": (Two, Named(scale, x), None, lambda m: m(x, scale)),
    "namespace": (Two, SimpleNamespace(x=x, scale=scale, y=y), CE, lambda m: CE(m(x, scale), y)),
    "slots": (One, Slotted(x, y), CE, lambda m: CE(m(x), y)),
    "arrays": (One, (x.numpy(), y.numpy()), CE, lambda m: CE(m(x), y)),
    "arrays of float64": (One, (x.double().numpy(), y.numpy()), CE, lambda m: CE(m(x), y)),
    "arrays by name": (Two, {"x": x.numpy(), "scale": scale.numpy(), "y": y.numpy()}, CE,
                       lambda m: CE(m(x, scale), y)),
    "arrays in a dataclass": (One, Record(x.numpy(), y.numpy()), CE, lambda m: CE(m(x), y)),  # type: ignore[arg-type]
    "list of tensors": (Concat, [x, x, x], squared, lambda m: squared(m([x, x, x]))),
    "list of tensors and a target": (Concat, ([x, x, x], y), CE, lambda m: CE(m([x, x, x]), y)),
    "features": (Pairs, ([{"input": x}, {"input": mask}], scale), None,
                 lambda m: m([{"input": x}, {"input": mask}], scale)["loss"]),
    "detection": (Detector, ([x[:3], x[3:]], [{"labels": y[:3]}, {"labels": y[3:]}]), None,
                  lambda m: m([x[:3], x[3:]], [{"labels": y[:3]}, {"labels": y[3:]}])["loss"]),
    "an answer that is not given": (Answered, (x, y), None, lambda m: m(x)),
    "an answer by name": (Answered, {"x": x, "targets": y}, None, lambda m: m(x, y)["loss"]),
    "arrays of another byte order": (One, (x.numpy().astype(">f4"), y.numpy()), CE, lambda m: CE(m(x), y)),
    "texts at the end": (One, (x, y, ["a"] * N), CE, lambda m: CE(m(x), y)),
    "list of batches": (One, [(x, y), (mask, y), (mask, y)], CE, lambda m: CE(m(x), y)),
    "list of one batch": (One, [(x, y)], CE, lambda m: CE(m(x), y)),
    "list of two batches": (One, [(x, y), (mask, y)], CE, lambda m: CE(m(x), y)),
    "list of dicts": (Labelled, [{"x": x, "labels": y}] * 3, None, lambda m: m(x, labels=y)["loss"]),
    "loader": (One, DataLoader(TensorDataset(x, y), N), CE, lambda m: CE(m(x), y)),
    "loader of triples": (Two, DataLoader(TensorDataset(x, scale, y), N), CE, lambda m: CE(m(x, scale), y)),
}  # fmt: skip
SILENT = ("tensor", "pair", "list of two", "inputs alone", "keywords", "collated", "user's dict")
SILENT += ("an answer by name", "any keywords")


def _say(found: unvanish.Diagnosis) -> str:
    return "; ".join(found.trace.facts["assumptions"])


def _build(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_read_as_the_program_would(kind: str) -> None:
    make, batch, loss, expected = KINDS[kind]
    model = _build(make)
    found = unvanish.check(model, batch, loss, confirm=False, theory=False)
    with torch.no_grad():
        wanted = expected(model)
    if wanted.ndim == 0:
        assert found.trace.facts["loss"] == pytest.approx(float(wanted), rel=1e-6)
    else:
        assert found.trace.facts["objective"] == "random cotangent"
    assert not found.unmeasured
    said = [s for s in found.trace.facts["assumptions"] if "no loss was given" not in s]
    assert bool(said) == (kind not in SILENT), said


@pytest.mark.parametrize("kind", KINDS)
def test_reading_again_what_was_read_changes_nothing(kind: str) -> None:
    make, batch, loss, _ = KINDS[kind]
    model = _build(make)
    once = read_batch(model, batch, loss)
    twice = read_batch(model, once.batch, loss)
    assert type(twice.batch) is type(once.batch) and repr(twice.batch) == repr(once.batch)


def test_the_usual_batches_are_passed_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("a signature was read")

    monkeypatch.setattr("unvanish.probes.batches.read_forward", refuse)
    for batch in ((x, y), [x, y], x):
        assert read_batch(One(), batch, squared if batch is x else CE).batch is batch


def test_graph_data_is_bound_by_name() -> None:
    graphs, model = make_graphs(), _build(Convolution)
    found = unvanish.check(model, graphs, CE, confirm=False)
    with torch.no_grad():
        wanted = CE(model(graphs.x, graphs.edge_index, graphs.batch), graphs.y)
    assert found.trace.facts["loss"] == pytest.approx(float(wanted))
    assert "ptr was not passed" in _say(found) and "x, edge_index, batch" in _say(found)


def test_graph_data_is_passed_whole_to_one_argument() -> None:
    graphs, model = make_graphs(), _build(Whole)
    graphs._store["y"] = torch.randint(0, 3, (2 * N,))
    found = unvanish.check(model, graphs, CE, confirm=False)
    assert found.trace.facts["loss"] == pytest.approx(float(CE(model(graphs), graphs.y).detach()))
    assert "passed whole" in _say(found)
    assert unvanish.check(model, graphs, squared).trace.facts["objective"] == "loss"


def test_what_an_object_computes_is_found_by_name() -> None:
    class Hetero(Graphs):
        @property
        def x_dict(self) -> dict[str, Tensor]:
            return {"paper": self.paper}

    class Typed(One):
        def forward(self, x_dict: dict[str, Tensor]) -> Tensor:
            return self.body(x_dict["paper"])

    found = unvanish.check(_build(Typed), Hetero(paper=x, y=y), CE)
    assert found.trace.facts["loss"] == pytest.approx(float(CE(_build(Typed)({"paper": x}), y).detach()))


def test_arrays_are_not_shared_and_float64_is_said() -> None:
    class Writing(One):
        def forward(self, x: Tensor) -> Tensor:
            return self.body(x.detach().mul_(2))

    array = np.ones((N, 5))
    array.setflags(write=False)
    found = unvanish.check(Writing(), (array[::-1], y.numpy()), CE)
    assert (array == 1).all() and "float64 of its arrays became float32" in _say(found)
    wide = unvanish.check(One().double(), (np.ones((N, 5)), y.numpy()), CE)
    assert "became" not in _say(wide)
    with pytest.raises(CheckError, match="not of numbers"):
        unvanish.check(One(), (np.array(["a", "b"]), y), CE)


class Endless:
    """A loader of one's own, that holds its data."""

    def __init__(self) -> None:
        self.x, self.y, self.drawn = x, y, 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.drawn += 1
            yield self.x, self.y


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        return iter([(x, y)])


@pytest.mark.parametrize(
    "make", [Endless, Stream, lambda: iter([(x, y)] * 3), lambda: ((x, y) for _ in "abc")]
)
def test_the_first_batch_of_anything_that_yields_is_taken(make: Callable[[], Any]) -> None:
    loader = make()
    found = unvanish.check(_build(One), loader, CE)
    assert found.trace.facts["loss"] == pytest.approx(float(CE(_build(One)(x), y).detach()))
    assert "the first batch of the" in _say(found)
    assert ("moved on" in _say(found)) == isinstance(loader, Iterator)


def test_a_table_of_samples_is_no_loader() -> None:
    class Table(Endless):
        column_names = ("x", "y")

    with pytest.raises(CheckError, match="a Dataset yields single samples"):
        unvanish.check(One(), Table(), CE)


def test_a_record_that_can_be_iterated_is_no_loader() -> None:
    pydantic = pytest.importorskip("pydantic")
    fields = {"x": (Tensor, ...), "y": (Tensor, ...), "__config__": {"arbitrary_types_allowed": True}}
    made = pydantic.create_model("Sampled", **fields)(x=x, y=y)
    assert read_batch(One(), made, CE).batch == ({"x": x}, y)


def test_a_shuffled_loader_leaves_the_random_state_alone() -> None:
    own, model = torch.Generator().manual_seed(3), One()
    for generator in (None, own):
        loader = DataLoader(TensorDataset(x, y), 4, shuffle=True, generator=generator)
        before, held = torch.get_rng_state(), own.get_state()
        unvanish.check(model, loader, CE)
        assert torch.equal(torch.get_rng_state(), before) and torch.equal(own.get_state(), held)


@pytest.mark.parametrize(
    ("model", "batch", "loss", "said"),
    [
        (One, (x, scale, weight, y), CE, r"takes \(x\), the loss 2 arguments"),
        (One, (x, scale, y), None, "a tuple of 3"),
        (Two, {"a": x, "b": scale, "y": y}, CE, r"with a, b.*takes \(x, scale\)"),
        (Two, Record(x, y), CE, "a Record with x, y"),
        (One, [x, x, x], CE, "a list of 3"),
        (Two, ({"x": x}, y), CE, "takes"),
        (One, TensorDataset(x, y), CE, "single samples"),
        (One, iter(()), CE, "yields no batch"),
        (One, {}, CE, "holds no tensor"),
        (One, None, None, "None"),
        (One, 3, None, "int"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(model: Any, batch: Any, loss: Any, said: str) -> None:
    with pytest.raises(CheckError, match=said) as caught:
        unvanish.check(model(), batch, loss)
    fits = said not in ("single samples", "yields no batch", "holds no tensor", "None", "int")
    assert "\n" not in str(caught.value) and ("step=" in str(caught.value)) == fits


def test_a_loaders_batch_goes_where_the_model_is() -> None:
    reading = read_batch(One().to("meta"), iter([{"x": x, "y": [y], "name": "a"}]), CE)
    assert reading.batch[0]["x"].is_meta and reading.batch[1][0].is_meta
    assert "moved to meta" in reading.notes[1] and x.device.type == "cpu"


def test_apply_takes_the_same() -> None:
    model = _build(Two)
    model.body = nn.Sequential(nn.Linear(5, 8), *[nn.Linear(8, 8) for _ in range(5)], nn.Linear(8, 3))
    remedy = unvanish.Remedy("backward-lsuv", (), "the weights are too small")
    assert unvanish.apply(model, [remedy], batch=iter([(x, scale, y)]), loss=CE).changes


def test_a_loader_that_raises_is_named() -> None:
    def fail() -> Iterator[Any]:
        raise KeyError("image")
        yield

    with pytest.raises(CheckError, match="the loader raised KeyError: 'image'"):
        unvanish.check(One(), fail(), CE)


def test_a_crash_says_how_the_batch_was_read() -> None:
    with pytest.raises(ModelCrash, match=r"how the batch was read: of the 3 parts"):
        unvanish.check(Two(), (x, torch.rand(3), y), CE)


@pytest.mark.parametrize(
    "kind", ["triple", "collated", "dataclass", "arrays", "loader", "two targets", "whole dict"]
)
def test_cure_and_forecast_take_the_same(kind: str) -> None:
    make, batch, loss, _ = KINDS[kind]
    model = _build(make)
    with torch.no_grad():
        model.body[0].weight.mul_(1e-4)  # type: ignore[index, operator]
    cured = unvanish.cure(model, batch, loss, budget=5, steps=5)
    assert cured.before.trace.facts["parameters"] and ("assumed: " in str(cured)) == (kind not in SILENT)
    if kind not in ("whole dict", "two targets"):  # without a loss these two do not say what is given
        assert unvanish.forecast(model, batch=batch).trace.facts["predicted"]
    with pytest.raises(AssertionError, match=r"error\[DEP001\]"):
        unvanish.assert_healthy(model, batch, loss)


def test_a_batch_of_any_kind_is_left_as_it_was() -> None:
    class Writing(One):
        def forward(self, batch: Any) -> Tensor:
            batch.x.add_(1)
            batch.y, batch.seen = None, True
            return self.body(batch.x)

    given = SimpleNamespace(x=x.clone(), y=y)
    unvanish.check(Writing(), given, CE)
    assert torch.equal(given.x, x) and given.y is y and not hasattr(given, "seen")


def test_a_collated_batch_of_a_real_library_is_read() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=3,
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config)
    ids = torch.randint(0, 50, (N, 6))
    batch = transformers.BatchEncoding(
        {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": y}
    )
    assert unvanish.check(model, batch, confirm=False).trace.facts["objective"] == "output.loss"
    found = unvanish.check(
        model, (ids, torch.ones_like(ids), y), lambda out, y: F.cross_entropy(out.logits, y)
    )
    assert "to the forward as input_ids, attention_mask" in _say(found)


def test_graph_data_of_a_real_library_is_read() -> None:
    data = pytest.importorskip("torch_geometric.data")
    graphs = [
        data.Data(x=torch.randn(2, 5), edge_index=torch.tensor([[0], [1]]), y=y[i : i + 1]) for i in range(N)
    ]
    batch = data.Batch.from_data_list(graphs)
    found = unvanish.check(_build(Convolution), batch, CE, confirm=False)
    with torch.no_grad():
        wanted = CE(_build(Convolution)(batch.x, batch.edge_index, batch.batch), batch.y)
    assert found.trace.facts["loss"] == pytest.approx(float(wanted))

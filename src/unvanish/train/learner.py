"""A network with its facts: what it was built from, for what data, and how that data is prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from torch import nn

from unvanish.core.names import show
from unvanish.lab.data.problems import DataError
from unvanish.lab.models import Spec, SpecError, build, read
from unvanish.train.arguments import require_model, require_weights
from unvanish.train.callbacks import Callbacks
from unvanish.train.checkpoint.file import Checkpoint, fill, load
from unvanish.train.errors import TrainError, require
from unvanish.train.predict.graph import is_graph, open_graph
from unvanish.train.report.results import Results
from unvanish.train.transfer import Donor, are_names, fits_as_it_is, list_few, take_over

UNSAVED = 10_000_000  # values of buffers that a network makes itself and does not save
WEIGHTS = (".safetensors", ".pt", ".pth")


class Learner:
    """A network, its specification, the facts of its data, and what a checkpoint says about it.

    `allow_code`: layers that the YAML or the checkpoint names by a Python path are imported, else refused.
    """

    def __init__(
        self,
        model: str | Path | Mapping[str, Any] | nn.Module,
        task: str | None = None,
        *,
        allow_code: bool = False,
        **changes: Any,
    ):
        require()
        require_model(model, task)
        saved = load(model) if isinstance(model, (str, Path)) and Path(model).suffix in WEIGHTS else None
        self.source = model
        graph = open_graph(str(model)) if is_graph(model) else None
        if isinstance(model, nn.Module) or graph is not None:
            self.spec: Any = None
        elif saved is None:
            self.spec = read(model, allow_code=allow_code, **changes)
        else:
            self.spec = _read_spec(saved, allow_code)
        self.network: nn.Module | None = model if isinstance(model, nn.Module) else None
        self.name: str = type(model).__name__.lower() if self.spec is None else self.spec.name
        self.facts: dict[str, Any] = {}
        self.about: dict[str, Any] = dict(saved.about) if saved is not None else {}
        self.results: Results | None = None
        self.callbacks = Callbacks()
        self._task = task
        self.loaded = ""  # where the weights come from, if they are worth keeping
        if saved is not None:
            self._restore(saved)
        if graph is not None:
            self.network, self.about = graph
            self.name, self.facts = str(self.about.get("name", self.name)), dict(self.about["facts"])
            self.loaded = str(model)

    @property
    def task(self) -> str:
        """What the network is for."""
        return (
            self._task or self.about.get("task") or (self.spec.task if self.spec is not None else "classify")
        )

    @property
    def names(self) -> list[str]:
        """The names of the classes, if known."""
        return list(self.about.get("names", ()))

    def build(self, **facts: Any) -> nn.Module:
        """The network for data with these facts, as `adapt` gives it."""
        return self.adapt(facts)

    def adapt(self, facts: Mapping[str, Any], names: Sequence[str] = ()) -> nn.Module:
        """The network for a training on data with these facts and classes; loaded weights go into it.

        It is built if there is none yet, or if the data differ from what it was built for.
        """
        if self.spec is None:
            assert self.network is not None
            return self.network
        held = self.network
        named = not names or not are_names(self.names) or list(names) == self.names
        if held is not None and named and all(self.facts.get(k) == v for k, v in facts.items()):
            return held
        made = build(self.spec, **facts)
        if held is not None and self.loaded:
            origin = Donor(held.state_dict(), self.names, self.loaded)
            print(f"unvanish: {take_over(made, self.spec, facts, names, origin).describe(self.loaded)}")
        self.network, self.facts = made, dict(facts)
        return made

    def suit(self, facts: Mapping[str, Any], names: Sequence[str] = ()) -> nn.Module:
        """A network with these weights for data with these facts; the own one stays as it is.

        TrainError if the weights are not for such data.
        """
        if self.spec is None:
            assert self.network is not None
            return self.network
        if self.network is None:
            return build(self.spec, **facts)
        self._require_classes(names)
        if all(self.facts.get(k) == v for k, v in facts.items()):
            return self.network
        weights = self.network.state_dict()
        if fault := fits_as_it_is(self.spec, facts, weights):
            other = ", ".join(
                f"{k} {v} instead of {self.facts.get(k)}" for k, v in facts.items() if self.facts.get(k) != v
            )
            raise TrainError(f"{self.loaded or self.name} is not for this data, which has {other}: {fault}")
        made = build(self.spec, **facts)
        made.load_state_dict(weights, strict=False)
        return made.train(self.network.training)

    def _require_classes(self, names: Sequence[str]) -> None:
        """TrainError if the data number the same classes otherwise; a line if they name them otherwise."""
        if not are_names(names) or not are_names(self.names) or list(names) == self.names:
            return
        here, there = (", ".join(map(show, some[:6])) for some in (self.names, names))
        what = self.loaded or self.name
        if set(names) == set(self.names):
            raise TrainError(
                f"the data number the classes {there}, {what} {here}; put its `names` in that order"
            )
        if len(names) == len(self.names):
            print(f"unvanish: the data name the classes {there}, {what} {here}; they are compared by number")

    def _restore(self, saved: Checkpoint) -> None:
        """Build the network of a checkpoint and fill it; TrainError if the tensors there are not its own."""
        facts, held = self.about["facts"], sum(t.numel() for t in saved.tensors.values())
        try:
            self.network, self.facts = build(self.spec, most=2 * held + UNSAVED, **facts), dict(facts)
        except SpecError as error:
            raise TrainError(f"{saved.path}: {error.text}") from error
        fill(self.network, saved.tensors, saved.path)
        self.loaded = str(saved.path)
        if saved.note:
            print(f"unvanish: {saved.path}: {saved.note}")

    def load(self, weights: str | Path, strict: bool = False) -> Self:
        """Load weights by name into the network; if not `strict`, those that do not fit are left out."""
        require_weights(weights)
        self.take(load(weights), strict)
        return self

    def take(self, found: Checkpoint, strict: bool = False) -> None:
        """Put weights that were read into the network, which is built for their data if there is none yet.

        If not `strict`, what does not fit is left out, and said.
        """
        if self.network is None and found.about.get("spec") is not None and found.about["task"] == self.task:
            self._begin_as(found)
        network = self.adapt(self.facts)
        left = fill(network, found.tensors, found.path, strict)
        self.loaded = str(found.path)
        count = len(network.state_dict())
        rest = f"; {list_few(left)} keep their initial values" if left else ""
        note = f" ({found.note})" if found.note else ""
        print(f"unvanish: {found.path}: {count - len(left)} of {count} tensors loaded{rest}{note}")
        if not left and "names" in found.about:  # whose rows they are now
            self.about["names"] = found.about["names"]

    def _begin_as(self, found: Checkpoint) -> None:
        """Build the network for the data that weights were trained on; left as it is if it cannot be."""
        with suppress(SpecError):
            self.network = build(self.spec, **found.about["facts"])
            self.facts = dict(found.about["facts"])
            kept = ("facts", "preparation")
            self.about = {**self.about, **{k: found.about[k] for k in kept if k in found.about}}


@contextmanager
def network_errors(learner: Learner, doing: str, ours: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn an error of a network that a YAML describes into a TrainError of one line.

    One's own module keeps its own errors, and so does unvanish from the moment that `ours` says so.
    """
    try:
        yield
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        if learner.spec is None or isinstance(error, TrainError | DataError | SpecError) or ours():
            raise
        first = (str(error).splitlines() or [""])[0][:200]
        raise TrainError(f"{learner.name} cannot {doing}: {type(error).__name__}: {first}") from error


def require_network(learner: Learner) -> nn.Module:
    """The network in evaluation mode; TrainError if it was never built."""
    if learner.network is None:
        raise TrainError(
            f"{learner.name} has no weights yet; train it, or load some: Model('best.safetensors')"
        )
    return learner.network.eval()


def _read_spec(saved: Checkpoint, allow_code: bool) -> Spec:
    """The specification in a checkpoint; TrainError if it holds weights only, or a wrong one."""
    spec = saved.about.get("spec")
    if spec is None:
        raise TrainError(
            f"{saved.path} holds weights only, without their network; build the model and load them:"
            f" Model('NAME.yaml').load({str(saved.path)!r})"
        )
    try:
        return read(spec, allow_code=allow_code)
    except SpecError as error:
        raise TrainError(f"{saved.path}: {error.text}") from error

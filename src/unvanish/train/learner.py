"""A network with its facts: what it was built from, for what data, and how that data is prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from torch import nn

from unvanish.core.names import show
from unvanish.lab.data.problems import DataError
from unvanish.lab.models import Spec, SpecError, build, read
from unvanish.train.callbacks import Callbacks
from unvanish.train.checkpoint.file import Checkpoint, fill, load
from unvanish.train.errors import TrainError, require
from unvanish.train.report.results import Results

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
        saved = load(model) if isinstance(model, (str, Path)) and Path(model).suffix in WEIGHTS else None
        self.source = model
        if isinstance(model, nn.Module):
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
        if saved is not None:
            self._restore(saved)

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
        """The network for data with these facts; it is built if there is none yet, or if the facts differ."""
        if self.spec is None:
            assert self.network is not None
            return self.network
        if self.network is None or any(self.facts.get(k) != v for k, v in facts.items()):
            self.network, self.facts = build(self.spec, **facts), dict(facts)
        return self.network

    def _restore(self, saved: Checkpoint) -> None:
        """Build the network of a checkpoint and fill it; TrainError if the tensors there are not its own."""
        facts, held = self.about["facts"], sum(t.numel() for t in saved.tensors.values())
        try:
            self.network, self.facts = build(self.spec, most=2 * held + UNSAVED, **facts), dict(facts)
        except SpecError as error:
            raise TrainError(f"{saved.path}: {error.text}") from error
        fill(self.network, saved.tensors, saved.path)

    def load(self, weights: str | Path, strict: bool = False) -> Self:
        """Load weights by name into the network; if not `strict`, those that do not fit are left out."""
        found = load(weights)
        left = fill(self.build(**self.facts), found.tensors, weights, strict)
        if left:
            names = f"{', '.join(map(show, left[:3]))}{f' and {len(left) - 3} more' if len(left) > 3 else ''}"
            print(f"unvanish: {weights} loaded, except {names}, which keep their initial values")
        return self


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

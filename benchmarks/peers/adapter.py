"""How a tool is used: once on a model, or beside a training, whose loop calls it where it asks to be.

Notable: `examine` of an ordinary monitor is the loop below. A tool that is one call has its own. What a tool
imports is imported when it begins, in its own environment; the file itself can be read anywhere.
"""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said, claim_of


class Adapter:
    """A tool: what pip installs, how it is used, and what its words stand for.

    `CLAIMS`: from a pattern of its words to a kind of `kinds.KINDS`; the first that matches counts.
    """

    TITLE: ClassVar[str] = ""
    REQUIRES: ClassVar[tuple[str, ...]] = ()
    IMPORTS: ClassVar[str] = ""
    USED: ClassVar[str] = "watches a training"
    SPEAKS: ClassVar[bool] = True  # False: it draws or logs, so only its cost is measured
    CLAIMS: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self.losses: list[float] = []

    def begin(self, trial: Trial) -> None:
        """Attach to the model before its first step."""

    def backward(self, step: int, loss: Tensor, trial: Trial) -> None:
        """Run the backward."""
        loss.backward()  # type: ignore[no-untyped-call]

    def before_step(self, step: int, loss: float, trial: Trial) -> None:
        """Between the backward and the optimizer's step."""

    def after_step(self, step: int, loss: float, trial: Trial) -> None:
        """Behind the optimizer's step, with the gradients still there."""

    def speak(self, trial: Trial) -> list[Said]:
        """What it has to say when the training is over."""
        return []

    def end(self) -> None:
        """Take off whatever still hangs there."""

    def caught(self, error: Exception) -> list[Said] | None:
        """What an exception out of a step says, if it is the tool's way to speak; None if it is a failure."""
        return None

    def one_step(self, step: int, trial: Trial) -> float:
        """One step of the training."""
        trial.optimizer.zero_grad()
        loss, _ = trial.objective()
        self.backward(step, loss, trial)
        value = loss.item() if loss.numel() == 1 else math.nan
        self.before_step(step, value, trial)
        trial.optimizer.step()
        self.after_step(step, value, trial)
        return value

    def examine(self, trial: Trial, steps: int) -> list[Said]:
        """Everything that it says of a training of so many steps."""
        try:
            self.begin(trial)
            for step in range(steps):
                self.losses.append(self.one_step(step, trial))
            return self.speak(trial)
        except Exception as error:
            told = self.caught(error)
            if told is None:
                raise
            return told
        finally:
            self.end()

    def mean(self, words: str, *places: str) -> Said:
        """Its words, with the kind that they stand for; a parameter's name blames its module."""
        return Said(words, claim_of(words, self.CLAIMS), tuple(module_of(place) for place in places))


def module_of(name: str) -> str:
    """The module of a parameter: its name without the last part, if that is a usual parameter's."""
    head, _, tail = name.rpartition(".")
    return head if tail.startswith(("weight", "bias", "in_proj", "gamma", "beta")) and head else name


def total_norm(trial: Trial) -> float:
    """The norm of all gradients, as users compute it for their logs."""
    norms = [p.grad.to_dense().norm() if p.grad.is_sparse else p.grad.norm() for p in held(trial)]
    return float(torch.stack([n.float() for n in norms]).norm()) if norms else 0.0


def held(trial: Trial) -> list[Any]:
    """The parameters that have a gradient."""
    return [p for p in trial.model.parameters() if p.grad is not None]


@contextlib.contextmanager
def quiet() -> Any:
    """Catches what is printed; gives the buffer."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        yield text

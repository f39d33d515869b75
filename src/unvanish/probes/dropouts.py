"""The dropouts of one forward: how much each drops, and which drop in evaluation too.

Notable: `F.dropout(x)` drops always, since `training` is True where it is left out; so does attention with a
`dropout_p` that is a number. In training mode the line of code gives the sign, and a forward in evaluation
mode the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from unvanish.core.facts import ForcedFacts
from unvanish.probes import operations
from unvanish.probes.events import ModuleCall
from unvanish.probes.lines import find_line
from unvanish.probes.written import read_argument

FUNCTIONS = ("dropout", "dropout1d", "dropout2d", "dropout3d")
ATTENTION = ("scaled_dot_product_attention",)
TRAINING, DROPOUT_P = 2, 4  # places of the argument in their signatures


@dataclass
class Dropouts:
    """What was seen: the share that is dropped by module, and the dropouts that ignore the mode."""

    shares: dict[str, float] = field(default_factory=dict)
    forced: list[ForcedFacts] = field(default_factory=list)
    idle: int = 0  # that drop nothing in this mode

    def see(self, kind: str, bound: Mapping[str, Any], running: ModuleCall) -> None:
        """A dropout, or an attention with one, is about to run in a module."""
        if kind in operations.DROPOUTS:
            self._see_dropout(float(bound.get("p", 0.0)), bool(bound.get("train")), running)
        elif kind in ATTENTION and bound["dropout_p"]:
            written = read_argument(ATTENTION, "dropout_p", DROPOUT_P)
            self._judge("attention", written in ("constant", "attribute"), False, running)

    def _see_dropout(self, share: float, on: bool, running: ModuleCall) -> None:
        if not on:
            self.idle += share > 0
            return
        self.shares[running.path] = max(self.shares.get(running.path, 0.0), share)
        if share and not isinstance(running.module, nn.modules.dropout._DropoutNd):
            written = read_argument(FUNCTIONS, "training", TRAINING)
            self._judge("dropout", written == "left out", written == "constant", running)

    def _judge(self, what: str, always: bool, meant: bool, running: ModuleCall) -> None:
        evaluating = not running.module.training
        if (always or meant or evaluating) and all(f["path"] != running.path for f in self.forced):
            self.forced.append({
                "what": what,
                "path": running.path,
                "line": find_line(),
                "meant": meant,
                "evaluating": evaluating,
            })  # fmt: skip


class NoiseMode(TorchFunctionMode):
    """The lines that drop something, or take the statistics of the batch beside running ones, as they run."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: set[str] = set()

    def __torch_function__(self, func: Any, types: Sequence[Any], args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        drops = func in DROPPING and kwargs.get("training", True) and kwargs.get("p", 0.5)
        attends = func is F.scaled_dot_product_attention and (
            kwargs.get("dropout_p", 0.0) or args[DROPOUT_P : DROPOUT_P + 1] > (0.0,)
        )
        mean = kwargs.get("running_mean", args[1] if len(args) > 1 else None)
        norms = func is F.batch_norm and kwargs.get("training") and mean is not None
        if drops or attends or norms:
            self.lines.add(find_line())
        return func(*args, **kwargs)


DROPPING = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)


def find_noise(model: nn.Module, run: Callable[[], Any]) -> set[str]:
    """The lines that are noisy in evaluation mode while `run` runs the model, as far as it bears it."""
    modes = [(module, module.training) for module in model.modules()]
    noise = NoiseMode()
    try:
        model.eval()
        with torch.enable_grad(), noise:
            run()
    except Exception:  # the model's own: nothing more is known of this mode
        return noise.lines
    finally:
        for module, training in modes:
            module.training = training
    return noise.lines

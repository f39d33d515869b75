"""Turns post-normalisation into pre-normalisation: x + f(norm(x)) in place of norm(x + f(x)).

What it does

In PyTorch's own transformer layers `norm_first` is set, and a last norm is added after the last layer. In a
user's own class the calls are rewired: the output of a named norm goes into the branch, but the sum that
follows adds the branch to the norm's input, not to its output. So each norm serves the branch after it, and
the last one stands at the end, which is exactly pre-norm.

Safety

It changes the function: for untrained models.

Reference: Xiong et al. 2020.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.anatomy import Anatomy
from unvanish.surgery.branches import example
from unvanish.surgery.grafts import Then
from unvanish.surgery.names import list_names
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.rewire import Calls, Rewire
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"
NORMS = ("layer_norm", "rms_norm", "group_norm", "batch_norm")
TORCH = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """Every norm whose input is a residual sum."""
    anatomy = Anatomy(trace)
    after, paths = False, []
    for i in anatomy.nodes:
        site = anatomy.site(i)
        if site.family == "add":
            after = bool(site.facts.get("row_residual") or site.facts.get("cut"))
        elif site.family == "norm":
            if after and site.facts.get("parameters"):
                paths.append(str(site.facts.get("module", site.path)))
            after = False
        elif site.family in ("layer", "activation", "attention"):
            after = False
    if paths:
        yield replace(remedy, targets=tuple(dict.fromkeys(paths)), parameters={}, safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Move the norms at `targets` in front of their branches."""
    layers: dict[str, nn.Module] = {}
    others: list[nn.Module] = []
    for path in targets:
        parent = surgery.module(path.rpartition(".")[0])
        if isinstance(parent, TORCH):
            layers[path.rpartition(".")[0]] = parent
        else:
            others.append(surgery.module(path))
    if not layers and not others:
        raise SurgeryError("pre-normalisation: no targets; name the norms to move")
    for path, layer in layers.items():
        surgery.assign(layer, "norm_first", True, path, "norm_first")
    if layers:
        last = list(layers)[-1]
        norm = nn.LayerNorm(layers[last].norm1.normalized_shape)  # type: ignore[union-attr]
        name = surgery.register(last, "last_norm", norm)
        surgery.graft(last, Then(norm), f"a last norm after it ({name})")
    if others:
        turn = Turned([w for norm in others if isinstance(w := getattr(norm, "weight", None), nn.Parameter)])
        surgery.graft(
            "",
            Rewire({**dict.fromkeys(NORMS, turn), "add": turn}),
            f"{len(others)} norms in front of their branches",
        )


class Turned:
    """Norms feed the branch; sums add the branch to what the norm has read."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        self.weights = weights

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        read: dict[int, tuple[Tensor, Tensor]] = calls.memory.setdefault("read", {})
        given = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        if any(w is a for w in self.weights for a in given):
            out = func(*args, **kwargs)
            read[id(out)] = (out, given[0])  # the output is held, so its id stays its own
            return out
        if any(a.ndim and id(a) in read for a in given):
            args = tuple(read[id(a)][1] if id(a) in read else a for a in args)
        return func(*args, **kwargs)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    parents = tuple(dict.fromkeys(t.rpartition(".")[0] for t in remedy.targets))
    return [
        f"layers = [model.get_submodule(name) for name in {list_names(parents)}]",
        "for layer in (layer for layer in layers if hasattr(layer, 'norm_first')):",
        "    layer.norm_first = True  # and an nn.LayerNorm after the last one",
        "# in a class of your own: x = x + branch(norm(x)) in place of norm(x + branch(x))",
    ]


def case() -> tuple[Case, Remedy]:
    """Sixteen hand-written post-norm blocks."""
    net, batch = example(post=True)
    targets = tuple(f"{i}.norm" for i in range(16))
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "pre-normalisation", targets, "a free identity path"
    )

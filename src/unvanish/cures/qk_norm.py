"""Normalises queries and keys before their product, which bounds the attention's logits.

What it does

RMSNorm with a learned scale on the output of the query and of the key projection; if both come from one
packed matrix (`nn.MultiheadAttention`), the heads' queries and keys are normalised at the attention call. The
logits then lie within sqrt(d), for any weights.

Safety

It changes the function: for untrained models, or with training after it.

References: Henry et al. 2020; Dehghani et al. 2023 (ViT-22B).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery import norms
from unvanish.surgery.anatomy import Anatomy
from unvanish.surgery.grafts import Then
from unvanish.surgery.names import list_names, shorten, split_calls, split_label
from unvanish.surgery.rewire import Calls, Rewire
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The query and key projections of every attention, or the modules that call a fused one."""
    anatomy = Anatomy(trace)
    projections, packed = [], []
    for i in anatomy.sites("attention"):
        site = anatomy.site(i)
        order = site.order
        fed = [x for x in anatomy.layers if x.order < order][-3:]
        if len(fed) == 3 and not any(x.weight.endswith("in_proj_weight") for x in fed):
            named = [x for x in fed if x.module.rpartition(".")[2][:1] in ("q", "k")]
            projections += [x.module for x in (named if len(named) == 2 else fed[:2])]
        elif site.kind == "scaled_dot_product_attention":
            packed.append(site.label)
    targets = tuple(dict.fromkeys([*projections, *packed]))
    if targets:
        yield replace(remedy, targets=targets, parameters={}, safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Normalise the outputs of `targets`: projections, or "module.scaled_dot_product_attention"."""
    for target in targets:
        path, _ = split_label(target)
        if surgery.has(path):
            norm = nn.RMSNorm(norms.features(surgery.module(path)))
            name = surgery.register(path, "qk_norm", norm)
            surgery.graft(path, Then(norm), f"RMSNorm after it ({name})")
        else:
            parent = path.rpartition(".")[0]
            surgery.graft(
                parent,
                Rewire({"scaled_dot_product_attention": Normed()}, own=True),
                "queries and keys normalised",
            )


class Normed:
    """Gives heads' queries and keys (..., T, D) a root mean square of one."""

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        q, k, *rest = args
        return func(_unit(q), _unit(k), *rest, **kwargs)


def _unit(x: Tensor) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:])


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    modules, calls = split_calls(remedy.targets, {"scaled_dot_product_attention"})
    lines = [
        f"for name in {list_names(modules)}:  # before the optimizer is made",
        "    layer = model.get_submodule(name)",
        "    layer.norm = nn.RMSNorm(layer.out_features)",
        "    layer.register_forward_hook(lambda layer, args, out: layer.norm(out))",
    ]
    told = [f"# before {shorten(tuple(calls))}: q, k = rms_norm(q, q.shape[-1:]), rms_norm(k, k.shape[-1:])"]
    return [*(lines if modules else []), *(told if calls else [])]


def case() -> tuple[Case, Remedy]:
    """An attention with huge queries and keys."""
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
    with torch.no_grad():
        net.self_attn.in_proj_weight[:32] *= 12
    batch = torch.randn(4, 8, 16)
    return Case(net, batch), Remedy("qk-norm", ("self_attn.scaled_dot_product_attention",), "bounded logits")

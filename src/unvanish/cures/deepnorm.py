"""DeepNorm: post-normalisation with a stronger skip, norm(alpha x + f(x)), and smaller branches.

What it does

With N layers, alpha = (2N)^(1/4), and the weights of values, attention outputs and feed-forward parts are
multiplied by beta = (8N)^(-1/4). A LayerNorm ignores the scale of its input, so norm(alpha x + f(x)) is
norm(x + f(x)/alpha): alpha is folded into the last layer of the branch, and nothing else has to change.

Safety

It changes the function: for untrained models.

Reference: Wang et al. 2022 (DeepNet).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.anatomy import round_digits
from unvanish.surgery.branches import branches, example, scale_parameters
from unvanish.surgery.names import each_parameter
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """All weights of the branches except those of queries and keys, and the parameters that end them."""
    found = branches(trace)
    if not found:
        return
    inner = [w for b in found for w in b.weights if not _query_or_key(w)]
    layers = max(1, len(found) // 2)
    settings = {
        "ends": [n for b in found for n in b.end],
        "alpha": round_digits((2 * layers) ** 0.25),
        "beta": round_digits((8 * layers) ** -0.25),
    }
    yield replace(remedy, targets=tuple(dict.fromkeys(inner)), parameters=settings, safety="retrain")


def _query_or_key(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 1 and parts[-2] in ("q", "k", "query", "key", "q_proj", "k_proj", "wq", "wk")


def apply(
    surgery: Surgery,
    targets: tuple[str, ...],
    *,
    ends: list[str] = [],  # noqa: B006
    alpha: float = 1.0,
    beta: float = 1.0,
) -> None:
    """Multiply the weights `targets` by beta and the `ends` of the branches by 1/alpha."""
    for name in targets:
        weight = surgery.parameter(name).detach().clone()
        if name.endswith("in_proj_weight"):  # queries, keys, values: only the last third
            weight[2 * len(weight) // 3 :] *= beta
            surgery.fill(name, weight, f"values times {beta:.4g}")
        else:
            surgery.fill(name, weight * beta, f"times {beta:.4g}")
    scale_parameters(surgery, tuple(ends), 1 / alpha, f"divided by {alpha:.4g}")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    alpha, beta = remedy.parameters.get("alpha", 1.0), remedy.parameters.get("beta", 1.0)
    packed = tuple(n for n in remedy.targets if n.endswith("in_proj_weight"))  # queries, keys, values
    plain = tuple(n for n in remedy.targets if n not in packed)
    ends = tuple(map(str, remedy.parameters.get("ends", ())))
    return [
        *each_parameter(plain, f"{{}}.data *= {beta:.4g}"),
        *each_parameter(packed, f"{{}}.data.chunk(3)[2].mul_({beta:.4g})"),
        *each_parameter(ends, f"{{}}.data /= {alpha:.4g}  # as norm(alpha * x + branch(x))"),
    ]


def case() -> tuple[Case, Remedy]:
    """Sixteen post-norm blocks."""
    net, batch = example(post=True)
    weights = tuple(f"{i}.{k}.weight" for i in range(16) for k in ("one", "two"))
    ends = [f"{i}.two.{k}" for i in range(16) for k in ("weight", "bias")]
    settings = {"ends": ends, "alpha": 16**0.25, "beta": 64**-0.25}
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "deepnorm", weights, "a stronger skip", "retrain", settings
    )

"""Queries and keys get almost no gradient, because the tokens they compare are all alike.

Why it harms

Attention without a skip around it averages its tokens, and averaging again and again makes them
equal (rank collapse, doubly exponential in the depth). Then every choice of weights gives the same
result,

    sum_j p_ij v_j = v   for all p   =>   dL/dq = dL/dk = 0

while values, and with them the profile over the depth, look fine.

How it is measured

The norm of the queries' gradient over the values', `limit` (default 1e-2; healthy is .02 to .2),
where the mean cosine between the tokens that the attention reads is above `alike` (default 0.99). A
tenth of the limit is an error.

Remedies

Add skip connections around the attention (retrain). Pre-norm order (retrain). Smaller value and
output projections (retrain).

When it is wrong

Sequences of equal tokens, such as padding, are alike by themselves.

References: Dong et al. 2021 (attention is not all you need); Noci et al. 2022.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _depth

NEEDS = ("step", "attention")
EXPLAINS = ("DEP001", "INI003")


def check(trace: Trace, *, limit: float = 1e-2, alike: float = 0.99) -> Iterable[Finding]:
    """One finding naming the attentions whose queries starve."""
    places = [
        i for i in trace.where("node", family="attention") if trace.sites[i].facts.get("tokens", 0) >= 2
    ]
    places = [i for i in places if not math.isnan(trace.value(i, "query_value_log"))]
    if not places:
        raise NotApplicable("the model has no attention whose queries and values could be told apart")
    starved = [
        i
        for i in places
        if math.exp(min(50.0, trace.value(i, "query_value_log"))) < limit
        and trace.value(i, "token_cosine") > alike
    ]
    if not starved:
        return []
    starved.sort(key=lambda i: trace.value(i, "query_value_log"))
    worst = starved[0]
    log, cosine, where = (
        trace.value(worst, "query_value_log"),
        trace.value(worst, "token_cosine"),
        trace.sites[worst].label,
    )
    share = math.exp(log) if math.isfinite(log) else 0.0
    cause = (
        f"the queries of {where} get {share:.1e} of their values' gradient, for its tokens are alike "
        f"(cosine {cosine:.5f})"
    )
    evidence = (
        Evidence("queries' gradient over values'", share, "", f"> {limit:g}", where),
        Evidence("cosine between tokens", cosine, "", f"< {alike:g}", where),
        Evidence("attentions affected", len(starved), f"of {len(places)}"),
    )
    targets = _depth.labels(trace, starved)
    remedies = (
        Remedy("add-skips", targets, "an identity path keeps the tokens apart"),
        Remedy("pre-normalisation", targets, "the stream itself is never averaged away"),
    )
    severity: Severity = "error" if share < limit / 10 else "warning"
    weight = -log if math.isfinite(log) else 50.0
    return [
        Finding(
            "ATT002", "query-starvation", severity, cause, targets, evidence, remedies, "vanishing", weight
        )
    ]


def sick() -> Case:
    """Ten attentions in a row without skips."""
    return _case(skip=False)


def healthy() -> Case:
    """The same ten attentions with skips and pre-norm."""
    return _case(skip=True)


def _case(skip: bool) -> Case:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    class Attend(nn.Module):
        """Single-head self-attention."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(32) if skip else nn.Identity()
            self.q, self.k, self.v, self.out = (nn.Linear(32, 32, bias=False) for _ in range(4))
            for layer in (self.v, self.out):
                nn.init.orthogonal_(layer.weight)

        def forward(self, x: Tensor) -> Tensor:
            h = self.norm(x)
            y: Tensor = self.out(functional.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h)))
            return x + y if skip else y

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(*[Attend() for _ in range(10)], nn.Linear(32, 4))
        batch = torch.randn(4, 12, 32), torch.randint(0, 4, (4, 12))

        def loss(output: Tensor, y: Tensor) -> Tensor:
            return functional.cross_entropy(output.flatten(0, 1), y.flatten())

        return Case(net, batch, loss, story="ten attentions in a row")

"""Queries and keys get almost no gradient, because the tokens they compare are all alike.

Why it harms

Attention without a skip around it averages its tokens, and averaging again and again makes them
equal (rank collapse, doubly exponential in the depth). Then every choice of weights gives the same
result,

    sum_j p_ij v_j = v   for all p   =>   dL/dq = dL/dk = 0

while values, and with them the profile over the depth, look fine.

An example

    for attend in self.attentions:
        x = attend(x)                        # no x + attend(x): after ten, all tokens are equal

How it is measured

The norm of the queries' gradient over the values'. It is a fault below `limit`, and an error below
a tenth of it, if the mean cosine between the tokens that the attention reads is above `alike`.

Limits

    limit = 0.01     of the values' gradient: in healthy nets it is 0.05 or more (measured)
    alike = 0.99     mean cosine between tokens: up to 0.86 in healthy nets, 0.9996 in one of
                     collapsed rank (both measured)
    MUCH_LESS = 10   times less than the limit is an error; in a net of collapsed rank it was a
                     hundred times (measured)
    GONE = 50        nats, if the queries get exactly nothing: a size to order it by, no limit

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

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import MEASURED

NEEDS = ("step", "attention")
EXPLAINS = ("DEP001", "INI003")
MUCH_LESS = 10
GONE = 50.0  # nats


def check(trace: Trace, *, limit: float = 1e-2, alike: float = 0.99) -> Iterable[Fault]:
    """One fault naming the attentions whose queries starve."""
    logs = _query_logs(trace)
    if not logs:
        raise NotApplicable("the model has no attention whose queries and values could be told apart")
    shares = {i: math.exp(min(GONE, log)) for i, log in logs.items()}
    starved = [i for i in logs if shares[i] < limit and trace.value(i, "token_cosine") > alike]
    if not starved:
        return []
    starved.sort(key=lambda i: logs[i])
    worst, where = starved[0], trace.sites[starved[0]].label
    share, cosine = shares[worst], trace.value(worst, "token_cosine")
    targets = _places.label(trace, starved)
    return [
        Fault(
            severity="error" if share < limit / MUCH_LESS else "warning",
            cause=f"the queries of {where} get {share:.1e} of their values' gradient, because its tokens "
            f"are alike (cosine {cosine:.5f})",
            sites=targets,
            evidence=(
                Evidence("queries' gradient over values'", share, limit=f"> {limit:g}", site=where),
                Evidence("cosine between tokens", cosine, limit=f"< {alike:g}", site=where),
                Evidence("attentions affected", len(starved), unit=f"of {len(logs)}"),
            ),
            remedies=(
                Remedy("add-skips", targets, "an identity path keeps the tokens apart"),
                Remedy("pre-normalisation", targets, "the stream itself is never averaged away"),
            ),
            direction="vanishing",
            tier=MEASURED,
            size=-logs[worst] if math.isfinite(logs[worst]) else GONE,
        )
    ]


def _query_logs(trace: Trace) -> dict[int, float]:
    """Ln of the queries' gradient over the values', of every attention of two tokens or more."""
    attentions = trace.where("node", family="attention")
    places = (i for i in attentions if trace.sites[i].facts.get("tokens", 0) >= 2)
    logs = {i: trace.value(i, "query_value_log") for i in places}
    return {i: log for i, log in logs.items() if not math.isnan(log)}


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

"""Probabilities are handed to a loss that expects logits and applies its own softmax or sigmoid.

Why it harms

Cross-entropy normalises what it reads. Of probabilities in [0, 1] it makes

    softmax(p),  at best e / (e + n - 1) for the right class

so even a perfect model keeps a large loss, and the gradient is damped by the inner softmax.
Training runs and looks almost right, only worse.

An example

    p = torch.softmax(head(h), dim=-1)
    loss = nn.functional.cross_entropy(p, y)     # it applies log_softmax itself

How it is measured

On the graph: the tensor that `cross_entropy` or `binary_cross_entropy_with_logits` reads was made
by a softmax or a sigmoid. (A log-softmax before cross-entropy changes nothing and is no fault.)

Limits

None: the graph shows what made the tensor.

Remedies

Remove the model's softmax or sigmoid, and apply it only for prediction (retrain). For a model that
must return probabilities use `nll_loss` on their logarithm, or `binary_cross_entropy` (retrain).

When it is wrong

Mixtures of experts and distillation may feed a normalised score as a logit on purpose.

References: Bridle 1990; the documentation of torch.nn.CrossEntropyLoss.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import LOGITS

NEEDS = ("static",)
EXPLAINS = ("OUT001",)


def check(trace: Trace) -> Iterable[Fault]:
    """One fault if a loss with its own normalisation reads probabilities."""
    losses = _places.find_logit_losses(trace)
    double = [i for i in losses if trace.sites[i].facts.get("double")]
    if not losses:
        raise NotApplicable("no loss that expects logits was seen")
    if not double:
        return []
    site = trace.sites[double[0]]
    kind, where = site.facts["activation"], str(site.facts.get("site", "loss"))
    other = "nll_loss of the logarithm" if site.kind == "cross_entropy" else "binary_cross_entropy"
    return [
        Fault(
            severity="error",
            cause=f"{where} makes probabilities by a {kind}, but {site.kind} expects logits and normalises "
            "them again",
            sites=(where,),
            evidence=(
                Evidence("what the loss reads was made by", kind, limit="logits", site=where),
                Evidence("largest value it reads", float(site.facts.get("logit_max", 1.0))),
            ),
            remedies=(
                Remedy(
                    "remove-softmax",
                    (where,),
                    "the loss applies it; apply it yourself only for prediction",
                    parameters={"kind": kind},
                ),
                Remedy(
                    "use-loss-on-probabilities",
                    (where,),
                    f"{other} expects probabilities",
                    safety="advice",
                ),
            ),
            direction="vanishing",
            tier=LOGITS,
        )
    ]


def sick() -> Case:
    """A softmax in the model and cross-entropy as the loss."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5), nn.Softmax(dim=-1))
        return Case(
            net,
            (torch.randn(32, 16), torch.randint(0, 5, (32,))),
            nn.CrossEntropyLoss(),
            story="softmax twice",
        )


def healthy() -> Case:
    """A log-softmax before cross-entropy, which changes nothing."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5), nn.LogSoftmax(dim=-1))
        return Case(
            net,
            (torch.randn(32, 16), torch.randint(0, 5, (32,))),
            nn.CrossEntropyLoss(),
            story="log-softmax twice",
        )

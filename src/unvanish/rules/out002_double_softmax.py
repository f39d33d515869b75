"""Probabilities are normalised twice, or stand where logarithms of probabilities are asked for.

Why it harms

Cross-entropy normalises what it reads. Of probabilities in [0, 1] it makes

    softmax(p),  at best e / (e + n - 1) for the right class

so even a perfect model keeps a large loss, and the gradient is damped by the inner softmax.
Training runs and looks almost right, only worse. `nll_loss` and `kl_div` normalise nothing: they
take logarithms. Of probabilities nll_loss makes -p, which is bounded and flat where the answer is
wrong; of raw scores, a loss that falls without end.

An example

    p = torch.softmax(head(h), dim=-1)
    loss = nn.functional.cross_entropy(p, y)     # it applies log_softmax itself

How it is measured

On the graph: the tensor that `cross_entropy` or `binary_cross_entropy_with_logits` reads was made
by a softmax or a sigmoid; or a softmax, a log-softmax, or an exp or logsumexp in the loss reads the
result of a softmax. What `nll_loss` or `kl_div` reads was made by a softmax or a sigmoid without a
logarithm, or by a layer and is above zero, as no logarithm of a probability is; what `ctc_loss`
reads likewise. Rates where `poisson_nll_loss` takes exp itself, and a `kl_div` whose arguments are
swapped. (A log-softmax before cross-entropy changes nothing and is no fault.)

Limits

None: the graph shows what made the tensor.

Remedies

Remove the model's softmax or sigmoid, and apply it only for prediction (retrain). For a model that
must return probabilities use `nll_loss` on their logarithm, or `binary_cross_entropy` (retrain).
Before nll_loss and kl_div: a log-softmax (retrain).

When it is wrong

Mixtures of experts and distillation may feed a normalised score as a logit on purpose.

References: Bridle 1990; the documentation of torch.nn.CrossEntropyLoss.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Site, Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import LOGITS

NEEDS = ("static",)
EXPLAINS = ("OUT001",)
RATES = "poisson_nll_loss"
LOGARITHMS = ("nll_loss", "kl_div", "ctc_loss")


def check(trace: Trace) -> Iterable[Fault]:
    """One fault if probabilities are normalised twice, or taken for their logarithms."""
    losses = _places.find_logit_losses(trace)
    raw = [i for i in trace.where("output") if trace.sites[i].facts.get("raw")]
    again = trace.facts.get("normalised_again", [])
    rates = [i for i in trace.where("output") if trace.sites[i].kind == RATES]
    double = [i for i in (*losses, *rates) if trace.sites[i].facts.get("double")]
    if not losses and not raw and not again and not double and not _asks_for_logarithms(trace):
        raise NotApplicable("no loss that expects logits or log-probabilities was seen")
    if double:
        return [_report_double(trace.sites[double[0]])]
    return [_report_raw(trace.sites[raw[0]])] if raw else [_report_again(*again[0])] if again else []


def _asks_for_logarithms(trace: Trace) -> bool:
    return any(trace.sites[i].kind in LOGARITHMS for i in trace.where("output"))


def _name(kind: str, where: str) -> str:
    """A function and its place, if they differ."""
    return f"the {kind}" if where == kind else f"the {kind} of {where}"


def _report_raw(site: Site) -> Fault:
    """The fault of probabilities or scores that are read as logarithms of probabilities."""
    raw, where, kind = (
        site.facts["raw"],
        str(site.facts.get("site", "loss")),
        site.facts.get("activation", ""),
    )
    made = f"{_name(kind, where) if kind else where} makes {raw}"
    remedy = Remedy("insert-log-softmax", (), "a log-softmax makes them what the loss asks for")
    if kind:
        remedy = Remedy(
            "swap-output-function", (where,), "the logarithm is what the loss asks for",
            parameters={"kind": kind, "to": "log_softmax"},
        )  # fmt: skip
    if site.facts.get("swapped"):
        made = "the arguments are swapped: the targets stand where the output should, as probabilities"
    return Fault(
        severity="error",
        cause=f"{made}, but {site.kind} expects logarithms of probabilities and takes no logarithm itself",
        sites=(where,),
        evidence=(Evidence("what the loss reads", raw, limit="log-probabilities", site=where),),
        remedies=(
            remedy,
            Remedy("use-cross-entropy", (where,), "or cross_entropy, on the logits", safety="advice"),
        ),
        direction="none",
        tier=LOGITS,
    )


def _report_again(where: str, kind: str, second: str) -> Fault:
    """The fault of probabilities that are normalised a second time, outside of torch's own losses."""
    who = "the model" if where == kind else where
    return Fault(
        severity="error",
        cause=f"{who} makes probabilities by a {kind}, and {second} after it normalises them again",
        sites=(where,),
        evidence=(Evidence(f"what {second} reads was made by", kind, limit="logits", site=where),),
        remedies=(
            Remedy(
                "remove-softmax", (where,), "normalise the logits once", parameters={"kind": kind}
            ),
        ),
        direction="vanishing",
        tier=LOGITS,
    )  # fmt: skip


def _report_double(site: Site) -> Fault:
    """The fault of probabilities that a loss normalises itself."""
    kind, where = site.facts["activation"], str(site.facts.get("site", "loss"))
    if site.kind == RATES:
        return _report_rate(kind, where)
    other = "nll_loss of the logarithm" if site.kind == "cross_entropy" else "binary_cross_entropy"
    return Fault(
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


def _report_rate(kind: str, where: str) -> Fault:
    """The fault of a rate that is read as the logarithm of one."""
    linear = Remedy(
        "swap-output-function", (where,), "a linear output is the logarithm of a rate",
        parameters={"kind": kind, "to": "identity"},
    )  # fmt: skip
    return Fault(
        severity="warning",
        cause=f"{_name(kind, where)} makes rates, but poisson_nll_loss (log_input=True) reads logarithms "
        "and takes exp itself: rates below 1 cannot be given",
        sites=(where,),
        evidence=(Evidence("what the loss reads was made by", kind, limit="log-rates", site=where),),
        remedies=(Remedy("read-rates", ("loss",), "log_input=False", "advice"), linear),
        direction="none",
        tier=LOGITS,
    )


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

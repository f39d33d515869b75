"""The targets are the model's own input, moved, and the output sees the answer that it is asked for.

Why it harms

A position that sees its answer copies it: the loss falls towards zero within a few steps, and the
model has learned nothing that helps where the answer is not there, as in generation.

An example

    logits = model(tokens)                          # no causal mask, or a bidirectional layer
    loss = cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    loss = cross_entropy(logits.flatten(0, 1), tokens.flatten())      # the shift is missing

How it is measured

If the targets that a loss compares are an input of the model, moved by one step or by none, the
gradient of the output at one position is taken with respect to the input: it depends on the answer
or not. Which output meets which target is read from the gradient of the loss, so slices and
flattening are followed.

The next token, seen by the output: a mask is missing, or the model runs in both directions. The
same token, or the one before, under a model that sees nothing ahead: the shift is missing, or goes
the wrong way. The token after the next is one that was shifted twice, in the data and in the loss,
if no other loss asks for the next one.

Limits

None: a target is the input or not, and the gradient at it is zero or not; less than 1e-6 of the
largest is ignored. Fewer than 32 targets, and targets of fewer than three kinds, say nothing.

Remedies

A causal mask (is_causal=True), or one direction (advice). Targets one step ahead:
logits[:, :-1] against tokens[:, 1:] (advice).

When it is wrong

Models that give back their input through a bottleneck see ahead, and are left alone; so are masked
and noisy inputs, which differ from their targets, and models that shift their input themselves.

References: Vaswani et al. 2017, section 3.2.3; Karpathy 2019, "A Recipe for Training Neural
Networks" (backprop to chart dependencies).
"""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.loss_facts import AnswerFacts
from unvanish.core.trace import Trace
from unvanish.rules._fault import Fault, blame_loss
from unvanish.rules._tiers import DATA

NEEDS = ("step",)
AHEAD = Remedy("mask-ahead", ("(model)",), "a causal mask (is_causal=True), or one direction", "advice")
SHIFT = Remedy(
    "shift-targets", ("loss",), "targets one step ahead: logits[:, :-1] against tokens[:, 1:]", "advice"
)


def check(trace: Trace) -> Iterable[Fault]:
    """One fault if the targets are the input, moved so that the answer is seen, or moved twice."""
    answer = trace.facts.get("answer")
    if answer is None:
        raise NotApplicable("the targets are not the model's input, moved by a step")
    text, remedy = _describe(answer)
    if not text:
        return []
    number = Evidence("steps from an output to its target in the input", answer["shift"], limit="1")
    return [blame_loss(text, number, remedy, DATA)]


def _describe(answer: AnswerFacts) -> tuple[str, Remedy]:
    """What is wrong with how the targets are moved; "" if nothing is."""
    shift, copies = answer["shift"], answer["whole"] and answer["sees"] and not answer["ahead"]
    if shift == 1 and answer["sees"]:
        text = (
            "each target is the next step of the input, and the output sees it: the model looks ahead, and "
        )
        return text + "copies the answer", AHEAD
    if shift == 0 and copies:
        text = (
            "each target is the input at the same position, which the output sees: the shift by one step is "
        )
        return text + "missing, and the model copies its input", SHIFT
    if shift == -1 and copies:
        text = (
            "each target is the input of the step before, which the output has seen: the shift goes the wrong"
        )
        return text + " way", SHIFT
    if shift == 2 and answer["whole"]:
        text = "each target is the input two steps ahead: it is shifted twice, in the data and in the loss"
        return text, SHIFT
    return "", SHIFT


def sick() -> Case:
    """A recurrent language model that runs in both directions."""
    return _case(both=True)


def healthy() -> Case:
    """The same in one direction."""
    return _case(both=False)


def _case(both: bool) -> Case:
    import torch
    from torch import Tensor, nn

    class Language(nn.Module):
        """Scores of the next token at each position."""

        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(20, 16)
            self.core = nn.GRU(16, 16, batch_first=True, bidirectional=both)
            self.head = nn.Linear(32 if both else 16, 20)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.core(self.tokens(x))[0])
            return out

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out.flatten(0, 1), y.flatten())

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text = torch.randint(0, 20, (16, 11))
        return Case(Language(), (text[:, :-1], text[:, 1:]), loss, story="a language model")

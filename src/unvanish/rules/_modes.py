"""A model that is trained in evaluation mode, as a watched training shows it.

Limits

Of a training in evaluation mode:

    TIMES = 3     times in a row that the model was asked for its mode as its optimizer stepped
    LASTING = 20  steps since the first of them. A validation makes none
"""

from __future__ import annotations

from unvanish.core.diagnosis import Evidence, NotApplicable, Remedy
from unvanish.core.run_facts import ModeFacts
from unvanish.core.trace import Trace
from unvanish.rules import _history, _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import SLOW

TIMES, LASTING = 3, 20


def judge_modes(trace: Trace) -> list[Fault]:
    """One fault if the steps of a watched training are made in evaluation mode, and that is no choice.

    It is one where normalisations keep statistics of other data, from the first step on.
    """
    modes = trace.facts.get("modes")
    if modes is None:
        raise NotApplicable("the model is in training mode when its optimizer steps")
    taken = _history.read_steps(trace, "step")
    lasting = int(taken[-1]) - modes["since"] if len(taken) else 0
    acts = modes["norms"] or modes["dropouts"]
    if not acts or modes["times"] < TIMES or lasting < LASTING or not (modes["turned"] or modes["fresh"]):
        return []
    return [_tell(modes)]


def _tell(modes: ModeFacts) -> Fault:
    names = tuple(modes["norms"])[: _places.MOST] or ("(model)",)
    what = [_count(len(modes["norms"]), "normalisation") + _freeze(modes)] if modes["norms"] else []
    what += [f"{_count(modes['dropouts'], 'dropout')} off"] if modes["dropouts"] else []
    begin = (
        f"the steps since {modes['since']} are made in evaluation mode, those before were not"
        if modes["turned"]
        else "every step is made in evaluation mode"
    )
    why = (
        "model.train() after each validation, before the next batch"
        if modes["turned"]
        else "model.train() before the training loop"
    )
    return Fault(
        severity="warning",
        cause=f"{begin}: {' and '.join(what)}",
        sites=names,
        evidence=(
            Evidence("times asked, in evaluation mode", modes["times"], limit=f"< {TIMES}"),
            Evidence("dropouts that are off", modes["dropouts"]),
        ),
        remedies=(Remedy("set-mode", names, why, safety="advice"),),
        direction="none",
        tier=SLOW,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s are' if number > 1 else ' is'}"


def _freeze(modes: ModeFacts) -> str:
    fresh = len(modes["fresh"]) == len(modes["norms"])
    return " frozen with running statistics that are still 0 and 1" if fresh else " frozen"

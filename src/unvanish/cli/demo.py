"""`unvanish demo`: a fault found and cured in a small model of a rule, or the story on real digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from unvanish.cli.errors import CallError, stoppable

if TYPE_CHECKING:
    from unvanish.core.diagnosis import Case, Diagnosis
    from unvanish.rules import Rule

Code = Annotated[
    str | None,
    typer.Argument(
        metavar="[CODE]", help="A rule's code or name; without one, a deep network learns to read digits."
    ),
]


@stoppable
def demo(
    code: Code = None,
    healthy: Annotated[
        bool, typer.Option("--healthy", help="The model on which the rule is silent.")
    ] = False,
) -> None:
    """Plant a fault, find it, cure it, prove it."""
    if code is None:
        from unvanish.cli.story import tell

        tell()
        return
    _of_rule(code, "healthy" if healthy else "sick")


def _of_rule(code: str, which: str) -> None:
    import torch

    from unvanish.cli.cure import treated
    from unvanish.cli.examine import examined
    from unvanish.cli.subject import Subject
    from unvanish.clinic.config import Config
    from unvanish.reports import report
    from unvanish.rules import rule

    try:
        chosen = rule(code)
    except KeyError as error:
        raise CallError(error.args[0]) from error
    torch.manual_seed(0)
    case = chosen.case(which)
    print(f"{chosen.code} {chosen.name}: the {which} model. {' '.join(case.story.split())}\n")
    if "training" in case.options:
        _trained(chosen, which, case)
        return
    subject = Subject(f"the {which} model of {chosen.code}", case.model, options=case.options)
    diagnosis = examined(subject, case.batch, case.loss, Config())
    report(".txt").print_report(diagnosis)
    _agreed(chosen, which, diagnosis)
    if not diagnosis.healthy:
        print()
        report(".txt", "cure").print_report(treated(subject, case.batch, case.loss))


def _trained(chosen: Rule, which: str, case: Case) -> None:
    """A fault that takes a training to show: train the case under watch, and tell its story."""
    from unvanish.clinic.watch import rehearse
    from unvanish.reports.run.text import told

    diagnosis = rehearse(case, name=f"the {which} training of {chosen.code}")
    print(told(diagnosis))
    _agreed(chosen, which, diagnosis)


def _agreed(chosen: Rule, which: str, diagnosis: Diagnosis) -> None:
    """Fail where a rule does not say of its own case what it must."""
    found = chosen.code in diagnosis.codes("note")
    if found is (which == "healthy"):
        did = "fired" if found else "stayed silent"
        text = f"{chosen.code} {did} on its {which} model; that is a fault of the rule, please report it"
        raise CallError(text)

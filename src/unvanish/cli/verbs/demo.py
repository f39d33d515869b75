"""`unvanish demo`: find and cure a fault in a small model of a rule, or in a deep network on real digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from unvanish.cli.errors import CallError, stoppable

if TYPE_CHECKING:
    from unvanish.core.diagnosis import Case, Diagnosis
    from unvanish.rules import Rule

ORDER = 80

Code = Annotated[
    str | None,
    typer.Argument(
        metavar="[CODE]", help="A rule's code or name; by default a deep network learns to read digits."
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
        from unvanish.cli.story import run_story

        run_story()
        return
    _run_rule(code, "healthy" if healthy else "sick")


def _run_rule(code: str, which: str) -> None:
    import torch

    from unvanish.cli.examine import examine
    from unvanish.cli.subject import Subject
    from unvanish.cli.treat import treat
    from unvanish.clinic.config import Config
    from unvanish.reports import print_report
    from unvanish.rules import rule

    try:
        chosen = rule(code)
    except KeyError as error:
        raise CallError(error.args[0]) from error
    torch.manual_seed(0)
    case = chosen.case(which)
    print(f"{chosen.code} {chosen.name}: the {which} model. {' '.join(case.story.split())}\n")
    if "training" in case.options:
        _train(chosen, which, case)
        return
    subject = Subject(f"the {which} model of {chosen.code}", case.model, options=case.options)
    diagnosis = examine(subject, case.batch, case.loss, Config())
    print_report(diagnosis)
    _confirm(chosen, which, diagnosis)
    if not diagnosis.healthy:
        print()
        print_report(treat(subject, case.batch, case.loss))


def _train(chosen: Rule, which: str, case: Case) -> None:
    """A fault that only a training shows: train the case, watched, and print the report."""
    from unvanish.clinic.watch import rehearse
    from unvanish.reports.run.text import render_watch

    diagnosis = rehearse(case, name=f"the {which} training of {chosen.code}")
    print(render_watch(diagnosis))
    _confirm(chosen, which, diagnosis)


def _confirm(chosen: Rule, which: str, diagnosis: Diagnosis) -> None:
    """CallError if a rule is silent on its sick model, or fires on its healthy one."""
    fired = chosen.code in diagnosis.codes("note")
    if fired is (which == "healthy"):
        did = "fired" if fired else "was silent"
        raise CallError(
            f"{chosen.code} {did} on its {which} model; this is a bug in the rule, please report it"
        )

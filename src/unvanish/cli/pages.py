"""`explain`, `rules` and `demo`: the rules' own pages, settings and small models, shown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from unvanish.cli.errors import CallError, stoppable

if TYPE_CHECKING:
    from unvanish.registry import Rule

Code = Annotated[
    str, typer.Argument(metavar="CODE", help="A rule's code or name; `unvanish rules` lists them.")
]


@stoppable
def explain(code: Code) -> None:
    """Show the page of a rule."""
    rule = _rule(code)
    facts = [f"needs: {', '.join(sorted(rule.needs)) or 'nothing'}", f"settings: {_settings(rule) or 'none'}"]
    if rule.explains:
        facts.append(f"explains: {', '.join(sorted(rule.explains))}")
    if not sys.stdout.isatty():
        print(f"{rule.code} {rule.name}", *facts, "", rule.page, sep="\n")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(highlight=False)
    console.print(f"[bold]{rule.code} {rule.name}[/]")
    for fact in facts:
        console.print(fact, style="dim", markup=False)
    console.print()
    console.print(Markdown(rule.page), width=min(console.width, 100))


@stoppable
def rules() -> None:
    """List the rules with their settings."""
    from unvanish import registry

    found = list(registry.rules().values())
    if not sys.stdout.isatty():
        for rule in found:
            print(*_row(rule), sep="\t")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("code", "name", "detects", "needs", "settings"):
        table.add_column(head, no_wrap=head in ("code", "name"))
    for rule in found:
        table.add_row(*_row(rule))
    Console(highlight=False, markup=False).print(table)


@stoppable
def demo(
    code: Code = "ACT002",
    healthy: Annotated[bool, typer.Option("--healthy", help="The model on which it is silent.")] = False,
) -> None:
    """Let a rule find its fault in a small model."""
    import torch

    from unvanish.cli.examine import examined
    from unvanish.cli.model import Subject
    from unvanish.config import Config
    from unvanish.registry import report

    rule, which = _rule(code), "healthy" if healthy else "sick"
    torch.manual_seed(0)
    case = rule.case(which)
    print(f"{rule.code} {rule.name}: the {which} model. {' '.join(case.story.split())}\n")
    subject = Subject(f"the {which} model of {rule.code}", case.model, options=case.options)
    diagnosis = examined(subject, case.batch, case.loss, Config())
    report(".txt").print_report(diagnosis)
    found = rule.code in diagnosis.codes("note")
    if found is healthy:
        did = "fired" if found else "stayed silent"
        raise CallError(
            f"{rule.code} {did} on its {which} model; that is a fault of the rule, please report it"
        )


def _row(rule: Rule) -> tuple[str, ...]:
    return rule.code, rule.name, sentence(rule), ", ".join(sorted(rule.needs)), _settings(rule)


def sentence(rule: Rule) -> str:
    """The first sentence of a rule's page."""
    paragraph = " ".join(rule.page.partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".")


def _rule(code: str) -> Rule:
    from unvanish.registry import rule

    try:
        return rule(code)
    except KeyError as error:
        raise CallError(error.args[0]) from error


def _settings(rule: Rule) -> str:
    return ", ".join(f"{name} = {value}" for name, value in rule.settings.items())

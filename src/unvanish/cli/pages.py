"""The pages of rules, cures and symptoms, and tables of them, for `explain`, `rules` and `cures`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unvanish.cli.errors import CallError
from unvanish.cli.outcome import is_alone, write_json

if TYPE_CHECKING:
    from unvanish.cures import Cure
    from unvanish.rules import Rule
    from unvanish.symptoms import Symptom

Other = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show the page of this one.")]


OTHERS = 3  # symptoms that are named below a page


def summarise(entry: Rule | Cure | Symptom) -> str:
    """The first sentence of a page, or its title."""
    return str(getattr(entry, "title", "")) or find_sentence(entry.page)


def find_sentence(text: str) -> str:
    """The first sentence of a text, without its full stop."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".")


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal, its first two columns on one line; else one row a line, separated by tabs."""
    if not sys.stdout.isatty():
        for row in rows:
            print(*row, sep="\t")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, head in enumerate(heads):
        table.add_column(head, no_wrap=place < 2)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)


def write_index(kind: str, entries: Iterable[Any], json: str | None) -> bool:
    """Write the table of all as JSON where --json says; whether it took stdout for itself."""
    from unvanish.reports.documents import index

    alone = is_alone(json)
    if json:
        write_json(index.build(kind, [(entry, summarise(entry)) for entry in entries]), json)
    return alone


def show_page(name: str, json: str | None = None) -> None:
    """Print the page of a rule, a cure or a symptom, or write it as JSON; CallError suggests the nearest."""
    alone, (entry, others) = is_alone(json), _find(name)
    if json:
        _write_page(entry, json)
    if not alone:
        _print_page(entry)
        for other in others[:OTHERS]:
            print(f"see also: unvanish explain {other.name}")


def _write_page(entry: Rule | Cure | Symptom, json: str) -> None:
    from unvanish.reports.documents import page

    kind = type(entry).__name__.lower()
    write_json(page.build(kind, entry, summarise(entry)), json)


def _print_page(entry: Rule | Cure | Symptom) -> None:
    title, facts = _describe(entry)
    if not sys.stdout.isatty():
        print(title, *facts, "", entry.page, sep="\n")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(highlight=False)
    console.print(f"[bold]{title}[/]")
    for fact in facts:
        console.print(fact, style="dim", markup=False)
    console.print()
    console.print(Markdown(entry.page), width=min(console.width, 100))


def _describe(entry: Rule | Cure | Symptom) -> tuple[str, list[str]]:
    """The title of a page, and the lines above its text."""
    from unvanish.rules import Rule
    from unvanish.symptoms import Symptom

    if isinstance(entry, Symptom):
        return entry.title, []
    settings = f"settings: {list_settings(entry) or 'none'}"
    if not isinstance(entry, Rule):
        return entry.name, [f"safety: {entry.safety}", settings]
    needs = f"needs: {', '.join(sorted(entry.needs)) or 'nothing'}"
    explains = [f"explains: {', '.join(sorted(entry.explains))}"] if entry.explains else []
    return f"{entry.code} {entry.name}", [needs, *explains, settings]


def _find(name: str) -> tuple[Rule | Cure | Symptom, Sequence[Symptom]]:
    """The page of a name, or of the symptom that shares most words with it, and others that share as many."""
    from unvanish.core.plain import name_value
    from unvanish.core.registry import suggest
    from unvanish.cures import cures as table_of_cures
    from unvanish.rules import rule
    from unvanish.rules import rules as table_of_rules
    from unvanish.symptoms import find_symptoms, symptoms

    table, rules, pages = table_of_cures(), table_of_rules(), symptoms()
    if name in table:
        return table[name], ()
    if name in pages:
        return pages[name], ()
    with contextlib.suppress(KeyError):
        return rule(name), ()
    near = suggest(name, [*table, *rules, *(r.name for r in rules.values()), *pages])
    found = find_symptoms(name) if " " in name or not near else []
    if not found:
        lists = "`unvanish rules`, `unvanish cures` and `unvanish explain` list them"
        raise CallError(f"no rule, cure or symptom {name_value(name)}{near}; {lists}")
    return found[0], found[1:]


def list_settings(entry: Rule | Cure) -> str:
    """The settings of a rule or a cure with their defaults, on one line."""
    return ", ".join(f"{name} = {value}" for name, value in entry.settings.items())

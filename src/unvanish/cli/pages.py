"""The pages of rules and cures, and tables of them, for `explain`, `rules` and `cures`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unvanish.cli.errors import CallError
from unvanish.cli.outcome import is_alone, write_json

if TYPE_CHECKING:
    from unvanish.cures import Cure
    from unvanish.rules import Rule

Other = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show the page of this one.")]


def summarise(entry: Rule | Cure) -> str:
    """The first sentence of a page."""
    return find_sentence(entry.page)


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
    """Print the page of a rule or a cure, or write it as JSON; CallError suggests the nearest name."""
    alone, entry = is_alone(json), _find(name)
    if json:
        _write_page(entry, json)
    if not alone:
        _print_page(entry)


def _write_page(entry: Rule | Cure, json: str) -> None:
    from unvanish.reports.documents import page
    from unvanish.rules import Rule

    kind = "rule" if isinstance(entry, Rule) else "cure"
    write_json(page.build(kind, entry, summarise(entry)), json)


def _print_page(entry: Rule | Cure) -> None:
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


def _describe(entry: Rule | Cure) -> tuple[str, list[str]]:
    """The title of a page, and the lines above its text."""
    from unvanish.rules import Rule

    settings = f"settings: {list_settings(entry) or 'none'}"
    if not isinstance(entry, Rule):
        return entry.name, [f"safety: {entry.safety}", settings]
    needs = f"needs: {', '.join(sorted(entry.needs)) or 'nothing'}"
    explains = [f"explains: {', '.join(sorted(entry.explains))}"] if entry.explains else []
    return f"{entry.code} {entry.name}", [needs, *explains, settings]


def _find(name: str) -> Rule | Cure:
    from unvanish.core.registry import suggest
    from unvanish.cures import cures as table_of_cures
    from unvanish.rules import rule
    from unvanish.rules import rules as table_of_rules

    table, rules = table_of_cures(), table_of_rules()
    if name in table:
        return table[name]
    try:
        return rule(name)
    except KeyError as error:
        near = suggest(name, [*table, *rules, *(r.name for r in rules.values())])
        text = f"no rule or cure {name!r}{near}; `unvanish rules` and `unvanish cures` list them"
        raise CallError(text) from error


def list_settings(entry: Rule | Cure) -> str:
    """The settings of a rule or a cure with their defaults, on one line."""
    return ", ".join(f"{name} = {value}" for name, value in entry.settings.items())

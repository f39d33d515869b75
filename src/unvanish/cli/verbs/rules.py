"""`unvanish rules`: the rules with their settings."""

from __future__ import annotations

from unvanish.cli import options
from unvanish.cli.errors import stoppable
from unvanish.cli.pages import Other, list_settings, print_table, show_page, summarise, write_index

ORDER = 60


@stoppable
def rules(name: Other = None, json: options.Json = None) -> None:
    """List the rules with their settings."""
    from unvanish.rules import rules as table_of_rules

    if name is not None:
        return show_page(name, json)
    if write_index("rule", table_of_rules().values(), json):
        return
    rows = [
        (r.code, r.name, summarise(r), ", ".join(sorted(r.needs)), list_settings(r))
        for r in table_of_rules().values()
    ]
    print_table(("code", "name", "detects", "needs", "settings"), rows)

"""`unvanish cures`: the cures with their safety and settings."""

from __future__ import annotations

from unvanish.cli import options
from unvanish.cli.errors import stoppable
from unvanish.cli.pages import Other, list_settings, print_table, show_page, summarise, write_index

ORDER = 70


@stoppable
def cures(name: Other = None, json: options.Json = None) -> None:
    """List the cures with their safety and settings."""
    from unvanish.cures import cures as table_of_cures

    if name is not None:
        return show_page(name, json)
    if write_index("cure", table_of_cures().values(), json):
        return
    rows = [(c.name, c.safety, summarise(c), list_settings(c)) for c in table_of_cures().values()]
    print_table(("name", "safety", "does", "settings"), rows)

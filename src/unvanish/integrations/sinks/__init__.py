"""Sinks: where the record of a watch goes besides its run folder, one file for each, found by being there.

A file holds `SINK`, which makes a sink of the text after the colon in `to="name:place"` or of the user's own
open run, and `ADOPTS`, the names of the classes of such runs. It imports its library at its top, as it is
imported only if it is asked for. Another package adds a sink by an entry point of the group "unvanish.sinks".
"""

from unvanish.core.sink import PREFIX, Sink, SinkRow

__all__ = ["PREFIX", "Sink", "SinkRow"]

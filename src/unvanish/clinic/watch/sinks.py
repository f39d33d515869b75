"""What `to=` names: sinks of ours and of others by name, sinks themselves, or an open run of a tracker.

Notable:
- A file of `integrations/sinks` is a sink of its name: `SINK` makes it of the text after the colon in
  "name:place", or of the user's own open run if its class is named in `ADOPTS`. It is imported when it is
  asked for, by its name, as an entry point is: no floor below knows it.
- Others add theirs by an entry point of the group "unvanish.sinks", a class or a function of that text.
- Opening one leaves the random states of Python, NumPy and torch as they were.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from unvanish.clinic.watch.feeds import SinkFeed
from unvanish.core.caution import caution, summarize
from unvanish.core.plain import name_value
from unvanish.core.registry import suggest
from unvanish.core.sink import Sink
from unvanish.probes.errors import CheckError

GROUP = "unvanish.sinks"  # of entry points
OURS = "unvanish.integrations.sinks"
FOLDER = Path(__file__).parents[2] / "integrations" / "sinks"
MOST = 16  # sinks of one watch


def read_sinks(to: Any) -> dict[str, Sink]:
    """The sinks that `to` names, by the names they are told of; CheckError in one line for what is none."""
    wanted = list(to) if isinstance(to, (list, tuple)) else [] if to is None else [to]
    if len(wanted) > MOST:
        raise CheckError(f"to= names {len(wanted)} sinks; at most {MOST} can be fed")
    found: dict[str, Sink] = {}
    with keep_random_states():
        for one in wanted:
            name, sink = _read_sink(one)
            found[name if name not in found else f"{name} {len(found) + 1}"] = sink
    return found


def open_feeds(sinks: Mapping[str, Sink], about: Mapping[str, Any]) -> tuple[SinkFeed, ...]:
    """Open these sinks and feed them; one that cannot be opened is left out, with one warning.

    `about`: the name of what is watched, the class of the model, the folder of the run.
    """
    feeds: list[SinkFeed] = []
    for name, sink in sinks.items():
        try:
            with keep_random_states():
                sink.open(about)
        except (KeyboardInterrupt, SystemExit):
            for feed in feeds:
                feed.close()
            raise
        except Exception as error:
            caution(
                f"unvanish: the sink {name} is left out, as it could not be opened ({summarize(error)}); the "
                "training goes on without it"
            )
            continue
        folder = about.get("folder")
        feeds.append(SinkFeed(name, sink, None if folder is None else Path(folder)))
    return tuple(feeds)


def list_names() -> list[str]:
    """The names of all sinks, ours and those of other packages."""
    return sorted({*_find_ours(), *_find_others()})


def _read_sink(one: Any) -> tuple[str, Sink]:
    """A sink and its name, of one entry of `to`."""
    if isinstance(one, Sink):
        return type(one).__name__, one
    if isinstance(one, Path):
        one = f"jsonl:{one}"
    if not isinstance(one, str):
        return _adopt(one)
    name, _, place = one.partition(":")
    if name in _find_ours():
        return name, _make(_import_ours(name).SINK, name, place)
    others = _find_others()
    if name in others:
        return name, _make(_load_other(others[name]), name, place)
    known = list_names()
    raise CheckError(
        f"to={name_value(one)} is no sink{suggest(name, known)}; there are {', '.join(known)}, or give a Sink"
    )


def _adopt(given: Any) -> tuple[str, Sink]:
    """A sink for an open run of the user's; CheckError if it is nothing that a sink knows."""
    kind = type(given)
    library = kind.__module__.partition(".")[0]
    name = "tensorboard" if kind.__name__ == "SummaryWriter" else library
    if name in _find_ours():
        ours = _import_ours(name)
        if kind.__name__ in ours.ADOPTS:
            return name, _make(ours.SINK, name, given)
    raise CheckError(
        f"to= holds {name_value(given)}, which is no sink; give a name ({', '.join(list_names())}), a Sink, "
        "or an open run of one of these"
    )


def _make(maker: Any, name: str, given: Any) -> Sink:
    try:
        sink = maker(given)
    except Exception as error:
        raise CheckError(f"to={name!r}: {summarize(error)}") from error
    if not isinstance(sink, Sink):
        raise CheckError(f"to={name!r}: {name_value(maker)} makes {name_value(sink)}, which is no Sink")
    return sink


def _find_ours() -> list[str]:
    return [info.name for info in pkgutil.iter_modules([str(FOLDER)]) if not info.name.startswith("_")]


def _find_others() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _import_ours(name: str) -> ModuleType:
    """The file of a sink; CheckError with its extra if its library is not installed."""
    try:
        return importlib.import_module(f"{OURS}.{name}")
    except ImportError as error:
        raise CheckError(
            f"to={name!r} needs a library that is not installed: pip install 'unvanish[{name}]' ({error})"
        ) from error


def _load_other(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise CheckError(f"to={point.name!r}: {point.value} cannot be loaded: {summarize(error)}") from error


@contextmanager
def keep_random_states() -> Iterator[None]:
    """Leave the random states of this process as they were: libraries draw names for their runs."""
    python, numpy, own = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(own)

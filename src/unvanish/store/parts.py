"""The parts of a run's record from their JSON and their rows; ValueError or TypeError for what no run has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

from unvanish.core.bounds import parse_json
from unvanish.core.diagnosis import SEVERITIES, Direction, Evidence, Finding, Remedy, Safety
from unvanish.core.run_facts import RunFacts
from unvanish.core.trace import Axis, Role, Site

DEEPEST = 30  # of findings within each other, and lists within lists
TEXTS = ("model", "python", "torch", "layout")
DAMAGED = (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError)  # of a record
EARLIER = "earlier"  # key of the sites of earlier looks, which are no fact of the run
SITE_PARTS = 4  # path, kind, role, facts
COUNTS = ("looks", "dropped", "lost_steps", "site_count", "parameters", "rank", "shards")
MOST_RANKS = 2**16  # that train together


def read_facts(rows: list[tuple[Any, Any]]) -> RunFacts:
    """The facts of a run from the rows of `meta`."""
    facts: dict[str, Any] = {
        _text(key, "a key"): parse_json(_text(value, "a fact"), deepest=DEEPEST)
        for key, value in rows
        if key != EARLIER
    }
    _text(facts.get("name", ""), "name")
    for key in TEXTS:
        _text(facts.get(key, ""), key)
    for key in COUNTS:
        _whole(facts.get(key, 0), key)
    for key in ("statistics", "optimizers", "notes"):
        for name in _list(facts.get(key, []), key):
            _text(name, key)
    for rank in _list(facts.get("relayed", []), "relayed"):
        _whole(rank, "a rank")
    for session in _list(facts.get("sessions", []), "sessions"):
        _read_session(*_list(session, "a session"))
    statistics = facts.get("statistics", [])
    if len(set(statistics)) != len(statistics):
        raise ValueError("two statistics have one name")
    for axis in _list(facts.get("axes", []), "axes"):
        if "backward_log" not in statistics:
            raise ValueError("there is an axis, and no gradient among the statistics")
        read_axis(axis, None)
    if not isinstance(facts.get("overhead"), int | float | None) and facts["overhead"] not in ("nan", "inf"):
        raise TypeError("the overhead is no number")
    return cast(RunFacts, facts)


def _read_session(first: Any, ranks: Any) -> None:
    if _whole(first, "a step") < 0 or not 0 < _whole(ranks, "a number of ranks") <= MOST_RANKS:
        raise ValueError("a session has no ranks, or too many")


def read_layout(text: Any) -> list[tuple[int, list[list[Any]], tuple[str, ...]]]:
    """The last step, the rows of the sites and the statistics of each earlier layout, from its JSON text."""
    entries = _list(parse_json(_text(text, "the earlier sites"), deepest=DEEPEST), "the earlier sites")
    found = []
    for until, sites, statistics in (_list(e, "a layout") for e in entries):
        rows = [_list(s, "a site") for s in _list(sites, "the sites of a layout")]
        if any(len(row) != SITE_PARTS for row in rows) or len(set(statistics)) != len(statistics):
            raise ValueError("a layout's site or statistics are not as they are written")
        found.append((_whole(until, "a step"), rows, _texts(statistics)))
    return found


def read_axis(axis: Any, count: int | None) -> Axis:
    """An axis from its JSON; its sites must be among the first `count`."""
    sites = [_whole(index, "a site of an axis") for index in _list(axis["sites"], "the sites of an axis")]
    if sites and (min(sites) < 0 or (count is not None and max(sites) >= count)):
        raise ValueError("an axis names a site that is not there")
    return Axis(_text(axis["name"], "an axis"), cast(Any, _text(axis["kind"], "an axis")), tuple(sites))


def read_site(path: Any, kind: Any, role: Any, facts: Any) -> Site:
    """A site from its row."""
    if role not in get_args(Role):
        raise ValueError(f"a site has the role {role!r}")
    held = parse_json(_text(facts, "the facts of a site"), deepest=DEEPEST)
    if not isinstance(held, dict):
        raise TypeError("the facts of a site are no table")
    if not isinstance(held.get("dimensions", 0), int) or not isinstance(held.get("steps", 0), int):
        raise TypeError("a count among the facts of a site is no number")
    return Site(_text(path, "a path"), _text(kind, "a kind"), 0, role, cast(Any, held))


def read_finding(text: Any) -> Finding:
    """A finding from its JSON text."""
    return parse_finding(parse_json(_text(text, "a finding"), deepest=DEEPEST))


def parse_finding(body: Mapping[str, Any]) -> Finding:
    """A finding from its JSON."""
    parts = dict(body)
    for key in ("code", "name", "cause"):
        _text(parts[key], key)
    if parts["severity"] not in SEVERITIES or parts.get("direction", "none") not in get_args(Direction):
        raise ValueError("a finding is of no known severity or direction")
    parts["sites"] = _texts(parts.get("sites", ()))
    parts["evidence"] = tuple(_read_evidence(e) for e in _list(parts.get("evidence", []), "the evidence"))
    parts["remedies"] = tuple(_read_remedy(r) for r in _list(parts.get("remedies", []), "the remedies"))
    children = _list(parts.get("consequences", []), "the consequences")
    parts["consequences"] = tuple(parse_finding(c) for c in children)
    _text(parts.get("line", ""), "a line")
    if parts.get("excuse") is not None:
        raise ValueError("a finding of a run has an excuse")
    return Finding(**parts)


def _read_evidence(entry: Any) -> Evidence:
    made = Evidence(**entry)
    for value in (made.name, made.unit, made.limit, made.site):
        _text(value, "evidence")
    if not isinstance(made.value, int | float | str):
        raise TypeError("the value of evidence is neither a number nor a text")
    return made


def _read_remedy(entry: Any) -> Remedy:
    made = Remedy(**{**entry, "targets": _texts(entry.get("targets", ()))})
    _text(made.cure, "a cure")
    _text(made.why, "a reason")
    if made.safety not in get_args(Safety) or not isinstance(made.parameters, Mapping):
        raise ValueError("a remedy is of no known safety, or its parameters are no table")
    return made


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is no text")
    return value


def _whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is no whole number")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{what} is no list")
    return list(value)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(entry, "a name") for entry in _list(value, "names"))

"""One command: environments, questions, tables. See the package's docstring."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

import benchmarks.peers.adapters as folder
from benchmarks import record
from benchmarks.peers import absent, environments
from benchmarks.peers.adapter import Adapter
from benchmarks.peers.kinds import Answer, Exam, Said, claim_of
from benchmarks.peers.sheet import Row, figures, judge, markdown, table

OWN = ("unvanish_check", "unvanish_watch")
HOURS = 2 * 3600


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="where the environments and answers lie")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this adapter; can be repeated")
    parser.add_argument(
        "--planted", type=int, default=25, metavar="N", help="planted faults, each with its twin"
    )
    parser.add_argument("--healthy", type=int, default=20, metavar="N")
    parser.add_argument("--every", type=int, default=6, metavar="N", help="each Nth report and architecture")
    parser.add_argument("--steps", type=int, default=60, metavar="N", help="of a watched training")
    parser.add_argument("--again", action="store_true", help="forget the answers that lie in the cache")
    parser.add_argument("--words", action="store_true", help="print what each said of each case")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    record.add_option(parser)
    return parser.parse_args()


def adapters() -> dict[str, type[Adapter]]:
    """Every adapter by its file's name, ours first."""
    names = sorted((m.name for m in pkgutil.iter_modules(folder.__path__)), key=lambda n: (n not in OWN, n))
    return {name: importlib.import_module(f"{folder.__name__}.{name}").ADAPTER for name in names}


def ask(name: str, kind: type[Adapter], options: argparse.Namespace) -> Row:
    """The answers of a tool, from its own environment; a row without answers says why."""
    own = name in OWN
    place = (
        environments.own_environment()
        if own
        else environments.tool_environment(options.cache, name, kind.REQUIRES)
    )
    versions = environments.versions(place.python, kind.REQUIRES or (("unvanish",) if own else ("torch",)))
    if place.trouble:
        return Row(kind.TITLE, kind.USED, versions, trouble=f"not installed: {place.trouble}")
    out = options.cache / "answers" / f"{name}.jsonl"
    exam = [f"--{key}={getattr(options, key)}" for key in ("planted", "healthy", "every", "steps")]
    out.parent.mkdir(parents=True, exist_ok=True)
    if options.again:
        out.unlink(missing_ok=True)
    call = [str(place.python), "-m", "benchmarks.peers.ask", name, str(out), *exam]
    root, own_path = environments.ROOT, environment(own)
    done = subprocess.run(
        call, cwd=root, env=own_path, capture_output=True, text=True, timeout=HOURS, check=False
    )
    if done.returncode:
        return Row(kind.TITLE, kind.USED, versions, trouble=last_line(done.stderr))
    cost, answers = read(out, kind.CLAIMS)
    return Row(kind.TITLE, kind.USED, versions, cost, answers)


def environment(own: bool) -> dict[str, str]:
    """One thread, this repository to import; unvanish only where it is asked."""
    paths = [environments.ROOT, *([environments.ROOT / "src"] if own else [])]
    fixed = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, paths))}
    return {**os.environ, **fixed}


def last_line(text: str) -> str:
    """The last line of an error."""
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["no word"])[-1][:200]


def read(out: Path, claims: Mapping[str, str]) -> tuple[Mapping[str, Any], list[Answer]]:
    """What `ask` wrote, its words by these kinds; those of a tool without kinds keep theirs."""
    first, *rows = (json.loads(line) for line in out.read_text().splitlines())
    answers = []
    for row in rows:
        exam = Exam(**{key: tuple(v) if isinstance(v, list) else v for key, v in row["exam"].items()})
        said = [
            Said(
                one["words"], claim_of(one["words"], claims) if claims else one["claim"], tuple(one["places"])
            )
            for one in row["said"]
        ]
        answers.append(Answer(**{**row, "exam": exam, "said": said, "losses": tuple(row["losses"])}))
    return first["cost"], answers


def try_absent(cache: Path) -> dict[str, str]:
    """What becomes of the packages that could not be used when this was written."""
    found = {}
    for title, (requires, name) in absent.TRIED.items():
        place = environments.tool_environment(cache, f"tried-{name}", (requires,))
        if place.trouble:
            found[f"{title} ({requires})"] = f"not installed: {place.trouble}"
            continue
        call = [str(place.python), "-c", f"import {name}"]
        said = subprocess.run(call, capture_output=True, text=True, check=False).stderr
        found[f"{title} ({requires})"] = last_line(said) if said else "imports now: it wants an adapter"
    return found


def main() -> int:
    """Ask all and print the tables."""
    options, console = arguments(), Console(width=160)
    options.cache = options.cache.resolve()
    options.cache.mkdir(parents=True, exist_ok=True)
    chosen = {n: k for n, k in adapters().items() if not options.only or n in options.only}
    rows = {}
    for name, kind in chosen.items():
        console.print(f"asking {kind.TITLE}", highlight=False)
        rows[name] = ask(name, kind, options)
        if options.words:
            for answer in rows[name].answers:
                for said in answer.said:
                    console.print(
                        f"{answer.group:12} {answer.case}: {said.claim}: {said.words[:100]}", markup=False
                    )
    plain = rows.get("plain")
    sheet = [judge(row, plain) for name, row in rows.items() if name != "plain"]
    others = {} if options.only else {**try_absent(options.cache), **absent.UNASKED}
    console.print(table(sheet))
    for title, why in others.items():
        console.print(f"{title}: {why}", markup=False, highlight=False)
    if options.markdown:
        options.markdown.write_text(markdown(sheet, others), encoding="utf-8")
    record.append("peers", options, figures(sheet))
    return 0


if __name__ == "__main__":
    sys.exit(main())

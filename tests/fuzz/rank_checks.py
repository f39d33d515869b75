"""What a watched training of several ranks must have seen, case by case."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from unvanish.store import open_run

Check = Callable[[Any, Path], list[str]]
CHECKS: dict[str, Check] = {}


def check(*names: str) -> Callable[[Check], Check]:
    """Register a check for cases."""

    def add(function: Check) -> Check:
        CHECKS.update(dict.fromkeys(names, function))
        return function

    return add


def check_all(name: str, alone: Any, watched: Any) -> list[str]:
    """What holds in every case: no watch has failed within."""
    faults = [f"a watch failed: {o['failure']}" for o in watched.outcomes if o and o.get("failure")]
    return faults + [f"took itself off: {log[-500:]}" for log in watched.logs if "took itself off" in log]


def expect(*claims: tuple[bool, str]) -> list[str]:
    """What does not hold."""
    return [text for holds, text in claims if not holds]


def lacking(folder: Path) -> dict[int, list[int]]:
    """The steps that ranks had not."""
    return open_run(folder).lacking()


@check("plain", "exc_caught", "evalforward", "unused", "clip", "rare", "three", "four", "snapshot", "nan")
def check_whole(ended: Any, folder: Path) -> list[str]:
    """Every rank has written every step."""
    run = open_run(folder)
    steps = run.steps()["step"].tolist()
    files = sorted(p.name for p in folder.glob("run*.sqlite"))
    return expect(
        (steps == list(range(20)), f"steps {steps}"),
        (len(files) == len(ended.codes), f"files {files}"),
        (run.lacking() == {}, f"lacking {run.lacking()}"),
        (not list(folder.glob(".ranks-*")), "a marker was left"),
    )


@check("uneven_join", "uneven_join_every1", "three_join")
def check_uneven(ended: Any, folder: Path) -> list[str]:
    """The run says which rank had fewer steps."""
    found = lacking(folder)
    return expect((found == {1: list(range(13, 20))}, f"lacking {found}"))


@check("skip_one")
def check_skip(ended: Any, folder: Path) -> list[str]:
    """One step less on the second rank."""
    return expect((lacking(folder) == {1: [19]}, f"lacking {lacking(folder)}"))


@check("close_uneven")
def check_close(ended: Any, folder: Path) -> list[str]:
    """The second rank's record ends early."""
    return expect((lacking(folder) == {1: list(range(11, 20))}, f"lacking {lacking(folder)}"))


@check("only0", "only1")
def check_only(ended: Any, folder: Path) -> list[str]:
    """One rank has a record, and the run says that the other has none."""
    run = open_run(folder)
    return expect(
        (len(run.steps()["step"]) == 20, "not every step is there"),
        (len(run.lacking()) == 1, f"lacking {run.lacking()}"),
    )


@check("nan_folderless", "three_nan", "guard", "fsdp2_nan", "fsdp2_guard")
def check_nan(ended: Any, folder: Path) -> list[str]:
    """Every rank has found the gradient that is not finite."""
    found = [[f for f in o["found"] if f.startswith("NUM001")] for o in ended.outcomes]
    return expect((all(found), f"found {found}"))


@check("raise", "raise_one", "alone_together", "fsdp2_raise")
def check_raise(ended: Any, folder: Path) -> list[str]:
    """Every rank has raised what was found, and none was left waiting."""
    errors = [[line for line in log.splitlines() if "WatchError" in line] for log in ended.logs]
    return expect((all(errors), f"ended {ended.codes}, {[log[-300:] for log in ended.logs]}"))


@check("unshared")
def check_relayed(ended: Any, folder: Path) -> list[str]:
    """The first rank's folder holds what the second one sent."""
    run = open_run(folder.with_name(f"{folder.name}-0"))
    mine = open_run(folder.with_name(f"{folder.name}-1"))
    late = max(run.lacking().get(1, [20]), default=20)
    return expect(
        (run.facts().get("relayed") == [1], f"facts {run.facts()}"),
        (len(run.lacking().get(1, [])) < 15, f"lacking {run.lacking()}, {late}"),
        (len(mine.steps()["step"]) == 20, "the second rank's own folder"),
    )


@check("restart")
def check_restart(ended: Any, folder: Path) -> list[str]:
    """The second session begins at the same step on both ranks."""
    run = open_run(folder)
    return expect(
        (run.steps()["step"].tolist() == list(range(40)), f"steps {run.steps()['step']}"),
        (run.lacking() == {1: list(range(13, 20))}, f"lacking {run.lacking()}"),
    )


@check("elastic")
def check_elastic(ended: Any, folder: Path) -> list[str]:
    """The run holds every step once; ranks that are killed may lack their last moments."""
    run = open_run(folder / "run")
    steps = run.steps()["step"].tolist()
    (outcome,) = ended.outcomes
    if len(outcome.get("losses", [])) != 3:
        return [f"ended {outcome}: {ended.logs[0][-1500:]}"]
    return expect(
        (steps == list(range(14 - len(steps), 14)) and len(steps) >= 8, f"steps {steps}"),
        (outcome["losses"][0] == 0, f"ended {outcome['losses']}"),
        (len(outcome["losses"][1]) < 14, "no rank has died"),
        (all(step < 6 for steps in run.lacking().values() for step in steps), f"lacking {run.lacking()}"),
        (all("not examined" in note for note in outcome["notes"]), f"notes {outcome['notes']}"),
    )


@check("pipeline", "pipeline_same", "pipelining")
def check_stages(ended: Any, folder: Path) -> list[str]:
    """The norm of all stages, and the sites of both."""
    run = open_run(folder)
    norms = np.array([o["norms"] for o in ended.outcomes])
    whole = np.sqrt((norms**2).sum(0))
    seen = np.exp(run.steps()["norm_log"])
    sites = {s.path for s in run.sites()}
    return expect(
        (np.allclose(seen, whole, rtol=1e-6) or np.allclose(seen, whole / math.sqrt(2), rtol=1e-6),
         f"norms {seen[:3]} for {whole[:3]}"),
        (len(sites) > 1, f"sites {sites}"),
        (run.lacking() == {}, f"lacking {run.lacking()}"),
    )  # fmt: skip


@check("fsdp2", "fsdp2_64", "fsdp2_three", "hsdp", "mesh", "mesh_64", "tensor")
def check_shards(ended: Any, folder: Path) -> list[str]:
    """The joined norm is torch's norm of the whole gradient."""
    run = open_run(folder)
    wanted = np.array(ended.outcomes[0]["norms"])
    seen = np.exp(run.steps()["norm_log"])
    if seen.shape != wanted.shape:
        return [f"{len(seen)} steps"]
    apart = float(np.abs(seen / wanted - 1).max())
    trace = run.trace()
    rows = [i for i, s in enumerate(trace.sites) if s.role == "parameter"]
    logs = trace.values[:, rows, trace.statistics.index("gradient_log")]
    looks = np.sqrt(np.exp(2 * logs).sum(1)) / wanted[trace.facts["steps"]] - 1
    return expect(
        (apart < 1e-6, f"the norm is off by {apart:.1e}"),
        (bool((np.abs(looks) < 1e-5).all()), f"the looks' are off by {np.abs(looks).max():.1e}"),
        (run.lacking() == {}, f"lacking {run.lacking()}"),
    )

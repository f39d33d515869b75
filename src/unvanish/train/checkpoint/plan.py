"""From the plan that a full checkpoint of a detector carries to a description as our own weights have it.

Notable: only what describes a network is taken over: its rows, its scales, its classes. Keys of the table
that mean something else to us, or nothing, are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unvanish.core.names import show
from unvanish.lab.models.spec import HEADS
from unvanish.train.checkpoint.about import SIDE, is_count, is_number
from unvanish.train.checkpoint.full import FullCheckpoint
from unvanish.train.errors import TrainError

ROWS = ("backbone", "head")
TAKEN = ("nc", "scales", "scale", "depth_multiple", "width_multiple", "activation", *ROWS)
USUAL = {"detect": 640, "segment": 640, "classify": 224}  # pixels of an image's side
STRIDE = 32


def describe_plan(found: FullCheckpoint, path: Path) -> dict[str, Any]:
    """The description of a network by its own plan: specification, facts, names, preparation; {} without."""
    plan = found.plan
    if not all(isinstance(plan.get(key), list) and plan[key] for key in ROWS):
        return {}
    task = task_of(plan["head"][-1], path)
    count = plan.get("nc")
    names = list(found.names) or [str(i) for i in range(int(count or 0) if is_count(count) else 0)]
    channels = next((plan[k] for k in ("channels", "ch") if is_count(plan.get(k))), 3)
    side = side_of(found.settings.get("imgsz"), task)
    facts = {"classes": len(names), "channels": channels, "size": side}
    spec = {k: plan[k] for k in TAKEN if plan.get(k) is not None}
    kept = {"nc": len(names), "channels": channels, "size": side, "task": task}
    name = Path(str(plan.get("yaml_file") or path.name)).stem
    preparation = {"input": "image" if task == "classify" else "letterbox", **facts, "names": names}
    if task == "classify":
        mean, std = found.normalisation or ((0.0,) * channels, (1.0,) * channels)
        preparation |= {"mean": list(mean), "std": list(std)}
    return {
        "spec": {**spec, **kept, "name": name},
        "facts": facts,
        "task": task,
        "name": name,
        "names": names,
        "preparation": preparation,
    }


def task_of(row: Any, path: Path) -> str:
    """The task of a network by its last row; TrainError if there is no such head here."""
    head = str(row[2]) if isinstance(row, list) and len(row) > 2 else ""
    if head not in HEADS:
        there = ", ".join(f"{task} ({name})" for name, task in HEADS.items())
        raise TrainError(f"{path} is a network with the head {show(head)[:40]!r}; there are {there}")
    return HEADS[head]


def side_of(given: Any, task: str) -> int:
    """The side of the images that weights were trained on, a multiple of the stride."""
    side = max(given) if isinstance(given, list) and given and all(map(is_number, given)) else given
    if not is_count(side, SIDE):
        return USUAL[task]
    return -(-side // STRIDE) * STRIDE if task != "classify" else int(side)

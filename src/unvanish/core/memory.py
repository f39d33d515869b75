"""How much memory this process may have."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def measure_memory() -> float:
    """Bytes that this process may have: of the machine, of its container, of its limit."""
    found = [math.inf]
    if hasattr(os, "sysconf"):
        found.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    for file in CGROUPS:
        try:
            found.append(float(Path(file).read_text(encoding="ascii")))
        except (OSError, ValueError):  # "max" is no limit
            continue
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        found.append(float(limit) if limit != resource.RLIM_INFINITY else math.inf)
    except ImportError:
        pass  # not on this system
    return min(found)

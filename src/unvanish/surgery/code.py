"""Names of a model's parts as Python expressions, for the lines of PyTorch a prescription is shown as."""

from __future__ import annotations


def parameter(name: str) -> str:
    """`model.head.weight`, or `model.get_parameter("0.weight")` where a part is no identifier."""
    if all(part.isidentifier() for part in name.split(".")):
        return f"model.{name}"
    return f'model.get_parameter("{name}")'


def several(names: tuple[str, ...], most: int = 4) -> str:
    """The first names, and how many there are: `["a", "b", ...]  # 30 of them`."""
    shown = ", ".join(f'"{n}"' for n in names[:most])
    return f"[{shown}, ...]  # {len(names)} of them" if len(names) > most else f"[{shown}]"


def shortened(names: tuple[str, ...], most: int = 4) -> str:
    """`a, b, c, d, ...`."""
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])

"""MODEL on the command line: a reference to the user's code, or a name that timm or Transformers knows.

(A YAML's network comes from `lab.py`.)

Notable:
- A reference names a module, a class, or a function that returns a module, (model, batch),
  (model, batch, loss) or a `Case`; options of the call replace its batch and its loss.
- `timm:` and `hf:` models are built from their configuration with random weights; nothing is downloaded.
"""

from __future__ import annotations

from typing import Any

from unvanish.cli import reference
from unvanish.cli.errors import CallError
from unvanish.cli.subject import Subject
from unvanish.core.diagnosis import Case

FORMS = "file.py:callable, package.module:callable, NAME.yaml, timm:NAME or hf:NAME"
RETURNS = "a torch.nn.Module, (model, batch) or (model, batch, loss)"


def load(text: str) -> Subject:
    """The subject that MODEL names; CallError names the wrong part and the right form."""
    kind, _, name = text.partition(":")
    if kind in ("timm", "hf"):
        from unvanish.cli import architectures

        return architectures.load_timm(name) if kind == "timm" else architectures.load_hf(name)
    if ":" not in text and not text.endswith(".py"):
        raise CallError(f"MODEL {text!r} is none of {FORMS}{_hint(text)}")
    return make_subject(text, reference.load(text, "MODEL"))


def make_subject(text: str, value: Any) -> Subject:
    """The subject of an object: a module, or what a callable returns."""
    import torch

    origin = value if callable(value) else None
    if not isinstance(value, torch.nn.Module | Case | tuple) and callable(value):
        value = reference.call(value, text, "MODEL", RETURNS)
    if isinstance(value, Case):
        return Subject(
            text, _module(value.model, text), value.batch, value.loss, value.options, origin=origin
        )
    if isinstance(value, tuple) and 2 <= len(value) <= 3:
        net, batch, loss = (*value, None)[:3]
        return Subject(text, _module(net, text), batch, loss, origin=origin)
    return Subject(text, _module(value, text), origin=origin)


def _hint(text: str) -> str:
    place, dot, name = text.rpartition(".")
    return f"; did you mean '{place}:{name}'?" if dot and place and name.isidentifier() else ""


def _module(value: Any, text: str) -> Any:
    import torch

    if not isinstance(value, torch.nn.Module):
        kind = f"a tuple of {len(value)}" if isinstance(value, tuple) else f"{type(value).__name__!r}"
        raise CallError(f"MODEL {text} gave {kind}; {RETURNS} is needed")
    return value

"""Prescriptions: remedies as YAML, to be read, compared, committed, and applied in the user's own script.

Notable: a prescription knows its architecture by a fingerprint of the parameters' names and shapes, and
refuses another one; a cure that fails half-way takes back what it did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml
from torch import nn

from unvanish.clinic.script import write_script
from unvanish.core.diagnosis import Remedy, Safety
from unvanish.core.names import show
from unvanish.core.registry import suggest
from unvanish.core.shown import Shown
from unvanish.core.version import __version__
from unvanish.cures import cure
from unvanish.probes.batches import read_batch
from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.probes.intact import intact, unwrap
from unvanish.store.files import read_text, write_text
from unvanish.store.yaml_text import YamlFault, parse
from unvanish.surgery.receipt import Receipt, SurgeryError
from unvanish.surgery.surgery import Surgery

FORMAT = 1
SMALL = 1 << 20  # bytes of a weight of which a copy is kept; of larger ones, what the receipt undoes
KEYS = ("cure", "targets", "parameters", "safety", "why")


class PrescriptionError(ValueError):
    """A prescription that cannot be read or does not fit the model; the text names the part."""


@dataclass(frozen=True, repr=False)
class Prescription(Shown):
    """Remedies in the order in which they are applied, and the architecture they are for."""

    remedies: tuple[Remedy, ...] = ()
    architecture: Mapping[str, Any] = field(default_factory=dict)
    version: str = __version__

    def __bool__(self) -> bool:
        return bool(self.remedies)

    @property
    def safety(self) -> str:
        """`exact` if every remedy keeps the function, else `retrain`."""
        return "exact" if all(r.safety == "exact" for r in self.remedies) else "retrain"

    def yaml(self) -> str:
        """The prescription as YAML."""
        document = {
            "unvanish": FORMAT,
            "version": self.version,
            "architecture": dict(self.architecture),
            "cures": [_plain(remedy) for remedy in self.remedies],
        }
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)

    def save(self, path: str | Path) -> Path:
        """Write the YAML to a file, whole or not at all; returns the path."""
        return write_text(Path(path), self.yaml(), "prescription")

    def code(self) -> str:
        """The prescription as lines of PyTorch, as one would write them by hand.

        PrescriptionError for settings that a cure cannot have.
        """
        lines: list[str] = []
        for remedy in self.remedies:
            try:
                lines += cure(remedy.cure).code(remedy)
            except ValueError as error:
                raise PrescriptionError(str(error)) from error
        return "\n".join(lines)

    def script(self) -> str:
        """The same as a whole Python file: imports, a function for each cure, and where to call it.

        PrescriptionError for settings that a cure cannot have.
        """
        try:
            return write_script(self.remedies)
        except ValueError as error:
            raise PrescriptionError(str(error)) from error

    def __str__(self) -> str:
        return self.yaml()

    @classmethod
    def load(cls, source: str | Path) -> Prescription:
        """Read a prescription from a file; PrescriptionError names the file and what is wrong in it."""
        path = Path(source)
        try:
            text = read_text(path)
        except OSError as error:
            raise PrescriptionError(f"cannot read the prescription {path}: {error}") from error
        return cls.read(text, str(path))

    @classmethod
    def read(cls, text: str, where: str = "the prescription") -> Prescription:
        """A prescription from its YAML."""
        try:
            document = parse(text)
        except YamlFault as error:
            raise PrescriptionError(f"{where}, {error}") from error
        if not isinstance(document, dict) or "cures" not in document:
            raise PrescriptionError(f"{where} has no `cures:`; unvanish did not write it")
        if document.get("unvanish") != FORMAT:
            raise PrescriptionError(
                f"{where} has format {document.get('unvanish')!r}, this version reads {FORMAT}; "
                "run `cure` again"
            )
        entries = document["cures"] or []
        if not isinstance(entries, list):
            raise PrescriptionError(f"{where}: `cures:` must be a list")
        remedies = tuple(_remedy(entry, f"{where}: cure {n}") for n, entry in enumerate(entries, 1))
        architecture = document.get("architecture") or {}
        kinds = {"model": str, "parameters": int, "hash": str}
        if not isinstance(architecture, dict) or not all(
            isinstance(architecture.get(key), kind) for key, kind in kinds.items() if architecture
        ):
            raise PrescriptionError(f"{where}: `architecture:` must give model, parameters and hash")
        return cls(remedies, architecture, str(document.get("version", "")))


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """What identifies an architecture: class, number of parameters, a hash of names and shapes."""
    rows = [f"{n} {tuple(p.shape)}" for n, p in model.named_parameters(remove_duplicate=False)]
    rows += [f"{n} {type(m).__name__}" for n, m in model.named_modules() if n]
    digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]
    return {
        "model": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "hash": digest,
    }


def apply(
    model: nn.Module,
    prescription: Prescription | str | Path | Iterable[Remedy],
    *,
    optimizer: Any = None,
    batch: Any = None,
    loss: Any = None,
    force: bool = False,
) -> Receipt:
    """Apply a prescription (or a file of one) to a model, in place; the receipt can take it all back.

    `optimizer` is kept up to date if parameters come or go, and carries the cures around it (clipping,
    warm-up). `batch` is one batch of real data (as in `check`), needed by cures that calibrate themselves.
    PrescriptionError if it was written for another architecture (`force` skips this check), SurgeryError if a
    cure cannot be applied; the model is then as it was.
    """
    if isinstance(prescription, (str, Path)):
        prescription = Prescription.load(prescription)
    elif not isinstance(prescription, Prescription):
        prescription = Prescription(tuple(prescription))
    if batch is not None:
        batch = read_batch(model, batch, loss, own=False).batch
    surgery = Surgery(model, batch=batch, loss=loss, optimizer=optimizer)
    if prescription.architecture and not force:
        _meets(model, prescription.architecture)
    with intact(unwrap(model), batch, loss, optimizer, most=SMALL, off=()) as kept, kept:
        try:
            for remedy in prescription.remedies:
                operate(surgery, remedy)
            receipt = surgery.finish()
        except BaseException:
            surgery.receipt.undo()
            raise
        kept.forget()
    return receipt


def operate(surgery: Surgery, remedy: Remedy) -> None:
    """Apply one remedy; SurgeryError if it is only advice, or does not fit the model or its cure."""
    chosen = cure(remedy.cure)
    if remedy.safety == "advice":
        raise SurgeryError(f"{remedy.cure} is advice for a person to follow; it cannot be applied")
    if fault := chosen.find_fault(remedy.parameters):
        raise SurgeryError(fault)
    try:
        chosen.apply(surgery, remedy.targets, **remedy.parameters)
    except (SurgeryError, CheckError, ModelCrash):
        raise
    except Exception as error:  # what a cure met is not what it is for
        places = ", ".join(map(repr, remedy.targets)) or "the model"
        why = show(f"{type(error).__name__}: {error}".partition("\n")[0][:200])
        raise SurgeryError(
            f"{remedy.cure} cannot be applied to {show(places)} ({why}); run `cure` on this model for one "
            "that fits"
        ) from error


def _meets(model: nn.Module, wanted: Mapping[str, Any]) -> None:
    here = fingerprint(model)
    if here["hash"] == wanted.get("hash"):
        return
    one, other = (f"{a.get('model')} with {a.get('parameters'):,} parameters" for a in (wanted, here))
    raise PrescriptionError(
        f"the prescription was written for {one}, this is {other}"
        + (" of other names, shapes or modules" if one == other else "")
        + "; run `cure` on this model, or pass force=True"
    )


def _plain(remedy: Remedy) -> dict[str, Any]:
    found: dict[str, Any] = {"cure": remedy.cure, "safety": remedy.safety, "why": remedy.why}
    if remedy.targets:
        found["targets"] = list(remedy.targets)
    if remedy.parameters:
        found["parameters"] = _data(remedy.parameters)
    return found


def _data(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _data(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_data(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _remedy(entry: Any, where: str) -> Remedy:
    if not isinstance(entry, dict) or "cure" not in entry:
        raise PrescriptionError(f"{where} is not a table with a `cure:`")
    for key in entry:
        if key not in KEYS:
            raise PrescriptionError(f"{where} has no key {key!r}{suggest(str(key), KEYS)}")
    try:
        chosen = cure(str(entry["cure"]))
    except KeyError as error:
        raise PrescriptionError(f"{where}: {error.args[0]}") from None
    targets, parameters = entry.get("targets") or [], entry.get("parameters") or {}
    if not isinstance(targets, list) or not isinstance(parameters, dict):
        raise PrescriptionError(f"{where}: targets must be a list, parameters a table")
    if fault := chosen.find_fault(parameters):
        raise PrescriptionError(f"{where}: {fault}")
    if not all(isinstance(target, str) for target in targets):
        raise PrescriptionError(f"{where}: targets must be names of the model's parts")
    safety = entry.get("safety", "retrain")
    if safety not in get_args(Safety):
        raise PrescriptionError(
            f"{where}: safety {show(repr(safety))[:60]} is none of {', '.join(get_args(Safety))}"
        )
    return Remedy(chosen.name, tuple(targets), str(entry.get("why", "")), safety, parameters)

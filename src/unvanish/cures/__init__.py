"""Cures, one a file: each applies one remedy to a module and can be taken back."""

from unvanish.cures._prescription import Prescription, PrescriptionError, apply, operate
from unvanish.cures._surgery import Receipt, Surgery, SurgeryError

__all__ = ["Prescription", "PrescriptionError", "Receipt", "Surgery", "SurgeryError", "apply", "operate"]

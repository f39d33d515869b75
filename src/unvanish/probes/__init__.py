"""The only floor that touches hooks and the autograd graph: it measures, and returns a `Trace`."""

from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.probes.record import record

__all__ = ["CheckError", "ModelCrash", "record"]

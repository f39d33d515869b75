"""The scatter of a series that a few outliers do not move.

Times ROBUST the median absolute deviation of a normal distribution is its standard deviation (Hampel 1974).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROBUST = 1.4826


def measure_scatter(values: NDArray[np.float64], centre: float) -> float:
    """The robust standard deviation of the values about a centre."""
    return ROBUST * float(np.median(np.abs(values - centre)))

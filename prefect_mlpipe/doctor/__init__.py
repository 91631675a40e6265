"""`mlpipe doctor`: what keeps pipelines from running here, and how to mend it.

Looks, and changes nothing.
"""

from __future__ import annotations

from prefect_mlpipe.doctor.examining import Examined, Report, examine
from prefect_mlpipe.doctor.findings import Finding

__all__ = ["Examined", "Finding", "Report", "examine"]

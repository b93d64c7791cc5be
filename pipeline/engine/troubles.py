"""What the ledger keeps of a trouble: the same three facts, whoever met it."""

from __future__ import annotations

from typing import Any

from pipeline.media import Trouble
from pipeline.provider.replies import Refused, Uncertain


def facts_of(trouble: Refused | Uncertain | Trouble) -> dict[str, Any]:
    """The fields of an event that says what went wrong."""
    return {
        "error_class": trouble.error_class.label,
        "http_status": trouble.http_status or 0,
        "detail": trouble.message,
    }

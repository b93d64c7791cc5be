"""When the provider forgets what: the record of a request, and the file of its video."""

from __future__ import annotations

from pipeline.ledger.job import JobRecord, JobState

RECORD_KEPT_US = 3_600_000_000
"""The provider forgets a request an hour after its submission; its history still knows it."""

FILE_KEPT_US = 7 * 24 * 3_600_000_000
"""The provider keeps a finished video for a week."""


def record_expires_us(record: JobRecord) -> int:
    """When the provider forgets a request."""
    return record.accepted_us + RECORD_KEPT_US


def file_expires_us(record: JobRecord) -> int:
    """When the provider deletes a video, at the earliest: it cannot have been finished before it was submitted."""
    return record.accepted_us + FILE_KEPT_US


def expires_us(record: JobRecord) -> int:
    """What is lost next of an unfinished job: first its record, and when that is gone or not needed, its file."""
    return file_expires_us(record) if record.state is JobState.POSTED else record_expires_us(record)

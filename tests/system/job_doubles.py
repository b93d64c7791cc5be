"""Jobs that no manifest asks for."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.jobs import Job, Kind, job_id
from pipeline.models.base import Scalar


def make_job(model: str, params: Mapping[str, Scalar], replicate: int, label: str) -> Job:
    """The job for normalised parameters."""
    settings = {name: value for name, value in params.items() if name != "prompt"}
    return Job(job_id(model, params, replicate), str(params["prompt"]), Kind(model, settings, replicate), label)

"""A job: one generation, known by the hash of what is asked for.

The id depends on the model, the normalised parameters and the replicate number, never on position, file name or order:
moving, sorting or renaming rows re-buys nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import orjson

from pipeline.models.base import Scalar
from pipeline.models.values import is_image_hash

ID_VERSION = 1
"""Part of every id. Changing what is hashed would buy finished work again: the golden test guards it."""


@dataclass(frozen=True, slots=True)
class Job:
    """One generation to be made.

    `params` are the model's parameters in normal form, exactly as they go into the request body; only a local start
    image, which is its hash there, is sent as the URL that it was uploaded to. `label` is the readable part of the
    video's file name (the row's id); it is no part of the identity.
    """

    job_id: str
    model: str
    params: Mapping[str, Scalar] = field(compare=False)
    replicate: int
    label: str = field(compare=False)

    @property
    def body(self) -> bytes:
        """The request body: canonical JSON, the same bytes for the same parameters."""
        return canonical_json(dict(self.params))

    @property
    def image(self) -> str | None:
        """The local start image, `sha256:<64 hex>` of its bytes; None without one, also where it is a URL."""
        value = self.params.get("start_image")
        return str(value) if is_image_hash(value) else None

    def with_image_at(self, url: str) -> Job:
        """The same job as it is sent once its local start image is at `url`."""
        return replace(self, params={**self.params, "start_image": url})

    @property
    def stem(self) -> str:
        """The file name of its artifacts without the ending: `<label>-<replicate>-<hash8>`."""
        return f"{self.label}-{self.replicate}-{self.job_id[3:11]}"


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def job_id(model: str, params: Mapping[str, Scalar], replicate: int) -> str:
    """The id of a generation: `k1-` and 24 hex digits of the hash of model, normalised parameters and replicate."""
    plain = params if type(params) is dict else dict(params)
    identity = {"version": ID_VERSION, "model": model, "params": plain, "replicate": replicate}
    return f"k{ID_VERSION}-{hashlib.sha256(canonical_json(identity)).hexdigest()[:24]}"


def is_of_this_scheme(identity: str) -> bool:
    """Whether an id was made as this version makes them."""
    return identity.startswith(f"k{ID_VERSION}-")


def make_job(model: str, params: Mapping[str, Scalar], replicate: int, label: str) -> Job:
    """The job for normalised parameters."""
    return Job(job_id(model, params, replicate), model, params, replicate, label)

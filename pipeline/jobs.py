"""A job: one generation, known by the hash of what is asked for.

The id depends on the model, the normalised parameters and the replicate number, never on position, file name or order:
moving, sorting or renaming rows re-buys nothing.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import orjson

from pipeline.models import find_model
from pipeline.models.base import Scalar
from pipeline.models.values import is_image_hash

ID_VERSION = 1
"""Part of every id. Changing what is hashed would buy finished work again: the golden test guards it."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What jobs can have in common: the model, all parameters but the prompt, and the replicate number."""

    model: str
    params: Mapping[str, Scalar]
    replicate: int


@dataclass(slots=True, unsafe_hash=True)
class Job:
    """One generation to be made.

    `prompt` and the parameters of its `kind` are in normal form. A million jobs are held at once, and most are of few
    kinds: a job holds its id, prompt and label, and shares its kind. `label` is the readable part of the video's file
    name (the row's id); it is no part of the identity. Treat a job as immutable. It is not frozen because making a
    million would take four times as long.
    """

    job_id: str
    prompt: str = field(compare=False, repr=False)
    kind: Kind = field(compare=False)
    label: str = field(compare=False)

    @property
    def model(self) -> str:
        """The name of its model."""
        return self.kind.model

    @property
    def replicate(self) -> int:
        """Which of several videos of the same request it is, from 1."""
        return self.kind.replicate

    @property
    def params(self) -> dict[str, Scalar]:
        """The model's parameters in normal form, exactly as they go into the request body; made anew at each call.

        Only a local start image, which is its hash here, is sent as the URL that it was uploaded to.
        """
        return {"prompt": self.prompt, **self.kind.params}

    @property
    def price_key(self) -> str:
        """Which price of its model holds for it; see `Model.price_key`."""
        return _price_key(self.kind)

    @property
    def body(self) -> bytes:
        """The request body: canonical JSON, the same bytes for the same parameters."""
        return canonical_json(self.params)

    @property
    def image(self) -> str | None:
        """The local start image, `sha256:<64 hex>` of its bytes; None without one, also where it is a URL."""
        value = self.kind.params.get("start_image")
        return str(value) if is_image_hash(value) else None

    def with_image_at(self, url: str) -> Job:
        """The same job as it is sent once its local start image is at `url`."""
        return replace(self, kind=replace(self.kind, params={**self.kind.params, "start_image": url}))

    @property
    def stem(self) -> str:
        """The file name of its artifacts without the ending: `<label>-<replicate>-<hash8>`."""
        return f"{self.label}-{self.replicate}-{self.job_id[3:11]}"


@functools.lru_cache(maxsize=1024)
def _price_key(kind: Kind) -> str:
    return find_model(kind.model).price_key(kind.params)


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def job_id(model: str, params: Mapping[str, Scalar], replicate: int) -> str:
    """The id of a generation: `k1-` and 24 hex digits of the hash of model, normalised parameters and replicate."""
    kind = Kind(model, {name: value for name, value in params.items() if name != "prompt"}, replicate)
    return ids_of(kind)(str(params["prompt"]))


def ids_of(kind: Kind) -> Callable[[str], str]:
    """The function from a prompt to the id of its job of this kind. What else is hashed is serialised only once."""
    identity = {
        "version": ID_VERSION,
        "model": kind.model,
        "params": {**kind.params, "prompt": ""},
        "replicate": kind.replicate,
    }
    # Inside a JSON text a quote has a backslash before it, so this match can only be the key.
    before, name, after = canonical_json(identity).partition(b'"prompt":')
    before, after = before + name, after.removeprefix(b'""')

    def identify(prompt: str) -> str:
        # Hashing all of it again is faster than copying a hash object that has the first part.
        return f"k{ID_VERSION}-{hashlib.sha256(before + orjson.dumps(prompt) + after).hexdigest()[:24]}"

    return identify


def is_of_this_scheme(identity: str) -> bool:
    """Whether an id was made as this version makes them."""
    return identity.startswith(f"k{ID_VERSION}-")

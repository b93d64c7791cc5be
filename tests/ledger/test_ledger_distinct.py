"""Texts that are there twice are found, whatever their lengths, and none that is there once is called twice."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.ledger import distinct
from pipeline.ledger.distinct import are_distinct


def chunked(texts: list[str], rng: random.Random) -> pa.ChunkedArray[Any]:
    """The texts in chunks of any size, each a slice of something longer."""
    chunks, left = [], texts
    while left:
        size = rng.randint(1, len(left))
        before, after = rng.randint(0, 2), rng.randint(0, 2)
        longer = pa.array(["before"] * before + left[:size] + ["afterwards"] * after, pa.string())
        chunks.append(longer.slice(before, size))
        left = left[size:]
    return pa.chunked_array(chunks, pa.string())


@pytest.mark.parametrize("seed", range(60))
def test_it_is_what_a_set_says(seed: int) -> None:
    """Of one length or of several, in any language, empty ones among them."""
    rng = random.Random(seed)
    letters = rng.choice(["ab", "aé", "0123456789abcdef"])
    lengths = rng.choice([[0], [1], [8], [27], [3, 4], [0, 9]])
    texts = ["".join(rng.choices(letters, k=rng.choice(lengths))) for _ in range(rng.randint(0, 30))]
    for told in (texts, list(dict.fromkeys(texts))):
        assert are_distinct(chunked(told, rng)) == (len(set(told)) == len(told))


def test_texts_whose_numbers_are_the_same_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number only says that texts differ; never that they are the same."""
    monkeypatch.setattr(distinct, "_hashed", lambda rows: np.zeros(len(rows), dtype=np.uint64))
    assert are_distinct(pa.chunked_array([["one", "two"]]))
    assert not are_distinct(pa.chunked_array([["one", "two"], ["one"]]))

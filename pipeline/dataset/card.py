"""The card of a data set: what it is, in words and numbers, as Hugging Face shows it. No text in it may be markup."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import yaml

from pipeline.dataset.clips import COLUMNS
from pipeline.kernel.arrow import total
from pipeline.kernel.usd import format_usd
from pipeline.models.values import spelled

NO_LICENSE = "other"
"""Hugging Face's word for a licence that is not in its list."""

MOST_VALUES = 12
"""Of a column with more values than this, only the number of them is shown."""
MOST_WORDS = 12
MOST_LEFT_OUT = 50
MAX_SHOWN = 80

_TEXTS = ("prompt", "negative_prompt", "start_image")
_WORD = re.compile(r"[^\W\d_]{4,24}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")
_MARKUP = re.compile(r"[&<>\\`*\[\](){}|~#!@$^]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|www(?=\.)", re.IGNORECASE)
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A stored video that could not be exported, and why."""

    id: str
    job_id: str
    video: str
    reason: str


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says besides the rows. Money in micro-dollars."""

    name: str
    license: str
    is_sandbox: bool
    data_files: str
    """Where the data are, as a pattern of names in the export."""
    how_to_load: str
    cost_microusd: int
    not_stored: Mapping[str, int]
    passed_over: int
    where: Sequence[str]
    left_out: Sequence[LeftOut]


def card(clips: pa.Table, facts: CardFacts) -> bytes:
    """The file README.md; `clips` is what the data set says of each."""
    parts = [
        _front_matter(clips, facts),
        f"# {shown(facts.name)}",
        *_what_it_is(clips, facts),
        "## Load it",
        f"```python\n{facts.how_to_load}\n```",
        "`sha256sum -c SHA256SUMS` checks every file.",
        *_prompts(clips),
        *_axes(clips),
        *_how_it_was_made(clips, facts),
        *_not_in_it(facts),
    ]
    return ("\n\n".join(parts) + "\n").encode()


def shown(text: str) -> str:
    """Somebody's text as Markdown shows it: on one line, and nothing in it is markup, a link or HTML."""
    line = " ".join(_UNPRINTABLE.sub(" ", text).split())
    cut = line if len(line) <= MAX_SHOWN else f"{line[: MAX_SHOWN - 1].rstrip()}…"
    return _MARKUP.sub(lambda found: f"&#{ord(found[0][0])};{found[0][1:]}", cut)


def _front_matter(clips: pa.Table, facts: CardFacts) -> str:
    tasks = ["text-to-video"] + (["image-to-video"] if _has_images(clips) else [])
    said = {
        "license": facts.license,
        **({"license_name": "unknown"} if facts.license == NO_LICENSE else {}),
        "pretty_name": _UNPRINTABLE.sub(" ", facts.name)[:MAX_SHOWN],
        "task_categories": tasks,
        "tags": ["video", "synthetic"],
        "size_categories": [next((size for most, size in _SIZES if len(clips) < most), "n>1M")],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": facts.data_files}]}],
    }
    return f"---\n{yaml.safe_dump(said, sort_keys=False, allow_unicode=True)}---"


def _has_images(clips: pa.Table) -> bool:
    return "start_image" in clips.column_names and any(clips["start_image"].to_pylist())


def _what_it_is(clips: pa.Table, facts: CardFacts) -> Iterable[str]:
    if facts.is_sandbox:
        yield (
            "**These videos are drawn by the sandbox of kling-batch, for rehearsal. No model made them, and the costs "
            "below were never paid.**"
        )
    sizes = zip(clips["width"].to_pylist(), clips["height"].to_pylist(), strict=True)
    table = [
        ["clips", f"{len(clips):,}"],
        ["seconds", f"{total(clips['duration_s']):,.1f}"],
        ["bytes", f"{total(clips['bytes']):,}"],
        ["cost", f"${format_usd(facts.cost_microusd)}"],
        ["picture sizes", _counted(f"{width}x{height}" if width and height else "unknown" for width, height in sizes)],
    ]
    yield _table(["", ""], table)
    if facts.license == NO_LICENSE:
        yield "**Licence: unknown.** Nobody has stated one. Whoever passes this data set on must find out and state it."
    else:
        yield f"Licence: `{facts.license}`, as stated by whoever exported it."


def _prompts(clips: pa.Table) -> Iterable[str]:
    prompts = list(map(str, clips["prompt"].to_pylist()))
    if not prompts:
        return
    lengths = [len(prompt) for prompt in prompts]
    words = Counter(word for prompt in prompts for word in _WORD.findall(prompt.lower()))
    table = [
        ["distinct", f"{len(set(prompts)):,} of {len(prompts):,}"],
        ["characters, shortest", f"{min(lengths):,}"],
        ["characters, median", f"{statistics.median(lengths):,.0f}"],
        ["characters, longest", f"{max(lengths):,}"],
        ["most frequent words", _counted_words(words)],
    ]
    yield "## Prompts"
    yield _table(["", ""], table)


def _counted_words(words: Counter[str]) -> str:
    # Equally frequent ones by the alphabet, so that the same data give the same card.
    first = sorted(words.items(), key=lambda word: (-word[1], word[0]))[:MOST_WORDS]
    return ", ".join(f"{shown(word)} ({number:,})" for word, number in first) or "none"


def _axes(clips: pa.Table) -> Iterable[str]:
    """Every parameter and variable: how often it has which value, or how many values it has."""
    table = []
    for name in clips.column_names if len(clips) else ():
        if name in COLUMNS or name in _TEXTS:
            continue
        values = Counter(map(_value, clips[name].to_pylist()))
        several = f"{len(values):,} different values"
        table.append([shown(name), several if len(values) > MOST_VALUES else _counted(values.elements())])
    if table:
        yield "## Parameters and variables"
        yield _table(["column", "values, and how many clips have each"], table)


def _value(value: object) -> str:
    return "none" if value is None else spelled(value)


def _counted(values: Iterable[str]) -> str:
    counts = sorted(Counter(values).items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{shown(value) or 'empty'} ({number:,})" for value, number in counts) or "none"


def _how_it_was_made(clips: pa.Table, facts: CardFacts) -> Iterable[str]:
    models = _counted(map(str, clips["model"].to_pylist()))
    dates = sorted({moment[:10] for moment in clips["finished_at"].to_pylist() if moment})
    when = [["finished", f"{dates[0]} to {dates[-1]} (UTC)"]] if dates else []
    yield "## How it was made"
    maker = "the sandbox of kling-batch" if facts.is_sandbox else "Segmind's API"
    yield _table(["", ""], [["made by", maker], ["model", models], *when])
    yield (
        "By kling-batch, from a manifest of prompts. Each video was verified before it was stored, and held against "
        "the SHA-256 in the ledger again when it was exported."
    )


def _not_in_it(facts: CardFacts) -> Iterable[str]:
    told = [f"- {number:,} of the manifest: {status.replace('_', ' ')}" for status, number in facts.not_stored.items()]
    if facts.passed_over:
        conditions = ", ".join(shown(condition) for condition in facts.where)
        told.append(f"- {facts.passed_over:,} for which these conditions are not true: {conditions}")
    told += [f"- {shown(each.id)} ({each.job_id}): {shown(each.reason)}" for each in facts.left_out[:MOST_LEFT_OUT]]
    if len(facts.left_out) > MOST_LEFT_OUT:
        told.append(f"- and {len(facts.left_out) - MOST_LEFT_OUT:,} more that are not as stored")
    yield "## What is not in it"
    yield "\n".join(told) if told else "Nothing: every video of the manifest is here."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

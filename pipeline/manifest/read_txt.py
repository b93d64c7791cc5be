"""Reads a list of prompts: one a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.manifest.batches import Batch, in_batches
from pipeline.manifest.document import MAX_ENTRIES, Row
from pipeline.manifest.mistakes import Mistakes
from pipeline.manifest.sources import read_lines


def read_txt(path: Path, mistakes: Mistakes, needs_prompt: bool, size: int) -> Iterator[Batch]:  # noqa: ARG001 - it has one
    """A row for each line that is not blank; what is wrong goes to `mistakes`."""
    return in_batches(_rows(path, mistakes), size)


def _rows(path: Path, mistakes: Mistakes) -> Iterator[Row]:
    number, file = 0, mistakes.file
    # As a text editor counts lines: U+2028 and its like are characters of a prompt.
    for line, written in enumerate(read_lines(path, mistakes, newline=None), start=1):
        prompt = written.strip()
        if not prompt:
            continue
        number += 1
        if number == 1 and "prompt" in (names := [name.strip() for name in prompt.split("\t")]) and len(names) > 1:
            raise mistakes.final("is a table, not a list of prompts; name the file .csv", line)
        if number == 1 and prompt.casefold() in ("prompt", "prompts"):
            raise mistakes.final("is a header, not a prompt; delete this line, or name the file .csv", line)
        if prompt.startswith("#"):
            mistakes.warn(
                "begins with # but is not a comment: every line of a .txt manifest is a prompt", row=number, line=line
            )
        yield Row({"prompt": prompt}, number=number, line=line, file=file)
        if number > MAX_ENTRIES:
            mistakes.add(f"has more than {MAX_ENTRIES:,} rows; split it", line=line)
            break

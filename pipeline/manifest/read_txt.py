"""Reads a list of prompts: one a line."""

from __future__ import annotations

from pipeline.manifest.document import MAX_ENTRIES, Document, Row
from pipeline.manifest.mistakes import Mistakes


def read_txt(text: str, mistakes: Mistakes) -> Document:
    """A row for each line that is not blank; what is wrong goes to `mistakes`."""
    rows: list[Row] = []
    # As a text editor counts lines: U+2028 and its like are characters of a prompt.
    for line, written in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        prompt = written.strip()
        if not prompt:
            continue
        if not rows and "prompt" in (names := [name.strip() for name in prompt.split("\t")]) and len(names) > 1:
            mistakes.add("is a table, not a list of prompts; name the file .csv", line=line)
            mistakes.raise_if_any()
        rows.append(Row({"prompt": prompt}, number=len(rows) + 1, line=line))
        if len(rows) > MAX_ENTRIES:
            mistakes.add(f"has more than {MAX_ENTRIES:,} rows; split it", line=line)
            break
    return Document(tuple(rows))

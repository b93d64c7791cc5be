"""From the file that a user writes to the jobs that it asks for, or to everything that is wrong with it."""

from __future__ import annotations

from pathlib import Path

from pipeline.kernel.errors import Mistake
from pipeline.manifest.campaign import Campaign, Entry
from pipeline.manifest.expand import expand
from pipeline.manifest.mistakes import Mistakes, one_mistake
from pipeline.manifest.read_csv import read_csv
from pipeline.manifest.read_jsonl import read_jsonl
from pipeline.manifest.read_txt import read_txt
from pipeline.manifest.read_yaml import read_yaml
from pipeline.manifest.sources import read_text

__all__ = ["Campaign", "Entry", "Mistake", "load_manifest"]

_READERS = {".yaml": read_yaml, ".yml": read_yaml, ".csv": read_csv, ".jsonl": read_jsonl, ".txt": read_txt}


def load_manifest(path: Path) -> Campaign:
    """Read a manifest and expand it into its jobs.

    Raises:
        ManifestError: with every mistake that it has, each with its place.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        found = f"{path.suffix!r} is" if path.suffix else "a file without an ending is"
        raise one_mistake(str(path), f"{found} no manifest format; use {', '.join(_READERS)}")
    mistakes = Mistakes(str(path))
    document = reader(read_text(path), mistakes)
    return expand(document, path, mistakes)

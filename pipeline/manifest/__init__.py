"""From the file that a user writes to the jobs that it asks for, or to everything that is wrong with it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipeline.kernel.errors import Mistake
from pipeline.kernel.garbage import no_garbage_collector
from pipeline.manifest.campaign import Campaign, Entry
from pipeline.manifest.document import Document
from pipeline.manifest.expand import expand
from pipeline.manifest.feeds import TABLES
from pipeline.manifest.mistakes import Mistakes
from pipeline.manifest.read_yaml import read_yaml

__all__ = ["Campaign", "Entry", "Mistake", "load_manifest"]

_YAML = (".yaml", ".yml")


def load_manifest(path: Path) -> Campaign:
    """Read a manifest and expand it into its jobs.

    Raises:
        ManifestError: with every mistake that it has, each with its place.
    """
    mistakes = Mistakes(str(path))
    with no_garbage_collector():
        return expand(_document(path, mistakes), path, mistakes)


def _document(path: Path, mistakes: Mistakes) -> Document:
    ending = path.suffix.lower()
    if ending in _YAML:
        return read_yaml(path, mistakes)
    if ending not in TABLES:
        found = f"{path.suffix!r} is" if path.suffix else "a file without an ending is"
        raise mistakes.final(f"{found} no manifest format; use {', '.join((*_YAML, *TABLES))}")
    return Document(partial(TABLES[ending], path, mistakes, True))

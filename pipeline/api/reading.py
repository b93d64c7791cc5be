"""The files that people write: a manifest read, and what editors know of manifests and configs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from pipeline.manifest import Campaign

AnyManifest: TypeAlias = "Campaign | Path | str"
"""A manifest's file, or what was read of it."""


def load_manifest(path: Path | str) -> Campaign:
    """Read a manifest and expand it into its jobs.

    Raises:
        ManifestError: every mistake that it has, each with its place, as `mistakes`.
        InputError: that is no path.
    """
    from pipeline import manifest
    from pipeline.kernel.errors import InputError

    if not isinstance(path, str | os.PathLike):
        raise InputError(f"a manifest is the path of a file, or what load_manifest made of one, not {path!r:.60}")
    return manifest.load_manifest(Path(path))


def json_schema(kind: Literal["manifest", "config"]) -> str:
    """The JSON Schema of manifests or configs, for editors, as the text of its file."""
    from pipeline import schema

    return schema.as_text(schema.manifest_schema() if kind == "manifest" else schema.config_schema())

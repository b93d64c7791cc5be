"""`kling-batch schema`: what an editor needs to complete and check manifests and configs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline import api
from pipeline.cli.screen import say


class Kind(StrEnum):
    """The files that have a schema."""

    MANIFEST = "manifest"
    CONFIG = "config"


def schema(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="Of which file.")] = Kind.MANIFEST,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write it there instead of printing it.")
    ] = None,
) -> None:
    """Print the JSON Schema of manifests or configs, for editors.

    Example: kling-batch schema manifest --output manifest.schema.json
    """
    from pipeline.kernel.errors import InputError
    from pipeline.kernel.files import write_file

    text = api.json_schema("manifest" if kind is Kind.MANIFEST else "config")
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        write_file(output, text.encode())
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}") from None
    say(f"Written: {output}")

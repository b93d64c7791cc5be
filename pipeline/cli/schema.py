"""`kling-batch schema`: what an editor needs to complete and check manifests and configs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from pipeline import api
from pipeline.cli import options
from pipeline.cli.screen import say, say_raw


@click.command()
@click.argument(
    "kind",
    type=click.Choice(("manifest", "config")),
    default="manifest",
    metavar="[KIND]",
    help="Of which file, manifest or config; manifest without it.",
)
@click.option("-o", "--output", type=Path, metavar="FILE", help="Write it there instead of printing it.")
def schema(kind: Literal["manifest", "config"], output: Path | None) -> None:
    """Print the JSON Schema of manifests or configs, for editors.

    Example: kling-batch schema manifest --output manifest.schema.json
    """
    from pipeline.kernel.errors import InputError
    from pipeline.kernel.files import write_file

    text = api.json_schema(kind)
    if output is None:
        say_raw(text)
        return
    options.check_target("--output", output, "the schema", made_of=())
    try:
        write_file(output, text.encode())
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}") from None
    say(f"Written: {output}")

"""The command line: one thin file for each verb. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run `kling-batch` and exit with its code."""
    from pipeline.cli.app import app
    from pipeline.kernel.errors import KlingBatchError

    try:
        app(standalone_mode=True)
    except KlingBatchError as error:
        from pipeline.cli.screen import printable

        print(f"kling-batch: {printable(str(error), lines=True)}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    sys.exit(0)

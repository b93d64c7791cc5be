"""The command line: one thin file for each verb. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import contextlib
import sys
from typing import NoReturn

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


def main() -> NoReturn:
    """Run `kling-batch` and exit with its code."""
    from pipeline.cli.app import app
    from pipeline.cli.screen import hush
    from pipeline.kernel.errors import KlingBatchError, MachineError

    try:
        app(prog_name="kling-batch")
    except KlingBatchError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        # An error of this machine that no verb foresaw: a file that may not be read, a disk that fails.
        hush()
        _complain(f"{error.filename or 'this machine'}: {error.strerror or type(error).__name__}")
        sys.exit(MachineError.exit_code)
    sys.exit(0)


def _complain(text: str) -> None:
    from pipeline.cli.outlet import Outlet
    from pipeline.cli.screen import printable

    # Several mistakes each get a line of their own that begins with its place, so that editors can jump there.
    lead = "kling-batch: nothing was sent. To be corrected:\n" if "\n" in text else "kling-batch: "
    told = f"{lead}{printable(text, lines=True)}"
    with contextlib.suppress(OSError):  # the exit code says it, too
        if "\n" in text:
            print(told, file=sys.stderr)  # noqa: T201 - a list is read at leisure, perhaps page by page
        else:
            outlet = Outlet(sys.stderr)
            outlet.put(f"{told}\n")
            outlet.end()

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
    except Exception as error:
        # Never 1, as Python has it: that would say that a run has ended, and that nothing need be started again.
        import traceback

        _tell(traceback.format_exc())
        _complain(
            f"a defect in kling-batch, or this machine lacks something ({type(error).__name__}, see above): "
            "nothing is lost; run again, and report it if it comes again"
        )
        sys.exit(MachineError.exit_code)
    sys.exit(0)


def _complain(text: str) -> None:
    from pipeline.cli.screen import printable

    # Several mistakes each get a line of their own that begins with its place, so that editors can jump there.
    lead = "kling-batch: nothing was sent. To be corrected:\n" if "\n" in text else "kling-batch: "
    told = f"{lead}{printable(text, lines=True)}\n"
    if "\n" in text:
        with contextlib.suppress(OSError):  # the exit code says it, too
            print(told, end="", file=sys.stderr)  # noqa: T201 - a list is read at leisure, perhaps page by page
    else:
        _tell(told)


def _tell(text: str) -> None:
    """Print to standard error, without waiting for ever where nobody reads it."""
    from pipeline.cli.outlet import Outlet

    outlet = Outlet(sys.stderr)
    outlet.put(text)
    outlet.end()

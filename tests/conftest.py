"""For all tests: a Ctrl-C that is sent to a process of theirs is heard by it."""

from __future__ import annotations

import signal

# Started in the background by a script, the tests ignore it, and each process that they start would go on ignoring it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

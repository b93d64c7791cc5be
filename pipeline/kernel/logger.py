"""The name of the program's logger: whoever logs uses it, and run.log listens to it."""

from __future__ import annotations

LOGGER = "kling_batch"

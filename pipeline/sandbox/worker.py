"""The process that draws: one order a line on stdin, one answer a line on stdout.

It ends when stdin ends, so it never outlives the process that ordered the clips.
"""

import contextlib
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import orjson

from pipeline.sandbox.clips import own_clip


def draw(order: dict[str, Any]) -> dict[str, Any]:
    """Draw one clip to its file; the answer is its size in bytes and its sha256."""
    image = None
    if order.get("image"):
        with contextlib.suppress(OSError):
            image = Path(order["image"]).read_bytes()
    clip = own_clip(order["request_id"], order["body"], image)
    part = f"{order['path']}.part"
    Path(part).write_bytes(clip)
    os.replace(part, order["path"])
    return {"size": len(clip), "sha256": hashlib.sha256(clip).hexdigest()}


def main() -> None:
    """Serve orders until there are no more."""
    with contextlib.suppress(OSError):
        os.nice(5)  # the client under test comes first
    for line in sys.stdin.buffer:
        try:
            answer = draw(orjson.loads(line))
        except Exception as problem:  # told to the sandbox, which fails that generation and goes on
            answer = {"error": f"{type(problem).__name__}: {problem}"}
        sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main()

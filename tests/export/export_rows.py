"""What the exported films were asked with, and how an export is called."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.dataset.write import Exported

HOSTILE = "=1+1 | <b>x</b> [y](http://evil.example) www.evil.example `z` 東京 \n--- \n# head"

ROWS = [
    {"id": "test-1", "prompt": HOSTILE, "mood": "cozy", "label": 1, "tags": ["hero", "summer"]},
    {"id": "v1.2", "prompt": "a film of a lamp", "mood": "bold", "label": "two", "duration": 10, "tags": ["summer"]},
    {"id": "train", "prompt": "2026-01-01", "mood": "cozy", "video": "a|b", "start_file_name": "x.mp4", "count": 2},
    {"id": "twin", "prompt": "a film of a lamp", "duration": 10, "mood": "calm"},
    {"id": "late", "prompt": "a film that is not made yet", "mood": "cozy"},
]
"""Names that other tools read much into, columns that exist already, a shared job, and one that gets no video."""

Export = Callable[..., Exported]

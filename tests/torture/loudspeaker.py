"""One campaign in which each job hears a text of its own from the provider, at one place; and what is left of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hostile_battle import one_life
from hostile_provider import Canary, HostileProvider, Scene, WatchedLoop, as_json
from support import KEY
from virtual_time import VirtualClock

from pipeline.manifest import load_manifest

Texts = Mapping[str, str]
"""What each job hears, by its prompt."""
Way = tuple[str, Callable[[Scene, Texts], bytes]]
"""How a stranger's text comes in: the place, and the reply that carries it."""


def _refused(it: Scene, texts: Texts) -> bytes:
    return it.saying(_error(texts[it.prompt]), status=400)


def _stopped(it: Scene, texts: Texts) -> bytes:
    return it.saying(_error(texts[it.prompt]), status=401)


def _error(text: str) -> bytes:
    return json.dumps({"error": text, "message": text, "request_id": text}).encode()


def _failed(it: Scene, texts: Texts) -> bytes:
    return it.changed(status="FAILED", error=texts[it.prompt])


def _listed(it: Scene, texts: Texts) -> bytes:
    if "data" not in it.data:
        return it.honest()
    rows = [
        {**row, "model_status": "FAILED", "credits_deduction": 0, "error": texts[row["request_body"]["prompt"]]}
        for row in it.data["data"]
    ]
    return it.saying(as_json({"data": rows}))


def _addressed(it: Scene, texts: Texts) -> bytes:
    return it.changed(video__url=f"https://evil.example/{texts[it.prompt]}", output=[texts[it.prompt]])


def _called(it: Scene, texts: Texts) -> bytes:
    return it.changed(video__url=f"{it.canary}/{texts[it.prompt]}")


WAYS: Mapping[str, Way] = {
    "refused": ("submit", _refused),
    "failed": ("poll", _failed),
    "listed": ("history", _listed),
    "addressed": ("result", _addressed),
}
STOPPED: Way = ("submit", _stopped)
"""The account is closed, and the text becomes the run's last word."""
CALLED: Way = ("result", _called)
"""The video is said to be at the canary, under the text: whoever fetches it tells the canary."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What is left of such a campaign."""

    folder: Path
    exit_code: int
    provider: HostileProvider
    canary: Canary


def hear(
    way: Way,
    rows: Mapping[str, Mapping[str, object]],
    texts: Texts,
    folder: Path,
    *,
    key: str = KEY,
    is_debugging: bool = False,
) -> Heard:
    """Run a campaign of `rows` (by prompt) against a provider that says its text to each job."""
    place, reply = way
    manifest = folder / "loud.jsonl"
    manifest.write_text("".join(json.dumps({"prompt": prompt, **row}) + "\n" for prompt, row in rows.items()))
    provider = HostileProvider(VirtualClock(), place, lambda it: reply(it, texts), accepts=place != "submit")

    async def main() -> Heard:
        async with Canary() as canary, provider:
            provider.canary = canary.url
            result = await one_life(provider, load_manifest(manifest), folder / "run", key, **_FEW_TRIES)
            return Heard(folder / "run", result.exit_code, provider, canary)

    with asyncio.Runner(loop_factory=WatchedLoop, debug=is_debugging) as runner:
        return runner.run(main())


_FEW_TRIES = {
    "retry__max_attempts": "1",
    "limits__requests_per_minute": "60000",
    "limits__max_in_flight": "200",  # all at once, before lost answers slow the run down
}

"""The API key: in no file, on no screen, at no other server, in no spelling, whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
from hostile_battle import one_life, screen_to
from hostile_provider import Canary, HostileProvider, WatchedLoop
from inspection import call, warm_command
from loudspeaker import CALLED, STOPPED, WAYS, hear
from score import LONG, Score
from support import fast_config
from traces import found_below, found_in, spellings, traces
from virtual_time import VirtualClock
from worlds import REAL_TIMES, fork, side_by_side

from pipeline.engine import worker
from pipeline.manifest import load_manifest
from pipeline.runner.running import run
from pipeline.sandbox import Sandbox, SandboxSettings
from pipeline.sandbox.faults import FAULTS

KEY = 'SG_canary+/="\\<&%7e9d31c0'
"""A key that looks different in every spelling."""
PLAIN_KEY = "SG_7e9d31c05ab2f684"
"""One that the sandbox takes."""

LIVES = 5
"""What one run leaves, the next takes up."""
ACCOUNT_STOPS = ("submit_401", "submit_403", "submit_404", "submit_406_credits", "submit_410")
"""Faults that end a run at once; the battles with hostile replies have them, and look for the key too."""

ECHOES = {**WAYS, "stopped": STOPPED, "called": CALLED}
NewScore = Callable[[str], Score]


def test_the_key_stays_where_it_belongs(new_score: NewScore, tmp_path: Path) -> None:
    """A provider that quotes it, every fault, a crash, a chatty log, proxies in the environment: no trace of it."""
    score = new_score("hostile: the key")
    worlds = {f"echo-{way}": _echo for way in ECHOES} | {
        "faults": _faults,
        "crash": _crash,
        "environment": _environment,
    }

    def live(name: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        life = fork(_tell, worlds[name], name, folder)
        life.join()
        path = folder / "told.json"
        told: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        with score.trial(name):
            assert told, f"the life ended with {life.exitcode}: {(folder / 'screen').read_text()[-400:]}"
            assert not told["found"], "; ".join(told["found"][:3])
            score.fired[name] += told["fired"]

    side_by_side(live, worlds)
    score.conclude(worlds)


def test_a_key_is_found_in_every_spelling(tmp_path: Path) -> None:
    """The search itself misses nothing that the provider of these tests may write."""
    for name, text in spellings(KEY).items():
        (tmp_path / "file").write_text(f"before {text} after")
        assert found_below(KEY, tmp_path), name
    assert min(map(len, traces(KEY).values())) >= len(KEY)
    assert not found_in(KEY, "nothing", b"SG_canary")


World = Callable[[str, Path], int]


def _tell(world: World, name: str, folder: Path) -> None:
    """The main function of a life: how often its fault fired, and where the key was found afterwards."""
    warm_command()
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    with screen_to(folder / "screen"):
        fired = world(name, folder)
    key = PLAIN_KEY if world is _faults else KEY
    found = found_below(key, folder)
    if (folder / "run").is_dir():
        for arguments in (["status", "run"], ["status", "run", "--json"], ["report", "run"]):
            ended = call(arguments, folder)
            found += found_in(key, f"the screen of {arguments}", (ended.out + ended.err).encode())
    (folder / "told.json").write_text(json.dumps({"found": found, "fired": fired}))


def _echo(name: str, folder: Path) -> int:
    """The provider writes the key into whatever it says, in each spelling."""
    way = ECHOES[name.removeprefix("echo-")]
    texts = {f"lamp {spelling}": f"no: {text}" for spelling, text in spellings(KEY).items()}
    if way in (STOPPED, CALLED):
        texts = {prompt: text.removeprefix("no: ") for prompt, text in texts.items()}
    heard = hear(way, {prompt: {} for prompt in texts}, texts, folder, key=KEY, is_debugging=True)
    _nothing_else_saw_it(heard.provider, heard.canary)
    return heard.provider.told


def _nothing_else_saw_it(provider: HostileProvider, canary: Canary) -> None:
    """Into the files that are searched: what the canary heard, and what was asked of the file store."""
    heard = bytes(canary.heard)
    for request in provider.requests:
        if not request.target.startswith(("/v1/", "/v2/", "/inference-request/")):
            heard += request.head
        else:
            heard += request.target.encode() + request.body
    print(heard.decode("latin-1"), file=sys.stderr)


def _faults(_name: str, folder: Path) -> int:
    """Every fault that the sandbox knows and that leaves a run alive, often."""
    (folder / "m.jsonl").write_text("".join(f'{{"prompt": "lamp {n}"}}\n' for n in range(40 if LONG else 12)))
    clock = VirtualClock()

    async def main() -> int:
        rates = {name: 0.15 for name in FAULTS if name not in ACCOUNT_STOPS}
        settings = SandboxSettings(faults=rates, clips="tiny", mean_s=20, hang_s=45, clock=clock.wall_s)
        times = {key.replace(".", "__"): value for key, value in (REAL_TIMES | {"stop.after": "3h"}).items()}
        async with Sandbox(settings) as provider:
            for _ in range(LIVES):
                config = fast_config(provider.url, **times)
                await run(load_manifest(folder / "m.jsonl"), config, folder / "run", key=PLAIN_KEY, clock=clock)
            state = provider.state()
            assert not state["key_leaks"], "the file store saw the key"
            return sum(state["faults_fired"].values())

    with asyncio.Runner(loop_factory=WatchedLoop, debug=True) as runner:
        return runner.run(main())


def _crash(_name: str, folder: Path) -> int:
    """A defect raises, out of the middle of a worker, an exception of the HTTP client that holds the key."""
    crashes = 0

    async def crash(*_arguments: object) -> NoReturn:
        nonlocal crashes
        crashes += 1
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{asyncio.get_running_loop().ports.pop()}/v1/x"  # type: ignore[attr-defined]
            async with session.get(url, headers={"x-api-key": KEY}) as response:
                response.status = 500
                response.raise_for_status()
        raise AssertionError("it was to raise")

    worker.collect = crash
    try:
        hear(WAYS["addressed"], {"lamp": {}}, {"lamp": "x"}, folder, key=KEY, is_debugging=True)
    except Exception:
        sys.excepthook(*sys.exc_info())
    return crashes


def _environment(_name: str, folder: Path) -> int:
    """Proxies and a netrc, as a machine may have them, change nothing and see nothing."""
    (folder / "m.jsonl").write_text('{"prompt": "lamp"}\n')
    provider = HostileProvider(VirtualClock(), "nowhere", lambda it: it.honest())
    netrc = folder / ".netrc"
    netrc.write_text("machine 127.0.0.1\nlogin me\npassword taken\n")
    netrc.chmod(0o600)
    os.environ |= {"HOME": str(folder), "NETRC": str(netrc)}
    for name in ("no_proxy", "NO_PROXY"):
        os.environ.pop(name, None)

    async def main() -> int:
        async with Canary() as canary, provider:
            for scheme in ("http", "https", "all", "ws", "socks"):
                os.environ |= {f"{scheme}_proxy": canary.url, f"{scheme.upper()}_PROXY": canary.url}
            result = await one_life(provider, load_manifest(folder / "m.jsonl"), folder / "run", KEY)
            assert result.exit_code == 0, f"exit {result.exit_code}"
            assert not canary.connections, "the proxy was asked"
            assert not any(b"uthorization" in request.head for request in provider.requests), "the netrc was read"
            return len(provider.requests)

    with asyncio.Runner(loop_factory=WatchedLoop) as runner:
        return runner.run(main())

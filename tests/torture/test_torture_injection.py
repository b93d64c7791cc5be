"""Texts that something would obey: no report, screen or log lets them, wherever they come in."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from injections import PAYLOADS, SCREENS
from inspection import call, check_screen, forbid_network, warm_command
from loudspeaker import STOPPED, WAYS, hear
from score import LONG, Score
from support import report_once
from worlds import fork, side_by_side

from pipeline.kernel.errors import ManifestError
from pipeline.manifest import load_manifest

FEWEST_PAYLOADS = 60
PLACES = (*WAYS, "prompt", "variable", "name", "id", "last-word")
NewScore = Callable[[str], Score]

_OBEYED = re.compile(r"[\s\x00\u200b\ufeff]*[=+\-@＝＋－＠]|[\t\r\n\x00]")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def test_no_text_is_obeyed(new_score: NewScore, tmp_path: Path) -> None:
    """In id, prompt, variable, its name, error text and URL: no formula cell, no control on a screen, a log of JSON."""
    score = new_score("hostile: injected texts")
    assert len(PAYLOADS) >= FEWEST_PAYLOADS

    def inject(place: str) -> None:
        folder = tmp_path / place
        folder.mkdir()
        life = fork(_inject, place, folder)
        life.join()
        path = folder / "told.json"
        told: dict[str, str | None] = json.loads(path.read_text()) if path.exists() else {}
        for number, text in enumerate(PAYLOADS):
            if str(number) in told or not path.exists():
                with score.trial(f"{text[:40]!r} as {place}"):
                    wrong = told.get(str(number), f"the life ended with {life.exitcode} and told nothing")
                    assert wrong is None, wrong
                    score.fired[place] += 1

    side_by_side(inject, PLACES)
    score.conclude(PLACES)


def _inject(place: str, folder: Path) -> None:
    """The main function of a life that brings every payload in at one place; tells what is wrong, by its number."""
    warm_command()
    report_once().start()
    if place in WAYS:
        wrong = _said(place, folder)
    elif place == "last-word":
        wrong = _last_words(folder)
    else:
        wrong = _written(place, folder)
    (folder / "told.json").write_text(json.dumps(wrong))


def _said(way: str, folder: Path) -> dict[int, str | None]:
    """The provider says it, each to a job of its own."""
    numbers = range(0, len(PAYLOADS), 3 if way == "listed" else 1)  # lost answers slow a run down: a third is enough
    texts = {f"lamp {number}": PAYLOADS[number] for number in numbers}
    rows = {prompt: {"id": f"row-{prompt.split()[1]}"} for prompt in texts}
    run = hear(WAYS[way], rows, texts, folder).folder
    if way != "addressed":
        with (run / "report" / "errors.csv").open(newline="") as file:
            assert len(list(csv.DictReader(file))) == len(texts), "not every text has its line"
    return dict.fromkeys(numbers, _fault(run))


def _written(place: str, folder: Path) -> dict[int, str | None]:
    """The manifest says it: what is lawful runs through, and the rest is refused on a clean screen."""
    rows: dict[str, Mapping[str, object]] = {}
    lawful, unlawful = [], []
    for number, text in enumerate(PAYLOADS):
        row = {"prompt": f"lamp {number}"} | _with(place, text)
        (folder / "one.jsonl").write_text(json.dumps(row))
        try:
            load_manifest(folder / "one.jsonl")
        except ManifestError:
            unlawful.append((number, row))
            continue
        lawful.append(number)
        rows[str(row.pop("prompt"))] = row
    run = hear(WAYS["refused"], rows, defaultdict(lambda: "no"), folder).folder
    wrong = dict.fromkeys(lawful, _fault(run))
    (folder / "refused.jsonl").write_text("".join(json.dumps(row) + "\n" for _, row in unlawful))
    return wrong | dict.fromkeys((number for number, _ in unlawful), _fault_of_refusal(folder))


def _with(place: str, text: str) -> dict[str, str]:
    names = {"prompt": {"prompt": text}, "variable": {"mood": text}, "id": {"id": text}, "name": {text: "x"}}
    return names[place]


def _last_words(folder: Path) -> dict[int, str | None]:
    """The provider closes the account with it, so that it ends the run and stands on the screen."""
    wrong: dict[int, str | None] = {}
    for number, text in enumerate(PAYLOADS):
        if text in SCREENS and (LONG or number % 5 == 0):
            ground = folder / str(number)
            ground.mkdir()
            heard = hear(STOPPED, {"lamp": {"id": "row"}}, {"lamp": text}, ground)
            wrong[number] = _fault(heard.folder) if heard.exit_code == 4 else f"exit {heard.exit_code}"
    return wrong


def _fault_of_refusal(folder: Path) -> str | None:
    ended = call(["plan", "refused.jsonl"], folder, before=forbid_network)
    try:
        ended.check_bounds()
        assert ended.code == 2, f"exit {ended.code}"
    except AssertionError as error:
        return str(error)
    return None


def _fault(run: Path) -> str | None:
    """What would be obeyed in a run directory or on its screens; None if nothing."""
    try:
        for name in ("results.csv", "errors.csv"):
            _check_cells(run / "report" / name)
        for line in (run / "run.log").read_bytes().split(b"\n")[:-1]:
            facts = json.loads(line)
            assert isinstance(facts, dict), facts
            assert {"at", "event"} <= facts.keys(), f"a line of its own in run.log: {line[:80]!r}"
        for arguments in (["status", run.name], ["status", run.name, "--json"], ["report", run.name]):
            ended = call(arguments, run.parent, before=forbid_network)
            ended.check_bounds()
            assert ended.code == 0, f"{arguments} ended with {ended.code}: {ended.err[-200:]}"
        manifest = ["plan", "loud.jsonl", "-o", run.name, "--set", "provider.kind=segmind", "--budget-usd", "1"]
        check_screen((refused := call(manifest, run.parent, before=forbid_network)).out + refused.err)
    except AssertionError as error:
        return str(error)
    return None


def _check_cells(path: Path) -> None:
    """No cell, of the header either, that a spreadsheet would take for a formula; and no row that is not ours."""
    text = path.read_bytes().decode()
    assert "\x00" not in text
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    widths = {len(row) for row in rows}
    assert len(widths) == 1, f"{path.name} has rows of {sorted(widths)} cells"
    for cell in _cells(rows):
        assert _NUMBER.fullmatch(cell) or not _OBEYED.match(cell), f"a cell of {path.name}: {cell[:60]!r}"


def _cells(rows: Iterable[list[str]]) -> Iterable[str]:
    for row in rows:
        yield from row

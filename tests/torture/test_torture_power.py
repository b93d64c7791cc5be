"""The power fails, after every call by which real lives touch the disk: what is left is enough to go on from.

The lives are traced from outside; for each moment the folders are rebuilt that the disk may then have kept. The
provider's own folder is the other side of the network: it has what it had.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from powerloss import DATA_LOST, DATA_TORN, DATA_ZEROED, NAME_LOST, ForgetfulDisk, Loss, Tree
from score import FIRST, LONG, Score, in_tier
from support import check_liability
from traced import BALLAST_BYTES, Call, Night, Story, trace
from worlds import Unreported, make_world, side_by_side

from pipeline.kernel import files
from pipeline.ledger import ballast, segments, store
from pipeline.ledger.events import Event
from pipeline.ledger.job import JobState
from pipeline.ledger.reading import read_events
from pipeline.ledger.store import open_ledger
from pipeline.provider.values import fingerprint

pytestmark = pytest.mark.timeout(0 if LONG else 300)

STATES_A_MOMENT = 100 if LONG else 4
ROUGH_NIGHTS = 20 if LONG else 1
LIVES = in_tier(quick=12, full=18, long=6000)
"""How many of the crash states are lived in to the end."""

FAULTS = (NAME_LOST, DATA_LOST, DATA_ZEROED, DATA_TORN)
LEDGER_LOST, MERGE_CUT_SHORT = "the ledger's folder lost", "a merge cut short"

OUTAGES_S = (0.0, 7200.0)
"""How long the power stays away; after two hours the provider has forgotten what runs."""

ROUGH = {
    "submit_drop_after": 0.15,
    "submit_502_before": 0.15,
    "submit_half_reply_after": 0.1,
    "gen_failed": 0.2,
    "poll_404": 0.2,
    "file_cut": 0.2,
    "file_corrupt": 0.2,
}


@dataclass(frozen=True)
class DieBeforeTheNameIsDurable:
    """SIGKILL between the rename of the n-th segment and the flush of its folder."""

    nth: int

    def arm(self) -> None:
        replace, count = os.replace, 0

        def deadly(source: Path, target: Path) -> None:
            nonlocal count
            replace(source, target)
            count += target.parent.name == "ledger"
            if count == self.nth:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = deadly  # type: ignore[assignment]


@dataclass(frozen=True)
class MergeAbove:
    """A ledger that is merged when it has more than so many segments."""

    segments: int

    def arm(self) -> None:
        store.MERGE_ABOVE = self.segments


@dataclass(frozen=True)
class Careless:
    """A pipeline that forgets one thing: what each of the rules of a commit is there for."""

    rule: str

    def arm(self) -> None:
        if self.rule == "the segment is written under its final name":
            segments.write_segment = _write_in_place
            return
        fsync = os.fsync

        def forgetful(descriptor: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            if self.rule != _rule_of(path, is_folder):
                fsync(descriptor)

        os.fsync = forgetful


def _rule_of(path: Path, is_folder: bool) -> str:
    if not is_folder:
        return "the file is not flushed"
    return "the folder is not flushed" if path.name in ("ledger", "videos") else "the folder's own name is not flushed"


def _write_in_place(folder: Path, events: Any, data: bytes) -> segments.SegmentName:
    name = segments.SegmentName.of(events[0].seq, events[-1].seq, data)
    descriptor = os.open(folder / str(name), os.O_WRONLY | os.O_CREAT, 0o644)
    files.write_all(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    files.fsync_folder(folder)
    return name


CARELESS = (
    "the file is not flushed",
    "the folder is not flushed",
    "the folder's own name is not flushed",
    "the segment is written under its final name",
)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Night]:
    """All that is traced: ordinary, rough and merging nights, and those of careless pipelines."""
    if shutil.which("strace") is None and os.environ.get("CI") != "true":
        pytest.skip("strace is not installed: `apt-get install strace` lets power losses be rebuilt from what it sees")
    folder = tmp_path_factory.mktemp("nights")
    stories = [Story("ordinary", make_world(folder / "ordinary"))]
    if not FIRST:
        stories += _other_stories(folder)
    return {night.name: night for night in trace(stories, folder / "strace.log")}


def _other_stories(folder: Path) -> Iterator[Story]:
    yield Story(
        "merging", make_world(folder / "merging"), [(MergeAbove(4), DieBeforeTheNameIsDurable(9)), (MergeAbove(4),)]
    )
    for seed in range(ROUGH_NIGHTS):
        rough = make_world(folder / f"rough-{seed}", faults=ROUGH, seed=seed)
        yield Story(rough.folder.name, rough, [(DieBeforeTheNameIsDurable(5 + seed % 7),), (), ()])
    for number, rule in enumerate(CARELESS):
        yield Story(rule, make_world(folder / f"careless-{number}"), [(Careless(rule),)])


@dataclass(frozen=True, slots=True)
class Crash:
    """One way in which the power may have failed in a night: what is left, and what the provider has by then."""

    label: str
    loss: Loss
    provider: Tree

    @property
    def journal(self) -> bytes:
        return self.provider.get("provider/journal.jsonl") or b""


def crashes(night: Night) -> Iterator[Crash]:
    """Each state once, though it may arise in many ways."""
    ours, theirs = ForgetfulDisk(night.world.folder, "run"), ForgetfulDisk(night.world.folder, "provider")
    seen: set[tuple[frozenset[tuple[str, bytes | None]], bytes]] = set()
    for moment, call in enumerate(night.calls):
        if not (ours.apply(call) | theirs.apply(call)):
            continue
        theirs.settle()
        provider = theirs.whole()
        for number, loss in enumerate(ours.losses(random.Random(f"{night.name}:{moment}"), STATES_A_MOMENT)):
            crash = Crash(f"{night.name}, {call.name} {moment}, state {number}", loss, provider)
            key = (frozenset(loss.tree.items()), crash.journal)
            if key not in seen:
                seen.add(key)
                yield crash


def write_tree(tree: Tree, folder: Path) -> None:
    """Lay a rebuilt folder out on the disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in tree.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


def accepted(journal: bytes) -> list[dict[str, Any]]:
    """The requests that the provider has accepted by then. One that will fail is never billed."""
    records = [json.loads(line) for line in journal.splitlines()]
    return [
        {
            "body": record["body"],
            "cost_microusd": record["cost_microusd"],
            "status": "FAILED" if record["error"] else "",
        }
        for record in records
        if record["k"] == "gen"
    ]


class Inspection:
    """Holds crash states of a night against the promise, without living in them."""

    def __init__(self, night: Night, scratch: Path) -> None:
        self._scratch = scratch
        self._made = {request["sha256"] for request in night.world.look()[0]}
        self._laid_out: Tree = {}
        self._verdicts: dict[tuple[frozenset[tuple[str, bytes | None]], bytes], dict[str, str] | Exception] = {}
        self.fired: Counter[str] = Counter()

    def check(self, crash: Crash) -> None:
        """The ledger opens, covers what was accepted, and each video with its final name, or stored, is whole.

        Raises:
            Exception: something of this is not so.
        """
        tree = crash.loss.tree
        assert "run/ledger" in tree or not accepted(crash.journal), "something was accepted, and there is no ledger"
        stored = self._open(tree, crash.journal) if "run/ledger" in tree else {}
        self.fired.update(crash.loss.faults)
        self.fired[LEDGER_LOST] += "run/ledger" not in tree
        for path, content in tree.items():
            if path.startswith("run/videos/") and not path.startswith("run/videos/."):
                assert _digest(content) in self._made, f"{path} has its final name and is not whole"
        for path, sha256 in stored.items():
            assert _digest(tree.get(f"run/{path}")) == sha256, f"{path} is stored by the ledger, and is not there"

    def _open(self, tree: Tree, journal: bytes) -> dict[str, str]:
        """The stored videos of a ledger that opens and covers the journal; the two are looked at once."""
        ledger = {path[11:]: content for path, content in tree.items() if path.startswith("run/ledger/")}
        for name in ledger.keys() & {"_lock", "_ballast"}:
            ledger[name] = b""  # who held it, and what means nothing: written anew by the next holder, read by nobody
        key = (frozenset(ledger.items()), journal)
        if key not in self._verdicts:
            try:
                self._verdicts[key] = self._load(ledger, journal)
            except Exception as error:
                self._verdicts[key] = error
        verdict = self._verdicts[key]
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    def _load(self, ledger: Tree, journal: bytes) -> dict[str, str]:
        folder = self._lay_out(ledger)
        events = read_events(folder)
        self.fired[MERGE_CUT_SHORT] += bool(segments.list_segments(folder)[1])
        with open_ledger(folder) as opened:
            assert opened.state.last_seq == len(events), "its reader and its writer see another ledger"
        check_liability(folder.parent, accepted(journal))
        return {record.path or "": record.sha256 or "" for record in opened.state.in_state(JobState.STORED)}

    def _lay_out(self, ledger: Tree) -> Path:
        """Write the ledger to the disk, less the segments that are still there from the last one."""
        folder = self._scratch / "run" / "ledger"
        folder.mkdir(parents=True, exist_ok=True)
        for name in os.listdir(folder):
            if not name.endswith(".parquet") or name not in ledger or self._laid_out.get(name) != ledger[name]:
                (folder / name).unlink()
        for name in ledger.keys() - set(os.listdir(folder)):
            (folder / name).write_bytes(ledger[name] or b"")
        self._laid_out = ledger
        return folder


@functools.cache
def _digest(content: bytes | None) -> str:
    return hashlib.sha256(content or b"").hexdigest()


def careful(nights: dict[str, Night]) -> list[Night]:
    """The nights of the pipeline as it is."""
    return [night for name, night in nights.items() if name not in CARELESS]


def test_what_is_rebuilt_of_a_whole_trace_is_what_is_there(
    nights: dict[str, Night], new_score: Callable[[str], Score]
) -> None:
    """With the power on, the folders rebuilt from the calls are to the byte those that the lives have left."""
    score = new_score("power: the trace tells all")
    for night in nights.values():
        with score.trial(night.name):
            ours, theirs = ForgetfulDisk(night.world.folder, "run"), ForgetfulDisk(night.world.folder, "provider")
            for call in night.calls:
                ours.apply(call)
                theirs.apply(call)
            there = {
                str(path.relative_to(night.world.folder)): None if path.is_dir() else path.read_bytes()
                for path in night.world.folder.rglob("*")
            }
            rebuilt = ours.whole() | theirs.whole()
            assert rebuilt == {path: there[path] for path in there if path.split("/")[0] in ("run", "provider")}
    score.conclude()


def test_intent_is_durable_before_a_post_and_the_id_before_a_poll(
    nights: dict[str, Night], tmp_path: Path, new_score: Callable[[str], Score]
) -> None:
    """When the first byte of a POST leaves, even the worst power loss leaves its reservation; so for a poll's id."""
    score = new_score("power: intent first")
    for night in careful(nights):
        posts: Counter[bytes | None] = Counter()
        for call in night.calls:
            head, _, body = call.data.partition(b"\r\n\r\n") if call.name in ("sendto", "sendmsg") else (b"", b"", b"")
            if head.startswith(b"POST /v2/"):
                score.fired["a submission"] += 1
                posts[fingerprint(body)] += 1
                with score.trial(f"{night.name}, POST {posts.total()}"):
                    reserved = Counter(
                        fingerprint(event.request) for event in _certain(night, call.begun, tmp_path) if event.request
                    )
                    assert fingerprint(body) is not None
                    assert reserved[fingerprint(body)] >= posts[fingerprint(body)]
            elif head.startswith(b"GET /v2/requests/"):
                score.fired["a poll"] += 1
                request_id = head.split(b"/")[3].split()[0].decode()
                with score.trial(f"{night.name}, poll of {request_id}"):
                    assert request_id in {event.request_id for event in _certain(night, call.begun, tmp_path)}
    score.conclude(["a submission", "a poll"])


def _certain(night: Night, moment: int, scratch: Path) -> list[Event]:
    """The events that would be left if the power failed at that moment and took all that it may."""
    disk = ForgetfulDisk(night.world.folder, "run")
    for call in night.calls:
        if call.ended < moment:
            disk.apply(call)
    write_tree(disk.certain(), scratch / "certain")
    return read_events(scratch / "certain" / "run" / "ledger")


@pytest.fixture
def _quick_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ledgers are opened by the thousand, and nothing of them need survive."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.setattr(ballast, "BALLAST_BYTES", BALLAST_BYTES)


@pytest.mark.usefixtures("_quick_to_open")
def test_no_power_loss_loses_money_or_makes_a_ledger_look_damaged(
    nights: dict[str, Night], tmp_path: Path, new_score: Callable[[str], Score]
) -> None:
    """In each state that a power loss may leave, the ledger opens and covers the bill, and final names are whole."""
    score = new_score("power: every state")
    for night in careful(nights):
        inspection = Inspection(night, tmp_path / night.name)
        for crash in crashes(night):
            with score.trial(crash.label):
                inspection.check(crash)
        score.fired.update(inspection.fired)
    score.conclude([*FAULTS, LEDGER_LOST, MERGE_CUT_SHORT])


def test_after_a_power_loss_the_next_lives_come_to_rest_with_equal_books(
    nights: dict[str, Night], tmp_path: Path, new_score: Callable[[str], Score]
) -> None:
    """Whatever the disk has kept, whoever runs again gets every video, once, for the price on the invoice."""
    score = new_score("power: lives after it")
    lived_in = careful(nights)

    def go_on(night: Night) -> None:
        chance = random.Random(night.name)
        for crash in drawn(list(crashes(night)), LIVES // len(lived_in), chance):
            # In a folder of its own, but at the same port: a run directory belongs to one provider.
            world = dataclasses.replace(night.world, folder=tmp_path / night.name, lives=0)
            world.now_s += chance.choice(OUTAGES_S)
            write_tree(crash.loss.tree | crash.provider, world.folder)
            with score.trial(crash.label):
                score.kills += 1
                world.check_exposure()
                world.live_on([Unreported()])
                world.check_rest()
            score.fired.update(crash.loss.faults)

    side_by_side(go_on, lived_in)
    score.conclude(FAULTS)


def drawn(states: Sequence[Crash], number: int, chance: random.Random) -> list[Crash]:
    """So many of them at random, but first of all one for each fault that there is among them."""
    shuffled = chance.sample(states, len(states))
    firsts = [next((at for at, crash in enumerate(shuffled) if fault in crash.loss.faults), 0) for fault in FAULTS]
    return [shuffled[at] for at in dict.fromkeys([*firsts, *range(len(shuffled))])][:number]


@pytest.mark.parametrize("rule", CARELESS)
@pytest.mark.usefixtures("_quick_to_open")
def test_a_pipeline_that_forgets_a_rule_is_found_out(nights: dict[str, Night], tmp_path: Path, rule: str) -> None:
    """Without any one of the rules of a commit, some power loss breaks the promise, and it is seen."""
    score, inspection = Score(rule), Inspection(nights[rule], tmp_path)
    for crash in crashes(nights[rule]):
        with score.trial(crash.label):
            inspection.check(crash)
        if score.violations and not LONG:
            break
    assert score.violations, f"{score.trials} states, and nothing is wrong with any"


def test_a_disk_forgets_what_was_not_flushed(tmp_path: Path) -> None:
    """Of a file that was renamed and flushed nowhere, each of its states is rebuilt; flushed, only the whole one is."""

    def states(*words: str) -> set[bytes | None]:
        disk = ForgetfulDisk(Path("/w"), "run")
        for number, word in enumerate(["mkdir", "fsync /w", "openat", "write", *words]):
            disk.apply(_spoken(word, number))
        losses = disk.losses(random.Random(1), 200)
        return {loss.tree.get("run/b", loss.tree.get("run/a")) for loss in losses if "run" in loss.tree}

    forgotten = states("rename")
    assert {b"", b"ab", b"\0\0\0", b"abc", None} <= forgotten
    assert states("fsync /w/run/a", "rename", "fsync /w/run") == {b"abc"}
    assert states("fsync /w/run/a", "rename") == {b"abc", None}


def _spoken(word: str, moment: int) -> Call:
    """A call that a trace could show."""
    name, _, path = word.partition(" ")
    texts, descriptors, words, result = {
        "mkdir": ((b"/w/run",), (), "", 0),
        "fsync": ((), (("3", path),), "", 0),
        "openat": ((b"/w/run/a",), (("AT_FDCWD", "/"),), "O_WRONLY|O_CREAT", 3),
        "write": ((b"abc",), (("3", "/w/run/a"),), "", 3),
        "rename": ((b"/w/run/a", b"/w/run/b"), (), "", 0),
    }[name]
    return Call(name, moment, moment, result, words, texts, descriptors)

"""SIGKILL at every line: whatever line a life dies before, the ledger covers the bill and the next life makes it good.

A life that is only watched tells which lines there are to die at, and what was on the disk before each. To die before
one line or the next leaves the same, if nothing was written between them: of such lines one is killed at. And the same
life follows from equal bytes, so each *crash state* that a kill has left is checked and lived on from once.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import SimpleQueue

import pytest
from kill_points import KillAtLine, KillAtStep, LeaveTracks, Line, Step, function_of, read_tracks
from score import LONG, Score, in_tier
from stories import STORIES, Stage, Story, crash_state
from worlds import KILLED, Doom, Unreported, World, side_by_side

LATER = in_tier(quick=4, full=8, long=8)
"""Kills of each story at lines that an earlier one has executed too, upon disks on which no line of its own was."""

PAIRS = in_tier(quick=4, full=8, long=1_000)
"""Double kills of each story."""

CHUNK = 256
"""Kills at successive opcodes before it is looked whether a life has come through."""

HANDS = 2

pytestmark = pytest.mark.timeout(0 if LONG else 1800)


@dataclass
class Attack:
    """A story with a stage for each hand, the lines of its life to be attacked, and the states that kills have left."""

    story: Story
    folder: Path
    tracks: list[Step] = field(default_factory=list)
    """The steps of the undisturbed life."""
    own_lines: set[Line] = field(default_factory=set)
    """Those that no story before this one has executed."""
    _stages: SimpleQueue[Stage] = field(default_factory=SimpleQueue)
    _numbers: Iterator[int] = field(default_factory=count)
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for hand in range(HANDS):
            self._stages.put(Stage(self.story, self.folder / f"stage-{hand}"))

    def kill(self, score: Score, *dooms: Doom) -> int:
        """One trial: live, and live again, with a doom each; then check what the last of them has left, and live on.

        Returns how many of these lives were killed.
        """
        stage, killed = self._stages.get(), 0
        try:
            with score.trial(f"{self.story.name}, {dooms}"):
                world = stage.set(self.folder / f"trial-{next(self._numbers)}")
                for doom in dooms:
                    killed += self.story.act.play(world, doom) == KILLED
                    if (state := crash_state(world)) not in self._seen:
                        world.check_exposure()
                score.kills += killed
                score.fired["kill"] += killed > 0
                score.fired["two kills"] += killed > 1
                score.fired.update(fired_in(world))
                if state not in self._seen:
                    self._seen.add(state)
                    _see_out(world)
                shutil.rmtree(world.folder)
        finally:
            self._stages.put(stage)
        return killed

    def watch(self) -> None:
        """Live undisturbed, and write down where a life can be killed."""
        stage = self._stages.get()
        world = stage.set(self.folder / "undisturbed")
        tracks = self.folder / "tracks"
        assert self.story.act.play(world, LeaveTracks(world.folder, tracks)) in (0, 1)
        world.check_rest()
        self.tracks = read_tracks(tracks)
        missed = set(self.story.purpose) - {function_of(step.line) for step in self.tracks}
        assert not missed, f"{self.story.name} is not what it should be about: {missed}"
        self._stages.put(stage)

    def points(self) -> list[KillAtLine]:
        """Every line of its own, whenever it is executed: once for all that come upon the same disk.

        Then a few lines that other stories share, upon other disks.
        """
        own = self._first_steps(lambda line: line in self.own_lines)
        shared = self._first_steps(lambda line: line not in self.own_lines)
        others = [point for disk, point in shared.items() if disk not in own]
        return [*own.values(), *random.Random(self.story.name).sample(others, min(LATER, len(others)))]

    def pairs(self) -> list[tuple[KillAtLine, KillAtLine]]:
        """Kills upon random disks, and in the lives after them kills at lines that come upon random disks as well."""
        steps, rng = list(self._first_steps(lambda _line: True).values()), random.Random(self.story.name)
        pairs = []
        for _ in range(PAIRS):
            first, second = rng.choice(steps), rng.choice(steps)
            pairs.append((first, KillAtLine(second.line, rng.randint(1, second.nth))))
        return pairs

    def _first_steps(self, chosen: Callable[[Line], bool]) -> dict[str, KillAtLine]:
        """For each disk, the first execution upon it of a line that is chosen."""
        executed: Counter[Line] = Counter()
        steps: dict[str, KillAtLine] = {}
        for line, disk in self.tracks:
            executed[line] += 1
            if chosen(line):
                steps.setdefault(disk, KillAtLine(line, executed[line]))
        return steps

    def kill_at_each_opcode(self, score: Score) -> None:
        """The first, the second, and so on, until there are no more."""
        for first in count(1, CHUNK):
            steps = [KillAtStep(nth, opcodes=True) for nth in range(first, first + CHUNK)]
            before = score.kills
            side_by_side(lambda step: self.kill(score, step), steps, HANDS)
            if score.kills - before < CHUNK:
                return


def _see_out(world: World) -> None:
    """Live on to the end, and hold all that is there then against what the provider knows."""
    world.live_on([Unreported()])
    world.check_rest()
    left = [path.name for path in world.folder.rglob("*.part")]
    assert not left, f"left behind: {left}"


def fired_in(world: World) -> list[str]:
    """The faults that the provider has made so far."""
    noted = world.folder / "faults"
    return noted.read_text().splitlines() if noted.exists() else []


@pytest.fixture(scope="module")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Attack]:
    """Each story by its name, watched."""
    made = {story.name: Attack(story, tmp_path_factory.mktemp("story")) for story in STORIES}
    side_by_side(Attack.watch, made.values(), HANDS)
    known: set[Line] = set()
    for attack in made.values():
        attack.own_lines = {step.line for step in attack.tracks} - known
        known |= attack.own_lines
    return made


@pytest.mark.parametrize("name", [story.name for story in STORIES])
def test_a_kill_at_any_point_loses_nothing_and_pays_nothing_twice(
    attacks: dict[str, Attack], new_score: Callable[[str], Score], name: str
) -> None:
    """Dead before any line, whenever it is executed (or any opcode): covered at once, and right in the end."""
    attack, score = attacks[name], new_score(f"kill at each {'opcode' if LONG else 'line'}: {name}")
    if LONG:
        attack.kill_at_each_opcode(score)
    else:
        side_by_side(lambda point: attack.kill(score, point), attack.points(), HANDS)
        assert score.kills == score.trials or score.violations, "a life took another way than the one that was watched"
    score.conclude(must_fire=attack.story.faults | {"kill"})


@pytest.mark.parametrize("name", [story.name for story in STORIES])
def test_a_second_kill_while_the_first_is_made_good_changes_nothing(
    attacks: dict[str, Attack], new_score: Callable[[str], Score], name: str
) -> None:
    """Dead in the middle of something, and dead again in the next life: covered after each, and right in the end."""
    attack, score = attacks[name], new_score(f"two kills: {name}")
    side_by_side(lambda dooms: attack.kill(score, *dooms), attack.pairs(), HANDS)
    score.conclude(must_fire=["two kills"])

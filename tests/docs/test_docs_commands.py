"""What the documents show is what happens: every command is run, every Python block executed, every file loaded."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import typer.main
from docs_support import (
    DOCUMENTS,
    NOT_RUN,
    ROOT,
    Block,
    Command,
    Done,
    agrees,
    blocks,
    commands,
    normal,
    read,
    recipe,
    run_in,
)

from pipeline.cli.app import app
from pipeline.cli.export import _folder
from pipeline.config import load_config
from pipeline.kernel.errors import InputError
from pipeline.manifest import load_manifest

COMMANDS = [command for document in DOCUMENTS for command in commands(document)]
RUN = [command for command in COMMANDS if command.why_not_run is None]
PYTHON = [block for document in DOCUMENTS for block in blocks(document) if block.words == ("python",)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("command", RUN, ids=str)
def test_a_command_does_what_the_document_shows(command: Command, done: dict[str, Done]) -> None:
    """It ends with the exit code that the document says, and prints what is shown, but for times, ids and counts."""
    really = done[str(command)]
    assert really.exit_code == command.exit_code, "\n".join(really.output)
    printed = "\n".join(really.output)
    assert not command.shown or agrees(command.shown, really.output), f"$ {command.text}\nreally prints:\n{printed}"


@pytest.mark.parametrize("beginning", NOT_RUN)
def test_every_command_that_is_not_run_is_still_there(beginning: str) -> None:
    """An exception for a command that no document has any more would hide the next one that begins like it."""
    assert any(command.text.startswith(beginning) for command in COMMANDS)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.why_not_run], ids=str)
def test_a_command_that_is_not_run_exists_all_the_same(command: Command) -> None:
    """Its `make` target is in the Makefile, its verb and options are the command line's, its files are there."""
    words = command.text.split()
    if words[0] == "make":
        assert recipe(words[1])
    if "kling-batch" in command.text:
        arguments = re.split(r"\S*kling-batch\"?", command.text)[-1].split()
        verb = typer.main.get_command(app).commands[arguments[0]]
        known = {option for parameter in verb.params for option in parameter.opts}
        assert {word.partition("=")[0].strip("'") for word in arguments if word.startswith("--")} <= known
    for word in words:
        if word.startswith(("manifests/", "configs/", "tests/")):
            assert (ROOT / word).is_file()


def test_the_two_lines_that_make_stands_for_are_the_makefiles() -> None:
    """README's commands for people without make are the recipes themselves."""
    shown = [command.text for command in commands("README.md")]
    set_up = [re.sub(r"^python\S*", "python3", line) for line in recipe(".venv/ready")]
    assert set(set_up) <= set(shown)
    assert recipe("demo")[-1] in shown
    assert " && ".join(recipe("test")) in shown


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("done")
@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.document}:{block.line}")
def test_a_python_block_runs_without_a_warning(block: Block, folder: Path) -> None:
    """As it stands, in the reader's folder, after the commands; what a `text` block behind it shows, it prints."""
    really = run_in([sys.executable, "-W", "error", "-c", block.text], folder)
    assert really.exit_code == 0, "\n".join(really.output)
    shown = _output_behind(block)
    if shown is not None:
        assert agrees(shown.lines, really.output), "really prints:\n" + "\n".join(really.output)


def _output_behind(block: Block) -> Block | None:
    """The `text` block that follows a block with nothing but a blank line between."""
    behind = block.line + len(block.lines) + 3
    return next((other for other in blocks(block.document) if other.line == behind and other.words == ("text",)), None)


def test_the_three_formats_of_the_guide_ask_for_the_same_videos(folder: Path) -> None:
    """The campaign as YAML, as CSV and as JSONL: the same job ids."""
    jobs = [{job.job_id for job in load_manifest(folder / f"spring.{end}").jobs} for end in ("yaml", "csv", "jsonl")]
    assert len(jobs[0]) == 4
    assert jobs[0] == jobs[1] == jobs[2]


@pytest.mark.parametrize(
    ("change", "new_videos"),
    [
        (("id: mug", "id: cup"), 0),
        (("priority: 10", "priority: -3"), 0),
        (("defaults: {duration: 5}", "defaults: {duration: 5, cfg_scale: 0.50, season: spring}"), 0),
        (("defaults: {duration: 5}", ""), 0),
        (("count: 2", "count: 3"), 1),
        (("count: 2", "count: 1"), 0),
        (("A brass desk lamp", "A  brass desk lamp"), 2),
        (('"9:16"', '"1:1"'), 2),
    ],
)
def test_what_the_guide_says_of_new_videos_is_so(
    folder: Path, tmp_path: Path, change: tuple[str, str], new_videos: int
) -> None:
    """Ids, order, priorities, formats and written defaults buy nothing; prompts, parameters and counts do."""
    before = (folder / "spring.yaml").read_text()
    assert change[0] in before
    changed = tmp_path / "spring.yaml"
    changed.write_text(before.replace(*change))
    known = {job.job_id for job in load_manifest(folder / "spring.yaml").jobs}
    assert len({job.job_id for job in load_manifest(changed).jobs} - known) == new_videos


MISSING_KEYS = ["media.executor=dask", "media.scheduler=tcp://10.0.0.1"]


@pytest.mark.parametrize("setting", MISSING_KEYS)
def test_a_config_key_that_is_not_in_this_version_is_refused(setting: str) -> None:
    """As README says: a run never goes on without what was asked for."""
    with pytest.raises(InputError, match="not supported in this version"):
        load_config(None, {}, [setting], environment={})


def test_every_verb_is_in_this_version() -> None:
    """README's list of what is missing names no verb by mistake, and says that addresses are no places to export to."""
    sentence = re.search(r"Not in this version yet: (.+?)\. ", read("README.md"))
    assert sentence is not None
    named = set(re.findall(r"`(\w+)`", sentence[1]))
    assert named <= set(typer.main.get_command(app).commands)
    with pytest.raises(InputError, match="not supported in this version"):
        _folder("s3://bucket/films")


@pytest.mark.parametrize("name", ["live", "sandbox"])
def test_the_config_files_load(name: str) -> None:
    """Both examples are valid; the live one is live, has a small cap, a deadline and a floor under the account."""
    config = load_config(ROOT / "configs" / f"{name}.yaml", {}, [], environment={})
    assert config.is_live == (name == "live")
    assert config.cap <= 50_000_000
    if config.is_live:
        assert config.stop.until
        assert config.budget.stop_below_credits_usd > 0
        assert config.limits.max_in_flight <= 10


def test_output_that_differs_is_noticed() -> None:
    """Times and ids may differ and `…` stands for lines, but an amount, a word or a missing line may not."""
    shown = ("in 17 s, 14 attempts, 67 polls", "…", "posted   $31.50")
    assert agrees(shown, ("in 3 s, 14 attempts, 9 polls", "more", "posted $31.50"))
    assert agrees(shown, ("in 3 s, 14 attempts, 9 polls", "posted $31.50"))
    assert not agrees(shown, ("in 3 s, 15 attempts, 9 polls", "posted $31.50"))
    assert not agrees(shown, ("in 3 s, 14 attempts, 9 polls", "posted $31.51"))
    assert not agrees(shown, ("in 3 s, 14 attempts, 9 polls",))
    assert not agrees(shown, ("in 3 s, 14 attempts, 9 polls", "posted $31.50", "one more"))
    assert not agrees(("5 s   $1.75",), ("10 s   $1.75",))
    assert normal("at 2026-11-23T18:55:28.354Z") == "at TIME"
    assert normal("done about 23:05 if started now.") == normal("done about 00:05 tomorrow if started now.")


def test_readme_fits_two_screens() -> None:
    """Whoever opens it reads it to the end."""
    assert len(read("README.md").splitlines()) <= 120

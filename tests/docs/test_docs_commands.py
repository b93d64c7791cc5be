"""What the documents show is what happens: every command is run, every Python block executed, every file loaded."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from docs_support import (
    DOCUMENTS,
    NIGHT,
    NOT_RUN,
    PAGES,
    ROOT,
    Block,
    Command,
    Done,
    agrees,
    blocks,
    commands,
    normal,
    output_behind,
    read,
    recipe,
    run_command,
    run_python,
    table,
)

from pipeline.cli.app import load_verb
from pipeline.config import load_config
from pipeline.manifest import load_manifest

EXIT_CODES, LEDGER, NIGHTS = "docs/exit-codes.md", "docs/ledger.md", "docs/night.md"
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


NOT_RUN_TEXTS = {str(command): command.text for command in COMMANDS if command.why_not_run} | {
    f"{block.document}:{block.line + number}": line
    for document in DOCUMENTS
    for block in blocks(document)
    for number, line in enumerate(block.lines)
    if (block.words[:1] == ("crontab",) or line.startswith("ExecStart=")) and "kling-batch" in line
}


@pytest.mark.parametrize("text", NOT_RUN_TEXTS.values(), ids=NOT_RUN_TEXTS)
def test_a_command_that_is_not_run_exists_all_the_same(text: str) -> None:
    """Its `make` target is in the Makefile, its verb and options are the command line's, its files are there."""
    words = text.split()
    if words[0] == "make":
        assert recipe(words[1])
    if "kling-batch" in text:
        arguments = re.split(r"\S*kling-batch\"?", text)[-1].split()
        verb = load_verb(arguments[0])
        known = {option for parameter in verb.params for option in parameter.opts}
        assert {word.partition("=")[0].strip("'") for word in arguments if word.startswith("--")} <= known
    for word in words:
        if word.startswith(("manifests/", "configs/", "tests/")):
            assert (ROOT / word).is_file()


def test_a_run_on_the_double_does_what_the_page_shows(folder: Path) -> None:
    """Its two commands as they stand, but for the port: the one serves, and the other takes it for the provider."""
    serving, running = (command for command in commands("docs/plan.md") if command.why_not_run is not None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    config = folder / "double.yaml"
    config.write_text(config.read_text().replace("8787", port))
    binary = Path(sys.executable).with_name("kling-batch")
    words = [str(binary), *serving.text.replace("8787", port).split()[1:]]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True) as double:
        try:
            assert double.stdout is not None
            assert double.stdout.readline().strip() == serving.shown[0].replace("8787", port)
            ran = run_command(running, folder)
        finally:
            double.send_signal(signal.SIGINT)
    assert (double.returncode, ran.exit_code) == (0, running.exit_code), ran.output
    assert agrees(running.shown, ran.output), "really prints:\n" + "\n".join(ran.output)
    assert json.loads((folder / "outputs/double/report/summary.json").read_bytes())["above_quotes_usd"] != "0.00"


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
    really = run_python(block, folder)
    assert really.exit_code == 0, "\n".join(really.output)
    shown = output_behind(block)
    if shown is not None:
        assert agrees(shown.lines, really.output), "really prints:\n" + "\n".join(really.output)


def test_the_three_formats_of_a_campaign_ask_for_the_same_videos(folder: Path) -> None:
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
def test_what_is_said_of_new_videos_is_so(
    folder: Path, tmp_path: Path, change: tuple[str, str], new_videos: int
) -> None:
    """Ids, order, priorities, formats and written defaults buy nothing; prompts, parameters and counts do."""
    before = (folder / "spring.yaml").read_text()
    assert change[0] in before
    changed = tmp_path / "spring.yaml"
    changed.write_text(before.replace(*change))
    known = {job.job_id for job in load_manifest(folder / "spring.yaml").jobs}
    assert len({job.job_id for job in load_manifest(changed).jobs} - known) == new_videos


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


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_read_in_one_go(page: str) -> None:
    """Whoever needs more has another page."""
    assert len(read(page).splitlines()) <= 310


QUESTIONS = [block for block in blocks(LEDGER) if block.words == ("python",)]
SQL = [block.text for block in blocks(LEDGER) if block.words == ("sql",)]


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("done")
@pytest.mark.parametrize("run_directory", [NIGHT, "outputs/quickstart"])
def test_the_ledger_gives_pandas_and_duckdb_the_same_answers(
    run_directory: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a rehearsed night and of a run in real time; and they are those of summary.json."""
    monkeypatch.chdir(folder)
    setting, *queries = (text.replace(NIGHT, run_directory) for text in SQL)
    answers = []
    with duckdb.connect() as database:
        database.execute(setting)
        for question, query in zip(QUESTIONS, queries, strict=True):
            names: dict[str, Any] = {}
            with contextlib.redirect_stdout(io.StringIO()):
                exec(question.text.replace(NIGHT, run_directory), names)
            answers.append(names["answer"])
            pd.testing.assert_frame_equal(names["answer"], database.sql(query).df(), check_dtype=False)
    dollars, times, trouble = answers
    summary = json.loads((folder / run_directory / "report" / "summary.json").read_text())
    assert f"{dollars['usd'].sum():.2f}" == summary["posted_usd"]
    assert times["videos"].sum() == summary["stored"]
    met = trouble.set_index("error_class")
    for told in summary["errors_by_class"]:
        assert met.loc[told["error_class"], "attempts"] >= told["attempts"]
        assert told["not_billed"] == told["attempts"]
        assert told["not_billed"] == (met["attempts"] - met["billed"])[told["error_class"]]
    assert (run_directory == NIGHT) == bool(len(trouble))
    assert (run_directory == NIGHT) == bool(trouble["usd"].sum())


def test_the_night_under_systemd_is_as_systemd_wants_it(folder: Path, tmp_path: Path) -> None:
    """Its units have no unknown key and no contradiction, where there is somebody to ask."""
    for path in folder.glob("kling-night*"):
        (tmp_path / path.name).write_text(path.read_text().replace("/srv/campaign", str(folder)))
    units = sorted(str(path) for path in tmp_path.iterdir())
    assert len(units) == 3
    if shutil.which("systemd-analyze"):
        asked = ["systemd-analyze", "verify", *units]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
        # It also looks at units of the machine that these want, and those may say what they like.
        assert [line for line in done.stderr.splitlines() if "kling-night" in line] == []


def test_what_systemd_starts_again_is_what_may_be_started_again() -> None:
    """The unit and the page of the exit codes agree: 5 and 6, never 2 or 4; and a bound that was met is no failure."""
    unit = next(block.text for block in blocks(NIGHTS) if block.words[1:] == ("kling-night.service",))
    keys = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    again = {int(code): word for code, _, word, _ in table(EXIT_CODES, "exit", "what stands", "again by itself?")}
    assert [code for code, word in again.items() if word.startswith("yes")] == [5, 6]
    assert keys["RestartForceExitStatus"] == "5 6"
    assert keys["Restart"] == "on-abnormal"
    assert [code for code, word in again.items() if word == "never"] == [2, 4]
    assert not {"1", "2", "4", "5", "6"} & set(keys["SuccessExitStatus"].split())

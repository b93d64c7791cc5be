"""What each verb prints, what it refuses, and with which exit code; nothing here sends anything."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import sys
import threading
from pathlib import Path

import click
import pytest
from conftest import FAST, Command

from pipeline.cli import screen
from pipeline.cli.app import VERBS, load_verb
from pipeline.cli.run import with_retry_value
from pipeline.kernel.clock import duration

QUICKSTART = str(Path(__file__).parents[2] / "manifests" / "quickstart.yaml")
LIVE = ("--set", "provider.kind=segmind")


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_shows_an_example(command: Command, verb: str) -> None:
    """The example stands on one line, so that it can be copied."""
    shown = command(verb, "--help")
    assert shown.code == 0
    (example,) = [each.strip() for each in shown.out.splitlines() if "Example:" in each]
    assert example.startswith(f"Example: kling-batch {verb}")
    assert shown.out.split(example)[1].startswith("\n\n")


def test_the_help_names_every_verb_in_whole_sentences(command: Command) -> None:
    """No sentence is cut off."""
    shown = command("--help")
    assert shown.code == 0
    told = shown.out.split("Commands:\n")[1].splitlines()
    assert [line.split(maxsplit=1) for line in told] == [[verb, first_sentence(verb)] for verb in VERBS]


def first_sentence(verb: str) -> str:
    text = load_verb(verb).help or ""
    return text.partition("\n")[0].partition(". ")[0].removesuffix(".") + "."


def test_a_misspelt_verb_is_met_with_the_one_that_was_meant(command: Command) -> None:
    """It is 2, and nothing is guessed at."""
    ended = command("statu", "outputs/m")
    assert ended.code == 2
    assert ended.err.endswith("Error: No such command 'statu'. Did you mean 'status'?\n")


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_is_interrupted_is_130(command: Command, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says nothing of its own: whoever pressed Ctrl-C knows it."""

    def interrupt(_context: click.Context) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(load_verb(verb), "invoke", interrupt)
    arguments = {"export": ("x", "--to", "y", "--format", "csv"), "resolve": ("x", "y"), "sandbox": ()}
    ended = command(verb, *arguments.get(verb, ("manifest",)))
    assert (ended.code, ended.out, ended.err) == (130, "", "")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("bogus",),
        ("plan",),
        ("plan", "--foo"),
        ("run", "m.csv", "-n", "0"),
        ("run", "m.csv", "extra"),
        ("status", "a", "b"),
    ],
)
def test_usage_errors_are_2(command: Command, arguments: tuple[str, ...]) -> None:
    """A command that cannot be understood says how it is written, and is 2."""
    ended = command(*arguments)
    assert ended.code == 2
    assert "Usage: kling-batch" in ended.err


def test_the_plan_of_the_quickstart(command: Command, tmp_path: Path) -> None:
    """The right dollars, the same for people and for scripts, and nothing made on the disk."""
    shown = command("plan", QUICKSTART)
    assert shown.code == 0
    assert shown.out.startswith(screen.SANDBOX_NOTE)
    assert re.search(r"5 s +\$1\.75 +10 +10 +\$17\.50\n", shown.out)
    assert re.search(r"10 s +\$3\.50 +4 +4 +\$14\.00\n", shown.out)
    assert "lets all 14 jobs through, for at most $31.50." in shown.out
    made = json.loads(command("plan", QUICKSTART, "--json").out)
    assert (made["jobs"], made["to_do"], made["cost_usd"], made["allowed_cost_usd"]) == (14, 14, "31.50", "31.50")
    assert sum(each["jobs"] for each in made["by_duration"]) == 14
    assert not list(tmp_path.iterdir())


def test_a_cap_that_is_too_small_says_which_would_do(command: Command, manifest: str) -> None:
    """Two of three dollars' worth: one job fits, and the cap for the rest is named."""
    shown = command("plan", manifest, "--budget-usd", "2")
    assert "The cap lets 1 of 2 jobs through, for $1.75." in shown.out
    assert "A cap of $5.25 would do for all that is left." in shown.out
    assert "lets none of 2 jobs through" in command("plan", manifest, "--budget-usd", "1").out


def test_one_is_not_many(command: Command, tmp_path: Path) -> None:
    """One row is `1 row`, one job is `the job`."""
    (tmp_path / "one.csv").write_text("prompt\na lamp\n")
    shown = command("plan", "one.csv").out
    assert "one: 1 row, 1 job  ->" in shown
    assert "The cap lets the job through" in shown
    assert not re.search(r"\b1 (rows|jobs)\b", shown)


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_wrong_manifest_is_told_whole(command: Command, tmp_path: Path, verb: str) -> None:
    """Every mistake has its line, row and column; nothing is made, nothing is sent."""
    (tmp_path / "bad.csv").write_text("id,prompt,duration\na b,x,7\nok,,5\n")
    ended = command(verb, "bad.csv")
    assert ended.code == 2
    assert ended.err.splitlines()[0] == "kling-batch: nothing was sent. To be corrected:"
    assert [each.split(":")[:3] for each in ended.err.splitlines()[1:]] == [
        ["bad.csv", "2", " row 1, id"],
        ["bad.csv", "2", " row 1, duration"],
        ["bad.csv", "3", " row 2, prompt"],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("plan", "no.csv"), "no.csv"),
        (("plan", "m.csv", "-c", "no.yaml"), "no.yaml: there is no such file"),
        (("plan", "m.csv", "--ids", "three"), "--ids: the manifest has no three"),
        (("run", "m.csv", "--ids", ""), "--ids: names nothing"),
        (("run", "m.csv", "--ids", " , "), "--ids: names nothing"),
        (("run", "m.csv", "--retry-failed=generation_faild"), "did you mean generation_failed?"),
        (("run", "m.csv", "--budget-usd", "abc"), "--budget-usd: `budget.cap_usd`: 'abc' is not a plain amount"),
        (("run", "m.csv", "--rpm", "0"), "--rpm: `limits.requests_per_minute`: must be more than 0"),
        (("run", "m.csv", "-j", "1.5"), "--max-in-flight: `limits.max_in_flight`: must be a whole number, not 1.5"),
        (("run", "m.csv", "--for", "8"), "--for: `stop.after`: '8' is not a duration like 90s, 15m or 8h"),
        (("run", "m.csv", "--until", "6"), "--until: `stop.until`: '6' is not a time of day like 06:30"),
        (("run", "m.csv", "--canary-approve"), "--canary-approve needs a canary: say --canary N"),
        (("run", "m.csv", "--set", "notify.webhook_env=NO_SUCH_HOOK"), "set NO_SUCH_HOOK in the environment or in a"),
        (("run", "m.csv", "--canary", "-1"), "--canary: `canary.jobs`: must be at least 0"),
        (("run", "m.csv", *LIVE, "--budget-usd", "9"), "no API key: set SEGMIND_API_KEY"),
        (("plan", "m.csv", *LIVE), "a live run needs a cap"),
        (
            ("plan", "m.csv", *LIVE, "--set", "provider.base_url=http://4[]@"),
            "'http://…@' must be only scheme",
        ),
        (("status", "no"), "no is not a run directory: it has no ledger"),
        (("report", "no"), "no is not a run directory: it has no ledger"),
        (("sandbox", "--fault", "submit_50=1"), "did you mean submit_500?"),
        (("sandbox", "--fault", "submit_500=x"), "write it as NAME=RATE"),
        (("sandbox", "--credits", "x"), "--credits: 'x' is not a plain amount of dollars"),
        (("sandbox", "--rpm", "0"), "rpm must be a whole number of at least 1"),
    ],
)
def test_refusals_are_one_sentence(
    command: Command, manifest: str, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    """Exit 2, one line that names what is wrong, nothing made."""
    ended = command(*arguments)
    assert (ended.code, ended.out) == (2, "")
    (sentence,) = ended.err.splitlines()
    assert sentence.startswith("kling-batch: ")
    assert told in sentence
    assert [path.name for path in tmp_path.iterdir()] == [manifest]


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_live_run_without_a_terminal_needs_a_yes(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    """With a key and a cap, but nobody to ask: exit 2, nothing made."""
    monkeypatch.setenv("SEGMIND_API_KEY", "SG_0123456789abcdef")
    ended = command("run", manifest, *LIVE, "--budget-usd", "9", *flags)
    assert ended.code == 2
    assert "--yes" in ended.err
    assert "SG_0123" not in ended.out + ended.err
    assert not Path("outputs").exists()


def test_a_person_who_says_no_is_heard(command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the plan is shown first, and anything but yes sends nothing."""
    monkeypatch.setenv("SEGMIND_API_KEY", "SG_0123456789abcdef")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    asked = []
    monkeypatch.setattr("click.confirm", lambda question, err: asked.append(question))
    ended = command("run", manifest, *LIVE, "--budget-usd", "9")
    assert (ended.code, asked) == (2, ["Real money will be spent. Go on?"])
    assert "for at most $5.25" in ended.out
    assert screen.SANDBOX_NOTE not in ended.out
    assert "not confirmed" in ended.err


def test_a_directory_that_is_held_is_refused(command: Command, manifest: str, tmp_path: Path) -> None:
    """Who holds it and since when is said; nothing is sent."""
    ledger = tmp_path / "outputs" / "m" / "ledger"
    ledger.mkdir(parents=True)
    with (ledger / "_lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write('{"pid":4711,"host":"here","since":"2026-06-01T22:00:00.000Z"}')
        lock.flush()
        ended = command("run", manifest)
    assert ended.code == 2
    assert "process 4711 on here has held it since 2026-06-01T22:00:00.000Z. Nothing was sent." in ended.err


@pytest.mark.parametrize(
    ("name", "verbs"),
    [
        ("ledger/_lock", ("status", "report", "export", "plan", "run", "reconcile")),
        ("jobs.parquet", ("status", "report", "export")),
        (".mirror.json", ("export", "run", "reconcile")),
    ],
)
def test_a_pipe_in_place_of_a_file_is_refused_in_a_sentence(
    name: str, verbs: tuple[str, ...], command: Command, manifest: str
) -> None:
    """Nobody may ever write into it: a command that waited for that would hang for ever."""
    command("run", manifest, *FAST)
    folder = Path("outputs/m")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    arguments = {"export": (str(folder), "--to", "clips", "--format", "csv"), "run": (manifest, *FAST)}
    arguments["plan"] = arguments["run"]
    for verb in verbs:
        ended = command(verb, *arguments.get(verb, (str(folder),)))
        assert ended.code in (2, 6), verb
        assert f"{folder / name} cannot be" in " ".join(ended.err.split()), verb
        assert "it is not a regular file" in " ".join(ended.err.split()), verb


ESCAPES = "\x1b]0;x\x07\x1b[2J\x9b31m\u202e\u061c"


def test_no_escape_reaches_the_screen(command: Command, tmp_path: Path) -> None:
    """Whatever a manifest, an argument or a file name holds, the terminal is not moved by it."""
    rows = [{"id": f"a{ESCAPES}", "prompt": f"x{ESCAPES}"}, {"prompt": "x", f"y{ESCAPES}": 1}]
    (tmp_path / "esc.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / f"e{ESCAPES}.csv").write_text("prompt\nx\n")
    (tmp_path / "esc.yaml").write_text(json.dumps({"name": f"n{ESCAPES}", "rows": [{"prompt": "x"}]}))
    for arguments in (
        ("plan", "esc.jsonl"),
        ("plan", "esc.yaml"),
        ("plan", f"e{ESCAPES}.csv", "--json"),
        ("plan", f"e{ESCAPES}.csv"),
        ("plan", f"e{ESCAPES}.csv", "-o", f"o{ESCAPES}"),
        ("plan", f"e{ESCAPES}.csv", "--ids", ESCAPES),
        ("status", f"no{ESCAPES}"),
    ):
        ended = command(*arguments)
        assert not set(ended.out + ended.err) & set(ESCAPES) - set("]0;x[2J31m"), arguments


def test_retry_failed_may_stand_alone() -> None:
    """Its classes are optional: it means all where the next word is no class."""
    assert with_retry_value(["m.csv", "--retry-failed"]) == ["m.csv", "--retry-failed=all"]
    assert with_retry_value(["--retry-failed", "m.csv"]) == ["--retry-failed=all", "m.csv"]
    assert with_retry_value(["--retry-failed", "--yes"]) == ["--retry-failed=all", "--yes"]
    assert with_retry_value(["--retry-failed", "server_error,gateway", "m.csv"]) == [
        "--retry-failed=server_error,gateway",
        "m.csv",
    ]
    assert with_retry_value(["--retry-failed=all", "m.csv"]) == ["--retry-failed=all", "m.csv"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (0.3, "less than 1 s"), (42, "42 s"), (600, "10 min"), (11_100, "3 h 05 min")],
)
def test_durations_are_said_as_people_do(seconds: float, said: str) -> None:
    """Short times in seconds, long ones in hours and minutes."""
    assert duration(seconds) == said


SUMMARY = {"pending": 0, "stopped_by": None, "in_doubt": 0, "errors_by_class": []}


def of_class(*open_ones: str) -> dict:
    return {"errors_by_class": [{"error_class": name, "jobs_open": int(name in open_ones)} for name in CLASSES]}


CLASSES = ("generation_failed", "input_refused", "bad_request")


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"exit_code": 0}, "Everything is stored"),
        ({"exit_code": 0, "missing": 2}, "Everything was stored"),
        ({"exit_code": 0, "pending": 1}, "1 job of the manifest is not made yet"),
        ({"exit_code": 1}, "RUN --retry-failed"),
        ({"exit_code": 1} | of_class("generation_failed", "input_refused"), "RUN --retry-failed"),
        ({"exit_code": 1} | of_class("input_refused", "bad_request"), "change its rows, then\n  RUN"),
        ({"exit_code": 3, "stopped_by": "limit"}, "Run again to go on:\n  RUN"),
        ({"exit_code": 3, "stopped_by": "failure_rate"}, "once the cause is cured"),
        ({"exit_code": 3, "stopped_by": "deadline"}, "with a later --until or a longer --for if it is to be bounded"),
        ({"exit_code": 3, "stopped_by": "credits"}, "Top up, or lower budget.stop_below_credits_usd; then run again"),
        ({"exit_code": 3, "stopped_by": "canary"}, "Look at what the canary brought"),
        ({"exit_code": 4}, "Once the account is in order"),
        (
            {"exit_code": 5},
            "Money is in doubt or paid work is not yet on disk. Run again to settle and collect it:\n  RUN",
        ),
        ({"exit_code": 5, "unfetched": 1}, "Paid work is not yet on disk. Run again"),
        (
            {"exit_code": 5, "in_doubt": 1},
            "Money is in doubt. The history may take two hours to show what is in doubt. Run",
        ),
        ({"exit_code": 5, "in_doubt": 1, "running": 1}, "Money is in doubt and paid work is not yet on disk."),
        ({"exit_code": 5, "message": "nobody's"}, "shown by\n  kling-batch reconcile outputs/m"),
        ({"exit_code": 5, "message": "the cap", "running": 1}, "Run again to settle and collect it:\n  RUN"),
        ({"exit_code": 6}, "Once this machine is in order"),
        ({"exit_code": 130}, "Everything is stored"),
        ({"exit_code": 130, "pending": 1}, "Run again to go on:\n  RUN"),
        ({"exit_code": 130, "unfetched": 1}, "Run again to go on:\n  RUN"),
    ],
)
def test_every_ending_names_the_next_step(facts: dict, told: str) -> None:
    """Whatever ended a run, the last line on the screen is what to do."""
    assert told in screen.next_command(SUMMARY | facts, "outputs/m", "RUN")


@pytest.mark.parametrize("bound", [["--for", "30s"], ["--for=30s"]])
def test_a_deadline_that_was_met_is_not_in_the_command_that_goes_on(
    command: Command, manifest: str, bound: list[str]
) -> None:
    """It would stop again, `--until` a day later; that it was shorter than one generation is said."""
    ended = command("run", manifest, *bound, "--limit", "2")
    *_, told, again = ended.out.splitlines()
    assert (ended.code, again) == (3, "  kling-batch run m.csv --limit 2")
    assert told.startswith("One generation takes about 5 min, and the deadline left less; run again with a later")


def test_a_live_run_that_may_only_retry_is_confirmed_too(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan with nothing new to make, but with something that may be submitted, is not run without a yes."""
    from pipeline import forecast

    monkeypatch.setenv("SEGMIND_API_KEY", "SG_0123456789abcdef")
    monkeypatch.setattr(forecast.Plan, "may_spend", property(lambda _plan: True))
    monkeypatch.setattr(forecast, "_standing", lambda _state, jobs, _retried: [forecast.JobState.SUBMITTED] * len(jobs))
    ended = command("run", manifest, "--set", "provider.kind=segmind", "--budget-usd", "9")
    assert (ended.code, "needs --yes" in ended.err) == (2, True)


def test_the_bill_of_the_sandbox_is_held_against_the_ledger() -> None:
    """Equal to the cent, or said to differ."""
    from pipeline.cli.screen import bill_screen
    from pipeline.kernel.usd import MicroUsd

    assert "the same to the cent" in bill_screen(MicroUsd(31_500_000), {"posted_usd": "31.50", "in_doubt_usd": "0.00"})
    doubted = {"posted_usd": "29.75", "in_doubt_usd": "1.75"}
    assert "but $29.75 is posted: see what is in doubt." in bill_screen(MicroUsd(31_500_000), doubted)
    forgotten = bill_screen(MicroUsd(3_500_000), {"posted_usd": "35.00", "in_doubt_usd": "0.00"})
    assert "but $35.00 is posted: its folder .sandbox was removed or replaced since the first run, so" in forgotten
    more = bill_screen(MicroUsd(31_500_000), {"posted_usd": "29.75", "in_doubt_usd": "0.00"})
    assert "but $29.75 is posted, and nothing is in doubt" in more


def test_the_errors_by_class_say_what_they_cost_and_what_to_do() -> None:
    """A line for each class, with its money and the advice; what a provider has written moves no cursor."""
    money = {"billed_usd": "1.75", "unknown_usd": "3.50"}
    of = {"attempts": 12, "jobs": 4, "jobs_open": 3, **money, "error_class": "gate\x1b[2Jway", "next": "Run again."}
    head, line = screen.errors_screen([of]).split("\n")
    assert head.split() == ["attempts", "jobs", "open", "billed", "unknown", "next"]
    assert line.split() == ["12", "4", "3", "$1.75", "$3.50", "gate�[2Jway", "Run", "again."]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_errors_by_class_keep_within_the_terminal(width: int) -> None:
    """What to do stands below its class where there is no room beside it, and loses no word."""
    told = " ".join(["The generation failed at the provider."] * 4)
    of = {"attempts": 1_200, "jobs": 400, "jobs_open": 3, "billed_usd": "1750.00", "unknown_usd": "3.50"}
    shown = screen.errors_screen([of | {"error_class": "generation_failed", "next": told}], width)
    assert max(map(len, shown.split("\n"))) <= width
    assert " ".join(shown.split()).endswith(f"$1,750.00 $3.50 generation_failed: {told}")


def test_charges_above_their_quotes_stand_in_a_table() -> None:
    """A line for each, by the attempt's name; nothing where there are none."""
    above = {"k1-a/1": {"charged_usd": "3.50", "quoted_usd": "1.75"}}
    head, row = screen.above_quotes_screen({"above_quotes": above}).split("\n")
    assert (head.split()[-2:], row.split()) == (["charged", "quoted"], ["k1-a/1", "$3.50", "$1.75"])
    assert screen.above_quotes_screen({"above_quotes": {}}) == ""


def test_a_summary_is_read_at_a_glance_however_large() -> None:
    """Thousands stand apart in counts and in money, to the last figure of an amount."""
    counts = {"stored": 1_000_000, "failed": 12_345, "in_doubt": 0, "running": 0, "unfetched": 0, "pending": 999}
    money = {"posted": "1750000.00", "reserved": "0.0025", "in_doubt": "0.00", "free": "-1234.50", "cap": "10.00"}
    summary = counts | {f"{name}_usd": amount for name, amount in money.items()} | {"above_quotes_usd": "0.00"}
    assert "above quotes $1.75" in " ".join(screen.summary_screen(summary | {"above_quotes_usd": "1.75"}).split()), (
        "where there is any"
    )
    shown = screen.summary_screen(summary).split()
    assert [word for word in shown if word[0] in "0123456789$"] == [
        *("1,000,000", "$1,750,000.00", "12,345", "$0.0025", "999", "$0.00", "$-1,234.50", "$10.00")
    ]


class Terminal(io.StringIO):
    """An error stream that is a terminal, and tells when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        written = super().write(text)
        self.told.set()
        return written


def test_what_takes_long_is_told_on_a_terminal_and_its_line_is_left_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "TOLD_EVERY_S", 0.001)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with screen.working("Reading \x1b[2Jrows.csv"):
        assert terminal.told.wait(30)
    *_, told, empty, end = terminal.getvalue().split("\r")
    assert told.startswith("Reading �[2Jrows.csv … ")
    assert (empty.strip(" "), end) == ("", "")
    assert len(empty) == len(told)


@pytest.mark.parametrize("said", ["briefly", "elsewhere", "unasked"])
def test_what_is_short_or_not_for_a_terminal_is_not_told(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work of no time at all; work told into a file or a pipe; and where no progress is wanted."""
    if said != "briefly":
        monkeypatch.setattr(screen, "TOLD_EVERY_S", 0.0)
    stream = io.StringIO() if said == "elsewhere" else Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    threads = threading.active_count()
    with screen.working("Reading rows.csv", shown=said != "unasked"):
        assert threading.active_count() == threads + (said == "briefly")
    assert (stream.getvalue(), threading.active_count()) == ("", threads)


def test_a_terminal_that_is_gone_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "TOLD_EVERY_S", 0.001)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(terminal, "flush", lambda: terminal.close())
    with screen.working("Reading rows.csv"):
        assert terminal.told.wait(30)
    assert terminal.closed


@pytest.mark.parametrize("flags", [(), ("--no-progress",)])
def test_no_progress_is_none_before_and_after_the_run_either(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    told: list[str] = []
    monkeypatch.setattr(screen, "_tell", lambda what, _done: told.append(what))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert command("run", manifest, *FAST, *flags).code == 0
    all_told = ["Reading m.csv", "Looking at outputs/m", "Opening the run directory", "Writing the report"]
    assert told == ([] if flags else all_told)

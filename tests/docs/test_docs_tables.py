"""What the documents tabulate is what the code says, and every link leads somewhere."""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from docs_support import DOCUMENTS, PAGES, ROOT, anchors, blocks, plain, read, table
from mistakes import MISTAKES

from pipeline.cli.app import VERBS, app, load_verb
from pipeline.config import FLAGS, Config, dump_config, load_config
from pipeline.engine import stopping
from pipeline.engine.stopping import StopReason
from pipeline.kernel.errors import Charge, ErrorClass, InputError, MachineError
from pipeline.ledger.events import COLUMNS, EventKind
from pipeline.ledger.fold import MOVES, State
from pipeline.ledger.job import JobState
from pipeline.ledger.store import MERGE_ABOVE
from pipeline.manifest import load_manifest
from pipeline.manifest.document import RESERVED
from pipeline.manifest.feeds import TABLES
from pipeline.manifest.template_language import FILTERS
from pipeline.models import DEFAULT_MODEL, find_model
from pipeline.provider.replies import decode_submit
from pipeline.report.summary import summarise
from pipeline.report.tables import ERROR_COLUMNS, RESULT_COLUMNS, STATUS

CONFIG, DESIGN, EXIT_CODES, LEDGER = "docs/config.md", "docs/design.md", "docs/exit-codes.md", "docs/ledger.md"
MANIFEST, MONEY, NIGHT, RESULTS = "docs/manifest.md", "docs/money.md", "docs/night.md", "docs/results.md"


def _state(state: JobState | None) -> str:
    return state.name.lower() if state else "planned"


MOVES_IN_WORDS = sorted((_state(before), event.value, _state(after)) for (before, event), after in MOVES.items())


def test_the_table_of_moves_is_the_codes() -> None:
    """Every move with a sentence of its own, and none that the fold refuses."""
    rows = table(DESIGN, "from", "event", "to", "why")
    assert sorted((plain(before), plain(event), plain(after)) for before, event, after, _ in rows) == MOVES_IN_WORDS
    letters = [why[:6] for *_, why in rows]
    assert letters == [f"**{chr(ord('a') + index)}** "[:6] for index in range(len(MOVES))]
    assert len({why for *_, why in rows}) == len(rows)


def test_the_drawing_of_the_states_is_the_table() -> None:
    """The same arrows under the same letters."""
    drawing = next(block for block in blocks(DESIGN) if block.words == ("mermaid",))
    arrows = [re.fullmatch(r" *(\S+) --> (\S+): (\w) (\S+)", line) for line in drawing.lines[1:]]
    drawn = [(match[3], match[1].replace("[*]", "planned"), match[4], match[2]) for match in arrows if match]
    tabled = [
        (why[2], plain(before), plain(event), plain(after))
        for before, event, after, why in table(DESIGN, "from", "event", "to", "why")
    ]
    assert drawn == tabled


def test_the_ledgers_columns_are_the_codes() -> None:
    """Names, types and order."""
    rows = table(LEDGER, "column", "type", "what it is")
    assert [(plain(name), plain(kind)) for name, kind, _ in rows] == list(COLUMNS.items())


def test_each_event_has_its_row_of_what_the_next_run_does() -> None:
    """Nothing can be the last event of a dead run without a word of what follows."""
    rows = table(MONEY, "latest event", "the process died", "the next run")
    assert sorted(plain(event) for event, *_ in rows) == sorted(kind.value for kind in EventKind)


ERROR_TABLE = ("class", "charged", "reaction", "answer to a submission", "meaning")


def test_the_classes_of_error_are_the_codes() -> None:
    """Each class once, with who is charged and the reaction."""
    rows = [tuple(map(plain, row[:3])) for row in table(DESIGN, *ERROR_TABLE)]
    assert rows == [(each.label, each.charge.value, each.reaction.name.lower()) for each in ErrorClass]


BODIES = [
    b"",
    b"{}",
    *(orjson.dumps({"error": text}) for text in ("Insufficient credits", "NSFW content", "bad value")),
]


def test_each_status_is_judged_as_tabulated() -> None:
    """Every status that the table names, with bodies of all kinds, is of the classes whose rows name it."""
    tabulated: dict[int, set[str]] = {}
    for label, _, _, answer, _ in table(DESIGN, *ERROR_TABLE):
        for status in re.findall(r"\b[2-5]\d\d\b", answer):
            tabulated.setdefault(int(status), set()).add(plain(label))
    assert len(tabulated) >= 18
    for status, labels in tabulated.items():
        judged = {decode_submit(status, {}, body, 0).error_class.label for body in BODIES}
        assert judged == labels, status
    others = {status: decode_submit(status, {}, b"", 0) for status in range(100, 600) if status not in tabulated}
    odd = {status: reply for status, reply in others.items() if not 200 <= status < 300}
    assert {reply.error_class for reply in odd.values()} == {ErrorClass.GATEWAY}


def test_the_config_keys_and_their_defaults_are_the_codes() -> None:
    """Every key of every section, in order, with the default that is in force."""
    known = {
        f"{section}.{key}": value
        for section, keys in yaml.safe_load(dump_config(Config())).items()
        for key, value in keys.items()
    }
    rows = [(plain(key), yaml.safe_load(plain(default))) for key, default, _ in table(CONFIG, "key", "default")]
    assert rows == list(known.items())
    assert all(len(row) == 3 and row[2] for row in table(CONFIG, "key", "default"))


def test_the_parameters_and_their_defaults_are_the_models() -> None:
    """Each parameter of the model and each word of a row once, with the default that is sent."""
    rows = {plain(name): plain(default) for name, default, _ in table(MANIFEST, "column", "default", "allowed")}
    model = find_model(DEFAULT_MODEL)
    assert set(rows) == {*model.parameters, *RESERVED} - {"model"}
    params, _ = model.normalise({"prompt": "a lamp"})
    defaults: dict[str, Any] = {name: value for name, value in params.items() if name != "prompt"}
    assert {name: yaml.safe_load(rows[name]) for name in defaults} == defaults


def test_the_prices_are_the_models() -> None:
    """$1.75 and $3.50, wherever they are said first."""
    prices = find_model(DEFAULT_MODEL).default_prices
    assert prices == {"5": 1_750_000, "10": 3_500_000}
    assert "$1.75 for 5 s, $3.50 for 10 s" in read("README.md")


def test_the_exit_codes_are_the_codes() -> None:
    """Every code that a command can end with, and which of several is given."""
    rows = [int(code) for code, *_ in table("README.md", "exit", "meaning")]
    given = {0, 1, 5, InputError.exit_code, MachineError.exit_code, *(reason.exit_code for reason in StopReason)}
    assert sorted(rows) == sorted(given)
    order = re.search(r"Several hold: ([\d a-z]+)\.", read("README.md"))
    assert order is not None
    said = [int(code) for code in re.findall(r"\d+", order[1])]
    for index, code in enumerate(said):
        assert stopping.gravest(said[index:][::-1]) == code
    assert set(said) == given - {0, 2}


def test_what_stands_after_each_exit_code_is_told() -> None:
    """The page has the README's codes, and every reason to stop with its code."""
    codes = [code for code, *_ in table(EXIT_CODES, "exit", "what stands")]
    assert codes == [code for code, *_ in table("README.md", "exit", "meaning")]
    reasons = {plain(word): int(code) for word, code, _ in table(EXIT_CODES, "word", "exit", "what stopped it")}
    assert reasons == {reason.word: reason.exit_code for reason in StopReason}


def test_the_flags_set_the_keys_that_they_are_said_to_set() -> None:
    """Each key that has a flag of its own, and no other."""
    assert {plain(key): plain(flag) for flag, key in table(CONFIG, "flag", "key")} == FLAGS


def test_the_last_word_on_the_cap_counts(tmp_path: Path) -> None:
    """The example of precedence, line by line: each that is added wins over those above it."""
    lines = next(block.lines for block in blocks(CONFIG) if block.words == ("text",))
    default, in_file, variable, setting, flag = (line.split("   ")[0] for line in lines)
    path = tmp_path / "config.yaml"
    path.write_text(in_file)
    name, value = variable.split("=")
    said: dict[str, Any] = {"file": None, "overrides": {}, "settings": [], "environment": {}}
    caps = []
    for more in (
        {},
        {"file": path},
        {"environment": {name: value}},
        {"settings": [setting.removeprefix("--set ")]},
        {"overrides": {"budget.cap_usd": flag.removeprefix("--budget-usd ")}},
    ):
        said |= more
        caps.append(load_config(**said).cap)
    assert caps == [cap * 1_000_000 for cap in (100, 35, 40, 45, 50)]
    assert Decimal(default) == 100


def test_the_index_names_every_page() -> None:
    """Nobody must guess that a page exists."""
    named = {path for path in re.findall(r"\]\(([^)#]+\.md)", read("docs/README.md")) if "/" not in path}
    assert {f"docs/{path}" for path in named} | {"docs/README.md"} == set(PAGES)


def test_the_house_is_the_import_contracts() -> None:
    """The floors and the rooms on each, from top to bottom."""
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = table(DESIGN, "floor", "rooms", "what for")
    assert [set(re.findall(r"`(\w+)`", rooms)) for _, rooms, _ in rows] == [
        set(re.findall(r"\w+", at)) for at in layers
    ]
    assert [int(floor) for floor, *_ in rows] == list(range(1, len(layers) + 1))


def test_the_seven_invariants_name_code_and_tests_that_exist() -> None:
    """Each is asserted in a function and attacked by a test, and both are where the table says."""
    rows = table(DESIGN, "#", "invariant", "asserted in", "attacked in")
    assert [number for number, *_ in rows] == [str(number) for number in range(1, 8)]
    for _, _, asserted, attacked in rows:
        for cell, folder in ((asserted, "pipeline/"), (attacked, "tests/")):
            places = re.findall(r"`(\S+?)::(\w+)`", cell)
            assert places
            for path, name in places:
                assert path.startswith(folder)
                assert re.search(rf"^\s*(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), (path, name)


def test_the_statuses_are_the_reports() -> None:
    """The words of the column `status`, as the results' page lists them."""
    line = next(line for line in read(RESULTS).split("\n\n") if line.startswith("The statuses are"))
    assert set(re.findall(r"`(\w+)`", line)) == {*STATUS.values(), "pending"}


def test_the_columns_and_keys_of_the_report_are_the_codes(tmp_path: Path) -> None:
    """Whoever reads the files by a script finds every name on the page, in the files' order where there is one."""
    page = read(RESULTS)

    def named(begins: str, ends: str) -> list[str]:
        return re.findall(r"`(\w+)`", page.partition(begins)[2].partition(ends)[0])

    assert named("Its columns: ", "; behind them") == list(RESULT_COLUMNS)
    assert [name for name in named("has these columns: ", "A text that") if name not in BILLED] == list(ERROR_COLUMNS)
    keys = summarise([], State(), cap_microusd=0, live=False)
    assert set(named("One object for scripts.", "\n## ")) == set(keys)


BILLED = {charge.value for charge in Charge}


def test_more_segments_than_the_design_says_are_merged() -> None:
    """The number in the document is the number in the code."""
    assert f"more than {MERGE_ABOVE} segments become one" in read(DESIGN)


OWN_OPTIONS = {
    "--no-loadscope-reorder",
    "--now",
    "--user",
    "--unit",
    "--working-directory",
    "--signal",
    "--quiet",
    "--editable",
    "--constraint",
}
"""Options of other programs in the documents."""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_option_that_a_document_names_exists(document: str) -> None:
    """No verb's option is misspelt or promised."""
    commands = [app, *map(load_verb, VERBS)]
    known = {option for command in commands for parameter in command.params for option in parameter.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", read(document)))
    assert named - known <= OWN_OPTIONS | {"--disable-pip-version-check", "--check", "--dist"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    """To a file of the project, and to a heading in it where the link names one."""
    folder = (ROOT / document).parent
    prose = re.sub(r"^```.*?^```$", "", read(document), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (folder / path).resolve() if path else ROOT / document
        assert file.is_file(), target
        if anchor:
            assert anchor in anchors(str(file.relative_to(ROOT))), target


RELIABILITY = "docs/reliability.md"


def test_the_figures_are_those_of_every_scenario_of_the_torture_suite() -> None:
    """Each scenario has its row, and each row its scenario; a part of a name that varies stands for any words."""
    named = set()
    for path in (ROOT / "tests" / "torture").glob("test_*.py"):
        named |= set(re.findall(r'new_score\(\s*f?"((?:[^"{]|\{[^}]*\})+)"', path.read_text()))
    assert len(named) > 40
    scenarios = [re.compile(re.sub(r"\\{.*?\\}", ".+", re.escape(name))) for name in named]
    rows = [plain(name) for name, *_ in table(RELIABILITY, "scenario", "trials", "kills", "faults fired", "violations")]
    assert len(rows) == len(set(rows))
    assert [row for row in rows if not any(scenario.fullmatch(row) for scenario in scenarios)] == []
    assert [scenario for scenario in scenarios if not any(scenario.fullmatch(row) for row in rows)] == []


def test_the_violations_told_are_none() -> None:
    """A scenario with a violation has no place among the figures."""
    rows = table(RELIABILITY, "scenario", "trials", "kills", "faults fired", "violations")
    assert {plain(row[4]) for row in rows} == {"0"}


def test_every_mistake_made_on_purpose_is_told_with_its_scenario() -> None:
    """The list is the one that the suite makes."""
    rows = [(plain(name), plain(found)) for name, found in table(RELIABILITY, "mistake", "found by")]
    assert rows == [(mistake.name, f"test_torture_{mistake.scenario[0]}.py") for mistake in MISTAKES]


def test_the_campaign_that_is_grown_has_the_videos_that_its_files_say(tmp_path: Path) -> None:
    """Each file of the manifest's document is complete, loads without a warning, and makes what its comment counts."""
    written = [block for block in blocks(MANIFEST) if len(block.words) == 2]
    for block in written:
        (tmp_path / block.words[1]).write_text(block.text)
    made = {
        name: load_manifest(tmp_path / name)
        for name in sorted(block.words[1] for block in written)
        if name.startswith("mug-")
    }
    assert [len(campaign.jobs) for campaign in made.values()] == [2, 8, 7, 4, 10, 4, 4]
    assert not [warning for campaign in made.values() for warning in campaign.warnings]


def test_the_filters_and_the_formats_are_those_that_there_are() -> None:
    """Nobody looks for a filter that a document forgot, or for one that is not there."""
    [filters] = [gives for writes, gives in table(MANIFEST, "you write", "it gives") if "lower" in writes]
    assert re.findall(r"`(\w+)`", filters) == sorted(FILTERS)
    files = [plain(file) for file, _ in table(MANIFEST, "file", "what it is")]
    assert sorted(re.findall(r"\.\w+", " ".join(files))) == sorted((".yaml", ".yml", *TABLES))

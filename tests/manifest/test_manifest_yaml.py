"""YAML manifests: defaults, the matrix, rows, and what their keys mean."""

from __future__ import annotations

import sys

import pytest
from conftest import Fail, Load

from pipeline.manifest.campaign import count_rows


def test_every_row_meets_every_combination_in_the_order_written(load: Load) -> None:
    """Rows first, then the axes as written (the last runs fastest), then the replicates."""
    campaign = load(
        """
        name: sweep
        matrix: {product: [mug, lamp], aspect_ratio: ["16:9", "9:16"]}
        rows:
          - {id: a, prompt: "one {{ product }}", count: 2}
          - {id: b, prompt: "two {{ product }}"}
        """
    )
    seen = [
        (e.row, e.row_id, e.variables["product"], e.job.params["aspect_ratio"], e.job.replicate)
        for e in campaign.entries
    ]
    assert seen[:5] == [
        (1, "a", "mug", "16:9", 1),
        (1, "a", "mug", "16:9", 2),
        (1, "a", "mug", "9:16", 1),
        (1, "a", "mug", "9:16", 2),
        (1, "a", "lamp", "16:9", 1),
    ]
    assert [row for row, *_ in seen] == [1] * 8 + [2] * 4
    assert (campaign.name, count_rows(campaign.entries)) == ("sweep", 2)
    assert len(campaign.entries) == len(campaign.jobs) == 12
    assert campaign.entries[0].job.params["prompt"] == "one mug"
    assert "aspect_ratio" not in campaign.entries[0].variables


def test_a_rows_own_axes_multiply_and_override_those_of_the_top(load: Load) -> None:
    """The same name is replaced, a new name multiplies."""
    campaign = load(
        """
        matrix: {product: [mug, lamp], light: [dawn]}
        rows:
          - prompt: "{{ product }} {{ light }} {{ mood }}"
            matrix: {product: [vase], mood: [cozy, bold]}
        """
    )
    assert [e.job.params["prompt"] for e in campaign.entries] == ["vase dawn cozy", "vase dawn bold"]


def test_the_nearest_value_wins(load: Load) -> None:
    """defaults < top matrix < row < the row's own axes; count and priority have defaults too."""
    campaign = load(
        """
        defaults: {duration: 10, aspect_ratio: "1:1", mood: calm, priority: 3, count: 2}
        matrix: {aspect_ratio: ["9:16"]}
        rows:
          - {prompt: "a {{ mood }}"}
          - {prompt: "b {{ mood }}", duration: 5, mood: wild, priority: -1, count: 1}
        """
    )
    first, again, second = campaign.entries
    assert (first.job.params["duration"], first.job.params["aspect_ratio"]) == (10, "9:16")
    assert (first.priority, again.job.replicate, again.job.params["prompt"]) == (3, 2, "a calm")
    assert (second.job.params["duration"], second.job.params["prompt"], second.priority) == (5, "b wild", -1)


def test_a_list_of_rows_alone_is_a_manifest_named_by_its_file(load: Load) -> None:
    """The smallest manifest is one line."""
    campaign = load("- prompt: a mug", "Spring Campaign 2026.yml")
    assert (campaign.name, count_rows(campaign.entries)) == ("spring-campaign-2026", 1)
    assert campaign.entries[0].job.model == "kling-2"


@pytest.mark.parametrize(
    ("file", "name", "is_warned"),
    [
        ("夏.yaml", "campaign", True),
        ("日本 spring.yaml", "spring", True),
        ("🎬 spring.yaml", "spring", True),
        ("Übung im März.yaml", "ubung-im-marz", False),
        ("spring!.yaml", "spring", False),
    ],
)
def test_a_file_name_of_which_letters_are_lost_is_warned_of(load: Load, file: str, name: str, is_warned: bool) -> None:
    """Two manifests may come to one run directory, one ledger and one cap; not where the name is said."""
    campaign = load("- prompt: a mug", file)
    assert campaign.name == name
    assert [f"the file's name gives the run directory '{name}'" in each.message for each in campaign.warnings] == [
        True
    ] * is_warned
    assert load("name: mine\nrows: [{prompt: a mug}]", file).warnings == ()


def test_a_row_without_an_id_gets_a_readable_one_from_its_rendered_prompt(load: Load) -> None:
    """At most 40 small ASCII characters; a prompt without any is called `row`."""
    campaign = load(
        """
        - {prompt: "A CAFÉ in {{ city }}, at night…", city: Málaga}
        - {prompt: "猫の動画"}
        - {prompt: "one two three four five six seven eight nine ten eleven"}
        - {prompt: "../../../etc/passwd"}
        """
    )
    ids = [entry.row_id for entry in campaign.entries]
    assert ids == [
        "a-cafe-in-malaga-at-night",
        "row",
        "one-two-three-four-five-six-seven-eight",
        "etc-passwd",
    ]
    assert [entry.job.label for entry in campaign.entries] == ids


def test_rows_that_ask_for_the_same_video_share_one_job_with_a_warning(load: Load) -> None:
    """Replicate 1 of both is one video and one bill; the warning names both rows and the label is the first's."""
    campaign = load(
        """
        - {id: first, prompt: a mug, count: 2}
        - {id: other, prompt: a cup}
        - {id: again, prompt: "a mug ", duration: 5}
        """
    )
    first, second, _, again = campaign.entries
    assert again.job is first.job
    assert again.job is not second.job
    assert (again.row_id, again.job.label) == ("again", "first")
    assert (len(campaign.entries), len(campaign.jobs), count_rows(campaign.entries)) == (4, 3, 3)
    [warning] = campaign.warnings
    assert (warning.row, warning.line) == (3, 4)
    assert "row 1" in warning.message


def test_an_axis_that_changes_nothing_is_a_warning(load: Load) -> None:
    """No template uses `mood`: the combinations are one video, bought once."""
    campaign = load("rows: [{prompt: a mug, matrix: {mood: [a, b, c]}}]")
    assert (len(campaign.entries), len(campaign.jobs)) == (3, 1)
    assert [(warning.column, warning.message[:30]) for warning in campaign.warnings] == [
        (None, "two combinations of this row a"),
        ("mood", "is a variable that no template"),
    ]


@pytest.mark.parametrize(
    ("text", "row", "column", "says"),
    [
        ("rows: [{prompt: a}]\nincldue: []", None, "incldue", "no such key"),
        ("rows: [{prompt: a}]\nrow: []", None, "row", "did you mean `rows`"),
        ("rows: [{prompt: a}]\ninclude: {a: b}", None, "include", "is a list of entries"),
        ("rows: [{prompt: a}]\ninclude: [{}]", None, "include", "names at least one value"),
        ("rows: [{prompt: a}]\ninclude: [{a: [b]}]", None, "a", "single value"),
        ("rows: [{prompt: a}]\ninclude: [{count: 2}]", None, "include", "cannot be in an entry"),
        ("rows: [{prompt: a}]\nexclude: [{mod: b}]\nmatrix: {mood: [b]}", None, "exclude", "did you mean `mood`"),
        ("rows: [{prompt: a}]\nmatrix: {include: [{a: b}]}", None, "include", "stands beside `matrix`"),
        ("rows: [{prompt: a}]\nzip: {a: [1, 2], b: [1]}", None, "zip", "same number of values: here a 2, b 1"),
        ("rows: [{prompt: a}]\nzip: {a: [1]}\nmatrix: {a: [1]}", None, "a", "is an axis twice"),
        ("rows: [{prompt: a, mood: x}]\nzip: {mood: [y, z]}", 1, "mood", "is an axis of the top-level `zip`"),
        ("rows: [{prompt: a}]\nrows_from: []", None, "rows_from", "names no file"),
        ("rows: [{prompt: a}]\nrows_from: 7", None, "rows_from", "is a path, a mapping"),
        ("rows: [{prompt: a}]\nrows_from: {where: x}", None, "rows_from", "has no `path`"),
        ("rows: [{prompt: a}]\nrows_from: {path: x.csv, wehre: x}", None, "rows_from", "did you mean `where`"),
        ("rows: [{prompt: a}]\nrows_from: x.docx", None, "rows_from", "is no table"),
        ("rows: [{prompt: a}]\norder: balancd", None, "order", "did you mean `balanced`"),
        ("rows: [{prompt: a}]\norder: {by: file, sed: 1}", None, "order", "is one of its words"),
        ("rows: [{prompt: a}]\norder: {by: file, seed: -1}", None, "order", "whole number from 0"),
        ("rows: [{prompt: a}]\ntags: []", None, "tags", "no such key"),
        ("rows: [{prompt: a, tags: [[a]]}]", 1, "tags", "is a list of words"),
        ("rows: [{prompt: a, tags: ['a, b']}]", 1, "tags", "is a list of words"),
        ("rows: [{prompt: a}]\nname: ../x", None, "name", "is no name"),
        ("rows: [{prompt: a}]\nname: [x]", None, "name", "must be a text"),
        ("rows: [{prompt: a}]\nname:", None, "name", "must be a text"),
        ("rows: [{prompt: a}]\nmodel: kling2", None, "model", "did you mean kling-2"),
        ("rows: [{prompt: a}]\ndefaults: [x]", None, "defaults", "must be a mapping"),
        ("rows: [{prompt: a}]\ndefaults: {id: x}", None, "id", "cannot be in `defaults`"),
        ("rows: [{prompt: a}]\nmatrix: [x]", None, "matrix", "must be a mapping"),
        ("rows: [{prompt: a}]\nmatrix: {mood: cozy}", None, "mood", "an axis is a list"),
        ("rows: [{prompt: a}]\nmatrix: {mood: []}", None, "mood", "an axis is a list"),
        ("rows: [{prompt: a}]\nmatrix: {mood: [[a]]}", None, "mood", "single value"),
        (
            "rows: [{prompt: a}]\nmatrix: {mood: [a, ]}\ndefaults: {count: 0}",
            None,
            "count",
            "from 1 to 10,000",
        ),
        ("rows: [{prompt: a}]\nmatrix: {mood: [a, a]}", None, "mood", "twice"),
        ("rows: [{prompt: a}]\nmatrix: {count: [1, 2]}", None, "count", "cannot be an axis"),
        ("rows: [{prompt: a}]\nmatrix: {id: [x]}", None, "id", "cannot be an axis"),
        ("rows: [{prompt: a}]\nmatrix: {duration: [5, 7]}", 1, "duration", "5 or 10"),
        ("rows: {prompt: a}", None, "rows", "must be a list"),
        ("rows: []", None, None, "asks for nothing"),
        ("name: x", None, None, "asks for nothing"),
        ("", None, None, "asks for nothing"),
        ("just text", None, None, "a manifest is a mapping"),
        ("- just text", 1, None, "is not a mapping"),
        ("- {duration: 5}", 1, "prompt", "is missing"),
        ("- {prompt: }", 1, "prompt", "has no value"),
        ("- {prompt: a, duration: }", 1, "duration", "has no value"),
        ("- {prompt: 5}", 1, "prompt", "put it in quotes"),
        ("- {prompt: [a]}", 1, "prompt", "single value"),
        ("- {prompt: a, mood: [b]}", 1, "mood", "single value"),
        ("- {prompt: a, count: 0}", 1, "count", "from 1 to 10,000"),
        ("- {prompt: a, count: 10001}", 1, "count", "from 1 to 10,000"),
        ("- {prompt: a, count: 1.5}", 1, "count", "whole number"),
        ("- {prompt: a, count: true}", 1, "count", "whole number"),
        ("- {prompt: a, priority: high}", 1, "priority", "whole number"),
        ("- {prompt: a, model: veo}", 1, "model", "one manifest has one model"),
        ("- {prompt: a, id: ../x}", 1, "id", "is no id"),
        ("- {prompt: a, id: .x}", 1, "id", "is no id"),
        ("- {prompt: a, id: ''}", 1, "id", "is no id"),
        ("- {prompt: a, id: 'a b'}", 1, "id", "is no id"),
        ("- {prompt: a, id: ä}", 1, "id", "is no id"),
        (f"- {{prompt: a, id: {'x' * 65}}}", 1, "id", "is no id"),
        ("- {prompt: a, id: x}\n- {prompt: b, id: X}", 2, "id", "row 1 already"),
        ("- {prompt: a, matrix: {prompt: [b]}}", 1, "prompt", "both a value and an axis"),
        ("- {prompt: a, 'a\tb': x}", 1, "a\tb", "is no name"),
        ("- {prompt: a, '': x}", 1, "", "is no name"),
        ("- {prompt: a, rows: x}", 1, "rows", "belongs to YAML manifests"),
        ("- {prompt: a, x: 'say {{ y }}'}", 1, "x", "only `prompt`, `negative_prompt`, `start_image` may be"),
    ],
)
def test_each_mistake_has_its_place_and_says_what_would_be_right(
    fail: Fail, text: str, row: int | None, column: str | None, says: str
) -> None:
    """A mistake anywhere means that nothing is sent, so each must be found without guessing."""
    found = fail(text)
    assert any((m.row, m.column) == (row, column) and says in m.message for m in found), found


def test_a_row_holds_an_axis_of_the_top_matrix_still(load: Load) -> None:
    """The nearest wins: a row that says its duration is not swept over durations, and the others are."""
    campaign = load(
        "matrix: {mood: [a, b], duration: [5, 10]}\n"
        'rows:\n  - {prompt: "{{ mood }} x", duration: 5}\n  - prompt: "{{ mood }} y"'
    )
    made = [(entry.row, entry.axes["mood"], entry.job.params["duration"]) for entry in campaign.entries]
    assert made == [(1, "a", 5), (1, "b", 5), (2, "a", 5), (2, "a", 10), (2, "b", 5), (2, "b", 10)]
    assert not campaign.warnings


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("asepct_ratio", "aspect_ratio"),
        ("promt", "prompt"),
        ("Prompt", "prompt"),
        ("negativ_prompt", "negative_prompt"),
        ("negative prompt", "negative_prompt"),
        ("durations", "duration"),
        ("duration_s", "duration"),
        ("cfg-scale", "cfg_scale"),
        ("startimage", "start_image"),
        ("counts", "count"),
        ("ID", "id"),
        ("prio", None),
        ("country", None),
        ("account", None),
        ("prompt_id", None),
        ("mood", None),
    ],
)
def test_a_name_that_is_nearly_a_parameter_is_a_mistake(load: Load, fail: Fail, name: str, meant: str | None) -> None:
    """It would silently be a variable, and the money spent on the wrong video; other names stay free."""
    for text in (
        f"- {{prompt: a, '{name}': x}}",
        f"defaults: {{'{name}': x}}\nrows: [{{prompt: a}}]",
        f"matrix: {{'{name}': [x]}}\nrows: [{{prompt: a}}]",
    ):
        if meant is None:
            assert load(text).entries[0].variables == {name: "x"}
        else:
            [mistake] = fail(text)
            assert mistake.column == name
            assert f"did you mean `{meant}`" in mistake.message


def test_a_near_miss_that_a_template_uses_is_a_variable(load: Load) -> None:
    """Who writes {{ durations }} means it."""
    assert load("- {prompt: 'for {{ durations }}', durations: days}").entries[0].job.params["prompt"] == "for days"


def test_ids_may_look_like_numbers(load: Load) -> None:
    """`id: 42` and `id: 007` are the texts that were written."""
    assert [e.row_id for e in load("- {prompt: a, id: 42}\n- {prompt: b, id: 007}").entries] == ["42", "007"]


def test_numbers_in_prompts_stay_as_written(load: Load) -> None:
    """$0.50 does not become $0.5, and truth values print as YAML writes them."""
    text = "- {prompt: '{{ price }} {{ sku }} {{ n + 1 }} {{ new }}', price: 0.50, sku: 007, n: 2, new: true}"
    assert load(text).entries[0].job.params["prompt"] == "0.50 007 3 true"


def test_a_huge_sweep_is_refused_before_it_is_made(fail: Fail) -> None:
    """A kilobyte of YAML can ask for more videos than a machine holds."""
    axes = "\n".join(f"  a{n}: [{', '.join(str(v) for v in range(10))}]" for n in range(400))
    [mistake] = fail(f"matrix:\n{axes}\nrows: [{{prompt: a}}]")
    assert "more than 2,000,000 videos" in mistake.message
    [mistake] = fail(
        "matrix: {a: [1, 2, 3]}\nrows: [{prompt: a, count: 10000, matrix: {b: ["
        + ",".join(map(str, range(99)))
        + "]}}]"
    )
    assert "more than 2,000,000 videos" in mistake.message


def test_syntax_mistakes_come_with_the_line(fail: Fail) -> None:
    """The YAML reader's problem becomes a mistake of the manifest."""
    [mistake] = fail("rows:\n  - prompt: a\n    prompt: b\n")
    assert mistake.line == 3
    assert "twice" in mistake.message
    assert str(mistake).count("manifest.yaml") == 1


def test_a_very_long_prompt_is_a_warning(load: Load) -> None:
    """Legal, and probably a table read wrongly: the sentence says how much the model is known to take in."""
    [warning] = load(f"rows: [{{prompt: {'a' * 2_500}}}, {{prompt: {'b' * 2_501}}}]").warnings
    assert (warning.row, warning.column) == (2, "prompt")
    assert "2,501 characters long" in warning.message


def test_a_variable_that_no_template_uses_is_a_warning_where_it_was_written(load: Load) -> None:
    """Probably a slip in YAML; in a table it is a column that was there before, and all may be used through `row`."""
    [warning] = load("rows:\n  - prompt: a {{ mood }} mug\n    mood: calm\n    moood: bold").warnings
    assert (warning.line, warning.column, "no template uses" in warning.message) == (4, "moood", True)
    assert not load("prompt,campaign\na mug,spring\n", "m.csv").warnings
    assert not load("rows: [{prompt: 'a {{ row[\"my mood\"] }} mug', my mood: calm}]").warnings


def test_who_writes_very_many_rows_in_yaml_is_told_of_tables(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """It works, and a table is read several times faster."""
    monkeypatch.setattr(sys.modules["pipeline.manifest.read_yaml"], "MANY_ROWS", 2)
    assert not load("rows: [{prompt: a}, {prompt: b}]").warnings
    [warning] = load("rows: [{prompt: a}, {prompt: b}, {prompt: c}]").warnings
    assert "3 rows in YAML" in warning.message
    assert "rows_from" in warning.message

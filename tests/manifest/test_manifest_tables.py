"""CSV, JSON lines and lists of prompts: one row a job."""

from __future__ import annotations

import json

import pytest
from conftest import Fail, Load


def test_a_csv_row_is_a_job_and_other_columns_are_variables(load: Load) -> None:
    """Numbers are read from the text; an empty cell is a value that is not given."""
    campaign = load(
        "id,prompt,duration,cfg_scale,count,priority,sku\nhero,a {{ sku }},10,0.5,2,7,007\n,b,,,,,\n", "m.csv"
    )
    first, second, other = campaign.entries
    assert dict(first.job.params) == {
        "prompt": "a 007", "negative_prompt": "", "cfg_scale": 0.5, "duration": 10, "aspect_ratio": "16:9",
    }  # fmt: skip
    assert (first.row_id, first.priority, second.job.replicate, first.variables) == (
        "hero",
        7,
        2,
        {"sku": "007"},
    )
    assert (other.row, other.row_id, other.job.params["duration"], other.variables) == (2, "b", 5, {})


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_as_every_spreadsheet_writes_it(load: Load, mark: str, delimiter: str, newline: str) -> None:
    """With or without a byte order mark, three delimiters, three line ends, quoted newlines and quotes."""
    lines = [
        "id,prompt,mood",
        'a,"one, two; three\tfour ""five""",x',
        'b,"line one\nline two",y',
        "",
        ",,",
        'c,"d",z',
    ]
    text = newline.join(line if "one" in line else line.replace(",", delimiter) for line in lines)
    text = text.replace("a,", f"a{delimiter}").replace("b,", f"b{delimiter}")
    text = text.replace('",x', f'"{delimiter}x').replace('",y', f'"{delimiter}y')
    entries = load(mark + text, "m.csv").entries
    assert [e.job.params["prompt"] for e in entries] == [
        'one, two; three\tfour "five"',
        "line one\nline two",
        "d",
    ]
    assert [(e.row, e.row_id, e.variables["mood"]) for e in entries] == [
        (1, "a", "x"),
        (2, "b", "y"),
        (3, "c", "z"),
    ]


def test_a_csv_mistake_names_row_and_physical_line(fail: Fail) -> None:
    """Quoted newlines and blank lines move the line away from the row's number."""
    found = fail('prompt,duration\n"a\nb\nc",5\n\nd,7\n', "m.csv")
    assert [(m.row, m.line, m.column) for m in found] == [(2, 6, "duration")]
    assert str(found[0]).endswith("m.csv:6: row 2, duration: '7' is not allowed; it is 5 or 10 (seconds)")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("prompt,prompt\na,b\n", 1, "two columns have this name"),
        ("prompt,mood\na, b, c\n", 2, "has 3 cells, but the header has 2"),
        ("prompt,mood\na\n", 2, "has 1 cell,"),
        ("prompt,\na,b\n", 2, "a column without a name"),
        ('prompt\n"a\n', 2, "is a quote not closed"),
        ('prompt\n"a"b\n', 2, "is a quote not closed"),
        ("promt,duration\na,5\n", 1, "is it the one named `promt`"),
        ("id,duration\na,5\n", 1, "no column `prompt`"),
        ("prompt,asepct_ratio\na,9:16\n", 2, "did you mean `aspect_ratio`"),
        ("prompt,matrix\na,x\n", 2, "belongs to YAML"),
        ("prompt\n", None, "asks for nothing"),
        ("", None, "asks for nothing"),
        ("\n\n\n", None, "asks for nothing"),
        ("prompt,aspect_ratio\na,09:16:00\n", 2, 'did you mean "9:16"'),
        ("prompt,mood\na,x\x07\n", 2, "control character"),
        ("prompt\na\x00b\n", 2, "control character"),
        ("prompt,id\na,x\nb,x\n", 3, "row 1 already"),
        ("prompt,mood\nA {mood} mug,cozy\n", 2, "write {{ mood }}"),
    ],
)
def test_csv_mistakes(fail: Fail, text: str, line: int | None, says: str) -> None:
    """Each is found with its line and one clear sentence."""
    found = fail(text, "m.csv")
    assert any(m.line == line and says in m.message for m in found), found


def test_an_empty_column_at_the_end_of_each_csv_line_is_ignored(load: Load) -> None:
    """Spreadsheets leave such columns behind."""
    assert load("prompt,,\na,,\n", "m.csv").entries[0].variables == {}


def test_a_jsonl_object_is_a_job(load: Load) -> None:
    """null is a value that is not given; blank lines and U+2028 inside a text are no line ends."""
    lines = [
        '{"id": 1, "prompt": "a\u2028b {{ price }}", "price": 0.50, "duration": null, "mood": null}',
        "",
        '{"prompt": "c", "new": true}',
    ]
    first, second = load("\r\n".join(lines), "m.jsonl").entries
    assert (first.row_id, first.job.params["prompt"], first.variables) == (
        "1",
        "a\u2028b 0.50",
        {"price": "0.50"},
    )
    assert (second.row, second.variables) == (2, {"new": True})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": "a"', "is not JSON"),
        ('{"prompt": "a', "is not JSON: Invalid control character at column 14"),
        ("[1]", "is not an object"),
        ("nonsense", "is not JSON"),
        ('{"prompt": "a", "prompt": "b"}', "given twice"),
        ('{"prompt": "a", "x": NaN}', "not a finite number"),
        ('{"prompt": "a", "x": -Infinity}', "not a finite number"),
        ('{"prompt": "a", "x": 1e400}', "not a finite number"),
        ('{"prompt": "a", "x": ' + "9" * 5000 + "}", "digits"),
        ('{"prompt": "a", "x": [1]}', "single values"),
        ('{"prompt": "a", "matrix": {"x": [1]}}', "single values"),
        ('{"prompt": ' + "[" * 100_000 + "}", "nested too deep"),
        ('{"prompt": "\\ud800"}', "U+D800"),
        ('{"prompt": "a", "x": "\\udc00"}', "control character"),
        ('{"prompt": "a", "duration": true}', "5 or 10"),
    ],
)
def test_jsonl_mistakes(fail: Fail, line: str, says: str) -> None:
    """Each is found with its row and line; the good line beside it does not hide it."""
    found = fail('{"prompt": "good"}\n\n' + line + "\n", "m.jsonl")
    assert any((m.row, m.line) == (2, 3) and says in m.message for m in found), found


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "  \n"])
def test_a_line_that_breaks_off_is_told_with_the_column_behind_its_last(fail: Fail, end: str) -> None:
    """Also where the line has an end, behind which another would begin."""
    [found] = fail('{"prompt":"a"' + end, "m.jsonl")
    assert found.message == "is not JSON: Expecting ',' delimiter at column 14"


def test_a_json_text_with_a_lone_surrogate_is_refused_before_it_reaches_an_id(fail: Fail) -> None:
    """It could not be written into the request."""
    assert fail(json.dumps({"prompt": "x \ud800"}), "m.jsonl")[0].column == "prompt"


def test_a_list_of_prompts_is_a_manifest(load: Load) -> None:
    """A prompt a line, whatever ends it; blank lines count for places only, and the ids are those of a CSV."""
    listed = load("a lamp\r\n\n  a mug, in “rain” \rone\u2028line\n", "m.txt").entries
    assert [(entry.row, entry.job.params["prompt"]) for entry in listed] == [
        (1, "a lamp"),
        (2, "a mug, in “rain”"),
        (3, "one\u2028line"),
    ]
    tabled = load('prompt\na lamp\n"a mug, in “rain”"\none\u2028line\n', "m.csv").entries
    assert [entry.job.job_id for entry in listed] == [entry.job.job_id for entry in tabled]


def test_the_mistakes_of_a_list_have_their_lines(fail: Fail) -> None:
    """A table under the wrong name is no list, and an undefined name stands in its line."""
    [found] = fail("id\tprompt\na\ta lamp\n", "m.txt")
    assert (found.line, found.message) == (1, "is a table, not a list of prompts; name the file .csv")
    [found] = fail("a lamp\n\na {{ mod }} mug\n", "m.txt")
    assert (found.row, found.line, found.column) == (2, 3, "prompt")
    assert "asks for nothing" in fail("\n \n", "m.txt")[0].message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize(("name", "text"), [
    ("m.csv", "id\tprompt\r\na\tein Löwe, “quer”\r\n"),
    ("m.txt", "ein Löwe, “quer”\r\n"),
    ("m.yaml", "- prompt: ein Löwe, “quer”\n"),
    ("m.jsonl", '{"prompt": "ein Löwe, “quer”"}\n'),
])  # fmt: skip
def test_text_as_excel_saves_it_in_utf_16(load: Load, encoding: str, name: str, text: str) -> None:
    """With its byte order mark, it is the same manifest."""
    data = text.encode(encoding)
    [entry] = load(data if encoding == "utf-16" else "\ufeff".encode(encoding) + data, name).entries
    assert entry.job.params["prompt"] == "ein Löwe, “quer”"


@pytest.mark.parametrize("header", ["prompt", "Prompts"])
def test_a_list_that_begins_with_a_header_is_refused(fail: Fail, header: str) -> None:
    """Or the word would be bought as a video."""
    [mistake] = fail(f"\n{header}\na mug\n", "m.txt")
    assert (mistake.line, mistake.message) == (2, "is a header, not a prompt; delete this line, or name the file .csv")


def test_a_list_has_no_comments(load: Load) -> None:
    """A line that looks like one is bought as every line is, with a warning."""
    campaign = load("# mugs\na mug, #1 of 3\n", "m.txt")
    assert len(campaign.entries) == 2
    assert [(warning.line, warning.row) for warning in campaign.warnings] == [(1, 1)]


def test_excels_line_that_says_the_delimiter_is_believed(load: Load, fail: Fail) -> None:
    """It is no header, and the lines after it keep their numbers."""
    text = "sep=;\nid;prompt;duration\na;one, two;10\nb;three, four;"
    assert [entry.job.params["prompt"] for entry in load(text, "m.csv").entries] == ["one, two", "three, four"]
    [mistake] = fail(text + "7", "m.csv")
    assert (mistake.line, mistake.row) == (4, 2)


@pytest.mark.parametrize("name", ["m.csv", "m.txt", "m.jsonl"])
def test_utf_16_without_its_mark_is_told_as_that(fail: Fail, name: str) -> None:
    """Not as a header without a prompt, nor as a control character."""
    for encoding in ("utf-16-le", "utf-16-be"):
        [mistake] = fail("prompt\na mug\n".encode(encoding), name)
        assert mistake.message.endswith("UTF-16 without its mark; save it as UTF-8")


def test_commas_in_a_file_of_one_column_are_explained(fail: Fail) -> None:
    """A list of prompts is what the user has, and .txt is its format."""
    [mistake] = fail("prompt\na mug\na lamp, brass\n", "m.csv")
    assert mistake.message == (
        "has 2 cells, but the header has 1 column; put a value that has the delimiter in it in quotes; "
        "if this file is a list of prompts, give it the ending .txt"
    )


@pytest.mark.parametrize("name", ["m.jsonl", "m.yaml"])
def test_what_is_no_row_misses_no_prompt(fail: Fail, name: str) -> None:
    """One sentence for one mistake."""
    text = '{"prompt": "a"}\n5\n' if name == "m.jsonl" else "- prompt: a\n- 5\n"
    [mistake] = fail(text, name)
    assert (mistake.line, mistake.row) == (2, 2)


def test_a_json_array_is_no_json_lines(fail: Fail) -> None:
    """One sentence for the whole file."""
    [mistake] = fail('[\n{"prompt": "a"},\n{"prompt": "b"}\n]\n', "m.jsonl")
    assert mistake.message == "is a JSON array, not JSON lines; write each object on a line of its own"


def test_tags_are_a_list_in_json_too(load: Load, fail: Fail) -> None:
    """As in YAML; of texts alone."""
    assert load('{"prompt": "a", "tags": ["hero", "spring"]}', "m.jsonl").entries[0].tags == ("hero", "spring")
    [mistake] = fail('{"prompt": "a", "tags": ["hero", 5]}', "m.jsonl")
    assert mistake.column == "tags"

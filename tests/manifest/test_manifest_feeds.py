"""Rows from other files: a product feed becomes a campaign without being touched."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from conftest import Fail, Load

COLUMNS = """
Handle|Title|Body (HTML)|Vendor|Product Category|Type|Tags|Published|Option1 Name|Option1 Value|Option2 Name|
Option2 Value|Option3 Name|Option3 Value|Variant SKU|Variant Grams|Variant Inventory Tracker|Variant Inventory Qty|
Variant Inventory Policy|Variant Fulfillment Service|Variant Price|Variant Compare At Price|Variant Requires Shipping|
Variant Taxable|Variant Barcode|Image Src|Image Position|Image Alt Text|Gift Card|SEO Title|SEO Description|
Google Shopping / Category|Google Shopping / Gender|Google Shopping / Age Group|Google Shopping / MPN|
Google Shopping / Condition|Google Shopping / Custom Product|Variant Image|Variant Weight Unit|Variant Tax Code|
Cost per item|Included / International|Price / International|Compare At Price / International|Status
""".replace("\n", "").split("|")

CAMPAIGN = """
name: feed
matrix: {mood: [calm, bold]}
rows_from:
  path: products.csv
  where: row["Title"] and row["Status"] == "active" and row["Variant Price"]|float(0) > 10
  each:
    id: '{{ row["Handle"] }}'
    prompt: '{{ mood|title }} film shot of {{ row["Title"] }}: {{ row["Body (HTML)"]|striptags|truncate(32) }}'
    start_image: '{{ row["Image Src"] }}'
    duration: '{{ 10 if row["Variant Price"]|float(0) > 100 else 5 }}'
    price: '{{ row["Variant Price"] }}'
    tags: '{{ row["Tags"] }}'
rows:
  - prompt: "A closing shot, {{ mood }}"
"""


def product(handle: str, title: str, price: str, **other: str) -> dict[str, str]:
    body = "<p>Thrown by hand,<br/>fired <b>twice</b> &amp; glazed.</p>\n<ul><li>350 ml</li></ul>" if title else ""
    return {
        "Handle": handle,
        "Title": title,
        "Body (HTML)": body,
        "Variant Price": price,
        "Tags": "kitchen, clay" if title else "",
        "Image Src": f"https://cdn.example.com/{handle}.jpg?v=1",
        "Status": "active",
        **other,
    }


PRODUCTS = [
    product("mug", "Cobalt mug, large", "24.00"),
    product("mug", "", "24.00"),  # a variant: a line of the same product without a title
    product("lamp", 'Lamp "Nora"', "180.00"),
    product("old", "Old vase", "30.00", Status="archived"),
    product("pin", "Pin", "4.50"),
]


def write_feed(path: Path, delimiter: str = ",") -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", delimiter=delimiter)
    writer.writeheader()
    writer.writerows(PRODUCTS)
    path.write_text(text.getvalue(), encoding="utf-8-sig", newline="")


def test_a_product_feed_becomes_a_campaign_untouched(load: Load, tmp_path: Path) -> None:
    """45 columns with spaces, HTML with line breaks in cells, variant lines without a title, image URLs."""
    assert len(COLUMNS) == 45
    write_feed(tmp_path / "products.csv")
    campaign = load(CAMPAIGN)
    assert [(entry.row_id, entry.axes["mood"], entry.job.params["duration"]) for entry in campaign.entries[:4]] == [
        ("mug", "calm", 5),
        ("mug", "bold", 5),
        ("lamp", "calm", 10),
        ("lamp", "bold", 10),
    ]
    first = campaign.entries[0]
    assert first.job.params["prompt"] == "Calm film shot of Cobalt mug, large: Thrown by hand, fired twice..."
    assert first.job.params["start_image"] == "https://cdn.example.com/mug.jpg?v=1"
    assert first.variables == {"mood": "calm", "price": "24.00", "tags": "kitchen, clay"}
    assert first.tags == ("kitchen", "clay")
    assert [entry.job.params["prompt"] for entry in campaign.entries[4:]] == [
        "A closing shot, calm",
        "A closing shot, bold",
    ]
    assert [entry.row for entry in campaign.entries] == [1, 1, 2, 2, 3, 3]
    assert not campaign.warnings


@pytest.mark.parametrize("delimiter", [";", "\t", "|", "^"])
def test_a_feed_may_have_any_delimiter(load: Load, tmp_path: Path, delimiter: str) -> None:
    """It is found by trying, also where no column is named `prompt`."""
    write_feed(tmp_path / "products.csv", delimiter)
    assert len(load(CAMPAIGN).entries) == 6


def test_a_mistake_in_a_feed_names_the_feeds_line(fail: Fail, tmp_path: Path) -> None:
    """The file, the physical line (cells have line breaks) and the row in it; the manifest's own mistakes beside."""
    write_feed(tmp_path / "products.csv")
    found = fail(CAMPAIGN.replace("active", "archived").replace("10 if", "7 if").replace("else 5", "else 7"))
    assert [(Path(mistake.file).name, mistake.line, mistake.row, mistake.column) for mistake in found] == [
        ("products.csv", 7, 4, "duration")
    ]


@pytest.mark.parametrize(
    ("old", "new", "place", "says"),
    [
        ('row["Title"] and', 'row["Titel"] and', "where", "no column 'Titel'; did you mean 'Title'?"),
        ('row["Title"] and', "row.Title and", "where", 'write row["Title"]'),
        ('row["Title"] and', "Titel and", "where", "`Titel` is not defined here; did you mean `Title`?"),
        ('row["Title"] and', "true %} {{ 1 }} {% if ", "where", "is one condition"),
        ('row["Title"] and', "(", "where", "cannot be rendered"),
        ('row["Handle"]', 'row["Handel"]', "id", "no column 'Handel'; did you mean 'Handle'?"),
        ('row["Body (HTML)"]', 'row["Body"]', "prompt", "no column 'Body'"),
        ("mood|title", "mod|title", "prompt", "`mod` is not defined here; did you mean `mood`?"),
        ("|float(0) > 10\n", " > 10\n", "where", "compares a text with a number"),
        ("10 if row", 'row["Vendor"]|float if row', "duration", "'' is no number; `|float(0)`"),
        ("products.csv", "products.xlsx", "rows_from", "is no table"),
        ('"active"', '"sold"', "rows_from", "no record for which `where` is true"),
    ],
)
def test_mistakes_of_feeds(fail: Fail, tmp_path: Path, old: str, new: str, place: str, says: str) -> None:
    """Each names the place to correct it, and what would be right."""
    write_feed(tmp_path / "products.csv")
    assert old in CAMPAIGN
    found = fail(CAMPAIGN.replace(old, new))
    assert any(mistake.column == place and says in mistake.message for mistake in found), found


def test_a_feed_whose_columns_are_the_rows_is_a_path(load: Load, tmp_path: Path) -> None:
    """Several files in several formats, multiplied by the manifest's sweep; `row` reaches names with spaces."""
    (tmp_path / "a.csv").write_text("product,On Sale\nmug,yes\nlamp,\n")
    (tmp_path / "b.jsonl").write_text('{"product": "vase", "On Sale": null}\n')
    (tmp_path / "c.yaml").write_text("- {product: bowl, On Sale: no}\n")
    campaign = load(
        """
        matrix: {mood: [calm, bold]}
        defaults: {prompt: '{{ mood }} {{ product }}{% if row["On Sale"] == "yes" %}, on sale{% endif %}'}
        rows_from: [a.csv, b.jsonl, c.yaml]
        """
    )
    assert [entry.job.params["prompt"] for entry in campaign.entries[::2]] == [
        "calm mug, on sale",
        "calm lamp",
        "calm vase",
        "calm bowl",
    ]


def test_a_file_in_rows_from_has_rows_alone(fail: Fail, tmp_path: Path) -> None:
    """Its own defaults or sweep would be lost, and that is a mistake."""
    (tmp_path / "c.yaml").write_text("defaults: {duration: 10}\nrows: [{prompt: a}]\n")
    [mistake] = fail("rows_from: [c.yaml]")
    assert "rows alone" in mistake.message


def test_ids_are_unique_over_all_files(fail: Fail, tmp_path: Path) -> None:
    """And the sentence names the other one's file."""
    (tmp_path / "a.csv").write_text("id,prompt\nhero,a mug\n")
    (tmp_path / "b.csv").write_text("id,prompt\nHero,a lamp\n")
    [mistake] = fail("rows_from: [a.csv, b.csv]")
    assert Path(mistake.file).name == "b.csv"
    assert f"is the id of row 1 of {tmp_path / 'a.csv'} already" in mistake.message


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One<br>two</p>", "One two"),
        ("a &lt; b &amp; c", "a < b & c"),
        ('<b>one</b>, <a href="x">two</a>.<BR/>three', "one, two. three"),
        ("<" * 500_000, "<" * 500_000),
        ("<p" * 200_000, "<p" * 200_000),
    ],
    ids=["tags", "entities", "inline", "open", "opened"],
)
def test_html_becomes_its_text(html: str, text: str) -> None:
    """In a time that grows with its length only."""
    from pipeline.manifest.template_language import _strip_tags

    assert _strip_tags(html) == text


def test_a_file_that_is_not_there_is_told_where_it_is_named(fail: Fail, tmp_path: Path) -> None:
    """At the manifest's line, together with all other mistakes; of a URL it says that it is one."""
    (tmp_path / "a.csv").write_text("prompt,duration\na mug,7\n")
    found = fail("rows_from:\n  - missing.csv\n  - https://example.com/b.csv\n  - a.csv\n")
    assert [(Path(mistake.file).name, mistake.line, mistake.message[:40]) for mistake in found] == [
        ("manifest.yaml", 2, "'missing.csv' is not there; a path count"),
        ("manifest.yaml", 3, "'https://example.com/b.csv' is a URL; do"),
        ("a.csv", 2, "'7' is not allowed; it is 5 or 10 (secon"),
    ]


def test_what_each_says_itself_is_corrected_in_the_manifest(fail: Fail, load: Load, tmp_path: Path) -> None:
    """The place is the manifest's line, and the record is named beside; a record's own value has the record's place."""
    (tmp_path / "a.csv").write_text("Title,Length\nmug,7\n")
    manifest = """
        rows_from:
          path: a.csv
          each:
            prompt: "{{ Title }} {{ mod }}"
            mood: "{{ Title|lower }}"
            duration: '{{ row["Length"] }}'
            count: 0
            cfg_scale: 2
            durration: "{{ Length }}"
            matrix: {light: [x, y]}
            exclude: [{ligth: x}]
    """
    found = fail(manifest)
    assert [(Path(mistake.file).name, mistake.line, mistake.row, mistake.column) for mistake in found] == [
        ("manifest.yaml", 5, None, "prompt"),
        ("manifest.yaml", 8, None, "count"),
        ("manifest.yaml", 10, None, "durration"),
        ("manifest.yaml", 12, None, "exclude"),
    ]
    assert found[0].message == f"`mod` is not defined here; did you mean `mood`? (row 1 of {tmp_path / 'a.csv'})"
    found = fail(manifest.replace("mod }}", "light }}").replace("ligth", "light").replace("durration", "other"))
    assert [(Path(mistake.file).name, mistake.line, mistake.column) for mistake in found] == [
        ("manifest.yaml", 8, "count"),
        ("manifest.yaml", 9, "cfg_scale"),
        ("a.csv", 2, "duration"),
    ]
    [warning] = load(
        """
        rows_from:
          path: a.csv
          each:
            prompt: "{{ Title }} {{ light }}"
            matrix: {light: [x, y]}
            exclude: [{light: z}]
        """
    ).warnings
    assert (Path(warning.file).name, warning.line, warning.row) == ("manifest.yaml", 7, None)


def test_an_empty_value_is_told_as_one(fail: Fail, tmp_path: Path) -> None:
    """A name that the row has and gives no value is not called unknown, in a table and in `each`."""
    [mistake] = fail('prompt,mood\n"a {{ mood }} mug",\n', "m.csv")
    assert mistake.message.startswith("`mood` has no value in this row; give one here or in `defaults`")
    (tmp_path / "a.csv").write_text("Price,Title\n,mug\n")
    [mistake] = fail("rows_from: {path: a.csv, each: {prompt: '{{ price }} {{ Title }}', price: '{{ Price }}'}}")
    assert mistake.message.startswith("`price` has no value in this row")


def test_a_condition_in_double_braces_is_told_to_be_without(fail: Fail, tmp_path: Path) -> None:
    """`where` is a condition, not a template."""
    (tmp_path / "a.csv").write_text("prompt\nmug\n")
    [mistake] = fail("rows_from: {path: a.csv, where: '{{ row[\"prompt\"] }}'}")
    assert "without {% %} and {{ }}" in mistake.message


def test_each_is_a_mapping(fail: Fail, tmp_path: Path) -> None:
    """And what is none is told as `each`, not as a row."""
    (tmp_path / "a.csv").write_text("prompt\nmug\n")
    [mistake] = fail("rows_from:\n  path: a.csv\n  each: [prompt]\n")
    assert (mistake.line, mistake.column, mistake.message) == (3, "each", "is not a mapping; write `each: {prompt: …}`")


def test_a_template_in_a_record_is_not_sent_as_it_is(fail: Fail, load: Load, tmp_path: Path) -> None:
    """A feed's text is never rendered, since others wrote it; a video of its braces is not bought either."""
    (tmp_path / "a.csv").write_text("prompt,mood\na {{ mood }} mug,calm\n")
    [mistake] = fail("rows_from: {path: a.csv, each: {prompt: '{{ row[\"prompt\"] }}', negative_prompt: text}}")
    assert "what a record brings is not rendered" in mistake.message
    [entry] = load("rows_from: a.csv").entries
    assert entry.job.params["prompt"] == "a calm mug"

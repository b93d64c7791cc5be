"""The sweep: the documented cases of a GitHub Actions matrix, axes that are walked together, and rows among them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Fail, Load

from pipeline.manifest.sweep import Sweep, combinations

FRUIT = Sweep({"fruit": ("apple", "pear"), "animal": ("cat", "dog")})


def made(sweep: Sweep) -> list[dict[str, Any]]:
    return [dict(each) for each in combinations(sweep)]


def test_every_combination_the_last_axis_fastest() -> None:
    """Two axes of three and two values make six combinations."""
    found = made(Sweep({"version": (10, 12, 14), "os": ("linux", "windows")}))
    assert [tuple(each.values()) for each in found] == [
        (10, "linux"),
        (10, "windows"),
        (12, "linux"),
        (12, "windows"),
        (14, "linux"),
        (14, "windows"),
    ]


def test_include_extends_what_it_does_not_contradict_and_adds_the_rest() -> None:
    """The documentation's example of fruit and animals, entry by entry."""
    include = (
        {"color": "green"},
        {"color": "pink", "animal": "cat"},
        {"fruit": "apple", "shape": "circle"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    )
    assert made(Sweep(FRUIT.axes, include=include)) == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]


def test_include_expands_one_combination() -> None:
    """Only the combination of both values gets the third."""
    sweep = Sweep({"os": ("windows", "ubuntu"), "node": (14, 16)}, include=({"os": "windows", "node": 16, "npm": 6},))
    assert [each for each in made(sweep) if "npm" in each] == [{"os": "windows", "node": 16, "npm": 6}]
    assert len(made(sweep)) == 4


def test_include_adds_a_combination() -> None:
    """Nine combinations, and one with a value that no axis has."""
    axes = {"os": ("macos", "windows", "ubuntu"), "version": (12, 14, 16)}
    found = made(Sweep(axes, include=({"os": "windows", "version": 17},)))
    assert (len(found), found[-1]) == (10, {"os": "windows", "version": 17})


def test_include_alone_is_a_list_of_combinations() -> None:
    """Without an axis each entry stands for itself."""
    include = ({"site": "production", "datacenter": "site-a"}, {"site": "staging", "datacenter": "site-b"})
    assert made(Sweep(include=include)) == list(include)


def test_exclude_needs_only_some_of_the_values() -> None:
    """Twelve combinations, of which one and two are taken away."""
    axes = {"os": ("macos", "windows"), "version": (12, 14, 16), "environment": ("staging", "production")}
    exclude = ({"os": "macos", "version": 12, "environment": "production"}, {"os": "windows", "version": 16})
    found = made(Sweep(axes, exclude=exclude))
    assert len(found) == 9
    assert {"os": "windows", "version": 16, "environment": "staging"} not in found


def test_include_comes_after_exclude() -> None:
    """What was taken away can be put back, with something added."""
    sweep = Sweep(
        FRUIT.axes, exclude=({"fruit": "pear"},), include=({"fruit": "pear", "animal": "dog", "color": "red"},)
    )
    assert made(sweep)[-1] == {"fruit": "pear", "animal": "dog", "color": "red"}
    assert len(made(sweep)) == 3


def test_zip_walks_axes_together() -> None:
    """The first with the first, the second with the second; beside other axes they are one axis."""
    sweep = Sweep({"mood": ("calm", "bold")}, ({"product": ("mug", "lamp"), "image": ("m.jpg", "l.jpg")},))
    assert [(each["mood"], each["product"], each["image"]) for each in made(sweep)] == [
        ("calm", "mug", "m.jpg"),
        ("calm", "lamp", "l.jpg"),
        ("bold", "mug", "m.jpg"),
        ("bold", "lamp", "l.jpg"),
    ]


def test_the_sweep_of_the_manifest_and_that_of_a_row_are_multiplied(load: Load) -> None:
    """An excluded pair, an included one, and a row that multiplies what is left by its own moods."""
    campaign = load(
        """
        matrix: {product: [mug, lamp], aspect_ratio: ["16:9", "9:16"]}
        exclude: [{product: lamp, aspect_ratio: "9:16"}]
        include: [{product: lamp, aspect_ratio: "1:1"}]
        rows:
          - id: hero
            prompt: "A {{ mood }} film shot of a {{ product }}"
            matrix: {mood: [cozy, bold]}
            count: 2
          - id: plain
            prompt: "A {{ product }}"
            include: [{product: mug, duration: 10}]
        """
    )
    hero = [entry for entry in campaign.entries if entry.row_id == "hero" and entry.job.replicate == 1]
    assert [(e.axes["product"], e.axes["aspect_ratio"], e.axes["mood"]) for e in hero] == [
        ("mug", "16:9", "cozy"),
        ("mug", "16:9", "bold"),
        ("mug", "9:16", "cozy"),
        ("mug", "9:16", "bold"),
        ("lamp", "16:9", "cozy"),
        ("lamp", "16:9", "bold"),
        ("lamp", "1:1", "cozy"),
        ("lamp", "1:1", "bold"),
    ]
    plain = [entry.job.params["duration"] for entry in campaign.entries if entry.row_id == "plain"]
    assert plain == [10, 10, 5, 5]
    assert len(campaign.entries) == 20
    assert not campaign.warnings


def test_a_rows_own_value_is_nearer_than_what_an_entry_adds(load: Load) -> None:
    """The top `include` makes mugs red; the row that says blue stays blue, also in the table of axes."""
    campaign = load(
        """
        matrix: {product: [mug, lamp]}
        include: [{product: mug, color: red}]
        defaults: {color: grey}
        rows: [{prompt: "{{ product }} {{ color }}"}, {prompt: "{{ product }} {{ color }} again", color: blue}]
        """
    )
    assert [entry.job.params["prompt"] for entry in campaign.entries] == [
        "mug red",
        "lamp grey",
        "mug blue again",
        "lamp blue again",
    ]
    assert "color" not in campaign.entries[2].axes


def test_an_entry_that_takes_nothing_away_is_a_warning(load: Load) -> None:
    """A misspelt value would leave in what was to be left out; a row of which nothing is left is told, too."""
    campaign = load(
        """
        matrix: {product: [mug, lamp]}
        exclude: [{product: lmap}]
        rows:
          - prompt: "{{ product }}"
          - prompt: "{{ product }} again"
            exclude: [{product: mug}, {product: lamp}]
        """
    )
    assert [(warning.line, warning.column, warning.message[:33]) for warning in campaign.warnings] == [
        (3, "exclude", "this entry takes nothing away"),
        (6, None, "every combination is excluded: th"),
    ]
    assert len(campaign.entries) == 2


def test_tags_add_up_and_come_into_the_results(load: Load) -> None:
    """Those of `defaults` and those of the row, in YAML as a list or a text, elsewhere as a text."""
    campaign = load("defaults: {tags: spring}\nrows: [{prompt: a, tags: [hero, spring]}, {prompt: b}]")
    assert [entry.tags for entry in campaign.entries] == [("spring", "hero"), ("spring",)]
    assert campaign.entries[0].variables == {"tags": "spring, hero"}
    assert load('prompt,tags\na,"hero, spring"\n', "m.csv").entries[0].tags == ("hero", "spring")
    assert load(json.dumps({"prompt": "a", "tags": "hero"}), "m.jsonl").entries[0].tags == ("hero",)


@pytest.mark.parametrize(
    ("text", "order", "seed"),
    [("order: file", "file", 0), ("order: {by: balanced, seed: 7}", "balanced", 7), ("name: x", "balanced", 0)],
)
def test_the_order_is_one_of_three(load: Load, text: str, order: str, seed: int) -> None:
    """Over the variants evenly unless the manifest says otherwise."""
    campaign = load(f"{text}\nrows: [{{prompt: a}}]")
    assert (campaign.order, campaign.seed) == (order, seed)


def test_many_entries_times_many_combinations_end_at_once(fail: Fail) -> None:
    """A file of a few kilobytes must not keep a machine busy for an hour."""
    axes = ", ".join(f"a{n}: [1, 2, 3, 4, 5, 6, 7, 8]" for n in range(6))
    entries = ", ".join("{a0: 9}" for _ in range(200))
    [mistake] = fail(f"matrix: {{{axes}}}\nexclude: [{entries}]\nrows: [{{prompt: a}}]")
    assert "too many combinations" in mistake.message


def test_a_rows_include_overwrites_what_the_top_include_brought(load: Load) -> None:
    """It is a value and no axis, so the row's entry fits the same combinations and asks for no video of its own."""
    campaign = load(
        """
        matrix: {mood: [cozy, bold]}
        include: [{mood: bold, light: neon}]
        rows:
          - prompt: "{{ mood }} {{ light|default('soft') }}"
            include: [{mood: bold, light: candle}]
        """
    )
    assert [entry.job.params["prompt"] for entry in campaign.entries] == ["cozy soft", "bold candle"]


def test_a_rows_zip_takes_the_place_of_a_top_axis(load: Load) -> None:
    """As the row's own `matrix` does, and what the top excludes and includes holds for its values."""
    campaign = load(
        """
        matrix: {product: [mug, lamp], mood: [cozy, bold]}
        exclude: [{product: bowl, mood: bold}]
        include: [{product: vase, light: neon, place: ignored}]
        rows:
          - prompt: "{{ mood }} {{ product }} {{ place }} {{ light|default('-') }}"
            zip: {product: [bowl, vase], place: [here, there]}
          - prompt: "{{ mood }} {{ product }} {{ light|default('-') }}"
            mood: cozy
        """
    )
    assert [entry.job.params["prompt"] for entry in campaign.entries] == [
        "cozy bowl here -",
        "cozy vase there neon",
        "bold vase there neon",
        "cozy mug -",
        "cozy lamp -",
        "cozy vase neon",
    ]
    assert not campaign.warnings

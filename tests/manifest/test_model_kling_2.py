"""kling-2's parameters: one normal form, every mistake explained, nothing sent that was not asked for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.jobs import canonical_json
from pipeline.models import DEFAULT_MODEL, MODELS, find_model

MODEL = find_model("kling-2")
NORMAL = {"prompt": "a mug", "negative_prompt": "", "cfg_scale": 0.5, "duration": 5, "aspect_ratio": "16:9"}


def normal(**given_values: object) -> dict[str, object]:
    params, problems = MODEL.normalise({"prompt": "a mug", **given_values})
    assert not problems
    return params


def problem(**given_values: object) -> str:
    params, problems = MODEL.normalise({"prompt": "a mug", **given_values})
    assert len(problems) == 1, (params, problems)
    name, message = problems[0]
    assert name in given_values
    return message


def test_a_prompt_alone_gets_the_documented_defaults_and_no_start_image() -> None:
    """What is not given and has no default is not sent; the playground's samples are not known at all."""
    assert normal() == NORMAL


@pytest.mark.parametrize(
    "given_values",
    [
        {"duration": 5},
        {"duration": "5"},
        {"duration": 5.0},
        {"duration": " 5.0 "},
        {"cfg_scale": 0.5},
        {"cfg_scale": "0.50"},
        {"cfg_scale": ".5"},
        {"cfg_scale": "5e-1"},
        {"aspect_ratio": " 16:9 "},
        {"negative_prompt": ""},
        {"negative_prompt": " \n"},
        {"prompt": "  a mug\n"},
        {"prompt": "a mug\r\n"},
    ],
)
def test_one_meaning_has_one_normal_form(given_values: dict[str, object]) -> None:
    """However a value is written, the bytes that the id is made of are the same."""
    assert canonical_json(normal(**given_values)) == canonical_json(NORMAL)


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", True and 1])
def test_whole_and_broken_ones_are_one_cfg_scale(value: object) -> None:
    """1 and 1.0 are one number: a float, in the bytes too."""
    assert canonical_json(normal(cfg_scale=value)["cfg_scale"]) == b"1.0"


@pytest.mark.parametrize("value", [0, 0.0, -0.0, "-0.0", "0"])
def test_there_is_one_zero(value: object) -> None:
    """-0.0 equals 0.0, so it must not have another id."""
    assert canonical_json(normal(cfg_scale=value)["cfg_scale"]) == b"0.0"


@pytest.mark.parametrize(
    "value",
    [
        -0.01,
        1.01,
        "2",
        float("nan"),
        float("inf"),
        "nan",
        "1e400",
        "",
        "half",
        True,
        None,
        [0.5],
        10**400,
        "0,5",
    ],
)
def test_cfg_scale_is_a_finite_number_from_0_to_1(value: object) -> None:
    """Everything else is refused with the bounds."""
    assert "0 to 1" in problem(cfg_scale=value)


@pytest.mark.parametrize(
    "value",
    [0, 6, 7.5, "5s", "five", True, None, [], -5, "", float("nan"), float("inf"), 10**400, "5" * 5000, "٥"],
)
def test_duration_is_5_or_10(value: object) -> None:
    """A truth value is no duration, and nothing is rounded: the price hangs on it."""
    assert "5 or 10" in problem(duration=value)


@pytest.mark.parametrize(
    ("value", "meant"), [(969, "16:9"), (556, "9:16"), (61, "1:1"), ("16x9", "16:9"), ("09:16:00", "9:16")]
)
def test_a_mangled_aspect_ratio_is_refused_with_what_was_meant(value: object, meant: str) -> None:
    """Readers of YAML 1.1 make 969 of 16:9, spreadsheets make a time of it."""
    assert f'did you mean "{meant}"' in problem(aspect_ratio=value)


@pytest.mark.parametrize(
    ("value", "cure"),
    [
        (969, '"16:9"? Put it in quotes'),
        ("16:09", "a spreadsheet made a time of it, format its column as text"),
        ("09:16:00", "a spreadsheet made a time of it, format its column as text"),
        ("16x9", '"16:9"?'),
    ],
)
def test_the_cure_of_a_ratio_is_that_of_what_mangled_it(value: object, cure: str) -> None:
    """Quotes help in YAML; in a table they change nothing of a time."""
    told = problem(aspect_ratio=value)
    assert cure in told
    assert ("quotes" in told) == isinstance(value, int)


def test_a_number_with_a_comma_is_told_with_its_point() -> None:
    """As spreadsheets of half the world write it."""
    assert problem(cfg_scale="0,5") == "'0,5' is not a number from 0 to 1; write 0.5, with a point"
    assert "point" not in problem(cfg_scale="0,5,0")


@pytest.mark.parametrize("value", ["4:3", "", None, True, 1.5, "16:9:9", ["16:9"], 12])
def test_other_aspect_ratios_are_refused(value: object) -> None:
    """The sentence names the three that there are."""
    assert '"16:9", "9:16" or "1:1"' in problem(aspect_ratio=value)


@pytest.mark.parametrize(
    "value", ["", "  \n\t ", None, 5, True, "a\x00b", "a\x1bb", "a\rb", "x" * 10_001, "\ud800", "a\x85b"]
)
def test_a_prompt_is_text_that_can_be_sent(value: object) -> None:
    """Empty, not text, with control characters, absurdly long or not Unicode: refused."""
    assert problem(prompt=value)


def test_a_prompt_is_required() -> None:
    """There is no prompt that a batch may use unasked."""
    _, problems = MODEL.normalise({})
    assert [name for name, _ in problems] == ["prompt"]


def test_newlines_and_tabs_inside_a_prompt_stay() -> None:
    """Only the ends are stripped."""
    assert normal(prompt=" a\n\tb ")["prompt"] == "a\n\tb"


def test_windows_line_ends_are_the_same_text() -> None:
    """A table saved on another machine does not buy everything again."""
    assert normal(prompt="a\r\nb") == normal(prompt="a\nb")


def test_an_https_start_image_is_sent_as_given() -> None:
    """And then the image decides the frame."""
    params = normal(start_image=" https://example.com/a.png?x=1 ")
    assert params["start_image"] == "https://example.com/a.png?x=1"
    assert MODEL.frame_size(params) is None


@pytest.mark.parametrize(
    "value",
    [
        "http://example.com/a.png",
        "file:///etc/passwd",
        "data:image/png;base64,xx",
        "ftp://a/b",
        "https://",
        "",
        "https://[bad",
        "https://user:pw@example.com/a",
        "https://example.com/a b",
        "https://exämple.com/a",
        None,
        5,
        "https://example.com/" + "a" * 2048,
        "https://exa\nmple.com/",
    ],
)
def test_a_start_image_is_an_https_url(value: object) -> None:
    """Nothing else is sent to the provider, and no password in a URL ends up in the ledger."""
    assert "URL" in problem(start_image=value)


def test_a_local_start_image_is_the_hash_of_its_bytes() -> None:
    """In normal form no path is left; what only resembles a hash is no image."""
    hashed = "sha256:" + "0af9" * 16
    assert normal(start_image=f" {hashed} ")["start_image"] == hashed
    for value in ("a.png", "/etc/passwd", hashed[:-1], hashed + "0", hashed.upper(), f"{hashed}/../x"):
        assert "URL" in problem(start_image=value)


def test_unknown_parameters_are_problems() -> None:
    """There is no seed: a row that gives one must not believe in it."""
    assert "no parameter" in problem(seed=7)


def test_all_problems_are_told_at_once() -> None:
    """Three wrong values, three problems."""
    _, problems = MODEL.normalise({"prompt": "", "duration": 7, "cfg_scale": 2})
    assert [name for name, _ in problems] == ["prompt", "duration", "cfg_scale"]


def test_price_duration_and_frame_follow_the_parameters() -> None:
    """$1.75 for 5 s and $3.50 for 10 s, at 720p."""
    assert MODEL.price_key(normal()) == "5"
    assert MODEL.price_key(normal(duration="10")) == "10"
    assert dict(MODEL.default_prices) == {"5": 1_750_000, "10": 3_500_000}
    assert MODEL.duration_s(normal(duration=10)) == 10.0
    sizes = [MODEL.frame_size(normal(aspect_ratio=ratio)) for ratio in ("16:9", "9:16", "1:1")]
    assert sizes == [(1280, 720), (720, 1280), (720, 720)]


def test_every_normal_duration_has_a_price() -> None:
    """An unpriced job could not be held against the cap."""
    assert {MODEL.price_key(normal(duration=duration)) for duration in (5, 10)} == set(MODEL.default_prices)


def test_an_unknown_model_is_refused_with_the_nearest_one() -> None:
    """`kling2` is told about `kling-2`."""
    with pytest.raises(ValueError, match="did you mean kling-2"):
        find_model("kling2")
    with pytest.raises(ValueError, match="known: kling-2"):
        find_model("veo")
    assert find_model(DEFAULT_MODEL) is MODELS["kling-2"]


JSON_LIKE = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(MODEL.parameters), JSON_LIKE))
def test_any_values_give_a_normal_form_or_problems(values: dict[str, object]) -> None:
    """Never an exception; and a normal form is its own normal form, in serialisable bytes."""
    params, problems = MODEL.normalise(values)
    if not problems:
        again, none = MODEL.normalise(params)
        assert not none
        assert canonical_json(again) == canonical_json(params)


@given(
    st.lists(
        st.text(max_size=6)
        | st.sampled_from([" a mug\r\nof tea ", "\u2028", "\u3000", "x\x00", "x\ud800", "x" * 10_001, 5, None, True])
        | st.just("a mug"),
        max_size=4,
    )
)
def test_many_prompts_at_once_are_what_each_of_them_is_alone(prompts: list[object]) -> None:
    """In normal form, or refused if any of them is."""
    try:
        alone = [MODEL.normal_prompt(prompt) for prompt in prompts]
    except ValueError:
        with pytest.raises(ValueError):
            MODEL.normal_prompts(prompts)
    else:
        assert MODEL.normal_prompts(prompts) == alone

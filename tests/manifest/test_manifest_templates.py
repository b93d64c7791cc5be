"""Templates: filled in exactly, bounded in size and time, the same text in every process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from conftest import Load

from pipeline.manifest.template_language import BadTemplateError
from pipeline.manifest.templates import is_template, names_in, render, single_braced

VALUES = {"product": "mug", "n": 3, "price": 1.5, "new": True, "empty": "", "duration": 5}


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("a {{ product }}", "a mug"),
        ("{{ product|upper }} {{ product.title() }}", "MUG Mug"),
        ("{{ product ~ '-' ~ n ~ new }}", "mug-3true"),
        ("{{ product + '!' }}", "mug!"),
        ("{{ n * 2 + 1 }} {{ n % 2 }} {{ 7 // n }} {{ price }}", "7 1 2 1.5"),
        ("{{ new }}", "true"),
        ("{% if new %}new {% endif %}{{ product }}", "new mug"),
        ("{{ 'wide' if n > 2 else 'close' }}", "wide"),
        ("{{ missing|default('calm') }}", "calm"),
        ("{{ empty|default('calm', true) }}", "calm"),
        ("{% if missing is defined %}x{% endif %}ok", "ok"),
        ("{% for i in range(3) %}{{ i }}{{ ',' if not loop.last }}{% endfor %}", "0,1,2"),
        ("{% for part in 'a b'.split(' ') %}<{{ part }}>{% endfor %}", "<a><b>"),
        ("{% set x = product ~ 's' %}{{ x }}", "mugs"),
        ("{{ 'a,b'.split(',')|join(' and ') }}", "a and b"),
        ("{{ product|replace('m', 'h') }}", "hug"),
        ("{{ product[0] }}{{ product[1:] }}{{ product|first }}{{ product|last }}", "mugmg"),
        ("{{ 'u' in product }}", "true"),
        ("{{ 1.25|round(1) }} {{ '7'|int + 1 }} {{ product|length }}", "1.2 8 3"),
        ("{# a note #}{{ product }}", "mug"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("line\n{{ product }}\nline", "line\nmug\nline"),
        ("<b>&{{ product }}", "<b>&mug"),
    ],
)
def test_what_templates_can_do(text: str, rendered: str) -> None:
    """Values, conditions, short loops, arithmetic and a dozen filters; nothing is escaped."""
    assert is_template(text)
    assert render(text, VALUES) == rendered


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ prodcut }}", "did you mean `product`"),
        ("{{ mood }}", "this row has duration, empty, n"),
        ("{{ mood ~ 'x' }}", "`mood` is not defined"),
        ("{{ mood|upper }}", "`mood` is not defined"),
        ("{{ mood + 'x' }}", "`mood` is not defined"),
        ("{% if mood %}{% endif %}", "`mood` is not defined"),
        ("{% for x in mood %}{% endfor %}", "`mood` is not defined"),
        ("{{ product", "cannot be rendered"),
        ("{{ product }", "cannot be rendered"),
        ("a\n{% endif %}", "line 2"),
        ("{{ product|nope }}", "no filter `nope`"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ product[99] }}", "out of range"),
    ],
)
def test_a_template_that_cannot_be_rendered_says_why(text: str, says: str) -> None:
    """An undefined name is an error with the nearest name, never an empty text that costs $1.75."""
    with pytest.raises(BadTemplateError, match=says):
        render(text, VALUES)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__'] }}",
        "{{ product|attr('__class__') }}",
        "{{ range.__globals__ }}",
        "{{ self }}",
        "{{ self.__init__ }}",
        "{{ lipsum() }}",
        "{{ cycler('a').next() }}",
        "{{ namespace(a=1) }}",
        "{{ dict(a=1) }}",
        "{{ config }}",
        "{{ '%s'|format(product) }}",
        "{{ '{0.__class__}'.format(product) }}",
        "{{ 'x'.format_map({}) }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{% macro m() %}{% endmacro %}",
        "{% set x %}y{% endset %}",
        "{% filter upper %}x{% endfilter %}",
        "{{ product.upper }}",
        "{{ product['upper'] ~ '' }}",
        "{{ [product['upper']]|join }}",
        "{{ range }}",
        "{{ range(3) }}",
        "{{ [1, 2] }}",
        "{{ none }}",
        "{{ [1, 2]|random }}",
        "{{ [1]|map('upper') }}",
        "{{ product.upper(*[1]) }}",
        "{% for x in range(2) recursive %}{{ loop([1]) }}{% endfor %}",
        "{% for x in 'ab' %}{{ loop }}{% endfor %}",
        "{% for x in 'ab' %}{{ loop.cycle('a') }}{% endfor %}",
        "{% for x in 'ab' %}{{ loop._iterable }}{% endfor %}",
        "{{ caller() }}",
        "{{ debug }}",
        "{{ product|e }}",
    ],
)
def test_nothing_reaches_beyond_the_values(text: str) -> None:
    """No attribute, address, chance or other object gets into a prompt: it is what an id is made of."""
    with pytest.raises(BadTemplateError):
        render(text, VALUES)


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 'a' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ " + "*".join(["9" * 80] * 20) + " }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ 'a'.zfill(1000000000) }}",
        "{{ 'a'|center(1000000000) }}",
        "{{ 'a'|indent(1000000000) }}",
        "{{ range(1000000000)|join }}",
        "{{ range(1000000000)|length }}",
        "{{ range(10 * 100) }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% for i in range(99) %}{% for j in range(99) %}{% endfor %}{% endfor %}",
        "{% for c in " + repr("x" * 101) + " %}{% endfor %}",
        "{% for i in range(99) %}" + "x" * 200 + "{% endfor %}",
        "{% set a = 'x' * 9 %}",
        "{% set a = 'xxxxxxxxxx' %}" + "{% set a = a + a %}" * 60 + "{{ a }}",
        "{% set a = 'xxxxxxxxxx' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
        "{% set a = 'xxxxxxxxxx' %}" + "{% set a = a|replace('x', a) %}" * 60 + "{{ a }}",
        "{% set a = ['xxxxxxxxxx'] %}" + "{% set a = [a|join(a[0]), a|join] %}" * 60 + "{{ a|join }}",
        "{% set a = '" + "x" * 4000 + "' %}{{ a|replace('x', a)|length }}",
        "{{ 1.5|round(1000000000) * 'a' }}",
        "{{ '" + "9" * 9000 + "'|int }}",
        "{{ " + "(" * 4000 + "1" + ")" * 4000 + " }}",
        "{{ " + "not " * 2000 + "1 }}{{ x",
        "{{ " + "-" * 5000 + "1 }}",
        "{{ " + "[" * 4000 + "]" * 4000 + " }}",
        "x" * 10_000 + "{{ product }}",
    ],
)
def test_bombs_are_refused_at_once(text: str) -> None:
    """Neither memory nor time: each ends within a second with a sentence."""
    started = time.monotonic()
    with pytest.raises(BadTemplateError) as caught:
        render(text, VALUES)
    assert time.monotonic() - started < 1
    assert len(str(caught.value)) < 500
    names_in(text)


def test_a_text_without_markers_is_no_template() -> None:
    """Braces and percent signs of a prompt stay as they are."""
    assert not any(is_template(text) for text in ("a mug", "50 % off {sale}", "{ {x} }", "100%}"))


def test_names_that_a_template_uses_are_known() -> None:
    """They tell a variable from a misspelt parameter."""
    assert names_in("{{ a }}{% if b %}{{ range(3) ~ d }}{% endif %}") == {"a", "b", "d"}
    assert names_in("{{ broken") == frozenset()
    assert names_in("{{ " + "9" * 5_000 + " }}") == frozenset()


def test_single_braces_around_a_known_name_are_noticed() -> None:
    """`{product}` is another tool's template, and would be sent as it is."""
    assert single_braced("a {product} mug", {"product"}) == "product"
    assert single_braced("a {{product}} {other} mug", {"product"}) is None


@pytest.mark.parametrize(("false", "true"), [("false", "true"), ("FALSE", "TRUE"), ("False", "True")])
def test_false_is_false_in_any_letters(load: Load, tmp_path: Path, false: str, true: str) -> None:
    """Spreadsheets write TRUE, Python True: a condition takes both for what they say, and they print as written."""
    (tmp_path / "feed.csv").write_text(f"id,live,state\na,{true},{true}\nb,{false},{false}\nc,,{false}\n")
    for where, ids in {
        'row["live"]': ["a"],
        'not row["live"]': ["b", "c"],
        "live == true": ["a"],
        "live != true": ["b", "c"],
        "live == false": ["b"],
        f'live == "{false}"': ["b"],
        f'live != "{false}"': ["a", "c"],
        f'live in ["{true}", "x"]': ["a"],
    }.items():
        campaign = load(
            f"""
            rows_from:
              path: feed.csv
              where: '{where}'
              each:
                id: '{{{{ id }}}}'
                state: '{{{{ state }}}}'
                prompt: '{{{{ state }}}} {{{{ "on" if state else "off" }}}}'
            """
        )
        assert [entry.row_id for entry in campaign.entries] == ids, where
        says = {"a": f"{true} on", "b": f"{false} off", "c": f"{false} off"}
        assert [entry.job.params["prompt"] for entry in campaign.entries] == [says[name] for name in ids]
    [entry] = load(f"- {{prompt: '{{{{ hot }}}} {{{{ 1 if hot else 0 }}}}', hot: {false}}}").entries
    assert entry.job.params["prompt"] == f"{false} 0"


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ('n == "42"', True),
        ('n != "42"', False),
        ('"42" == n', True),
        ('n in ["41", "42"]', True),
        ('n not in ["41", "42"]', False),
        ("n == 42", True),
        ('n == "42.0"', False),
        ('price == "24.00"', True),
        ('"4" in "42"', True),
    ],
)
def test_a_number_equals_the_text_that_it_prints(load: Load, condition: str, holds: bool) -> None:
    """A cell is no number for whoever compares it with a text in quotes: no article 42 is bought by `!= "42"`."""
    prompt = f"{{% if {condition} %}}yes{{% else %}}no{{% endif %}}".replace('"', '""')
    [entry] = load(f'n,price,prompt\n42,24.00,"{prompt}"\n', "m.csv").entries
    assert entry.job.params["prompt"] == ("yes" if holds else "no")

"""The corpus of hostile manifests and configs: what may be in a file, or instead of one, and what is to come of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REFUSED, FINE = 2, 0

CONFIG = 'provider: {kind: segmind}\nbudget: {cap_usd: "100"}\n'
MANIFEST = "- prompt: a lamp\n"


@dataclass(frozen=True, slots=True)
class Sheet:
    """One file: how it is made, whether `plan` may take it, and the places that a refusal must name."""

    name: str
    make: bytes | Callable[[Path], object]
    suffix: str
    says: tuple[str, ...] = ()
    code: int = REFUSED
    is_config: bool = False

    def lay(self, path: Path) -> None:
        """Put the file there."""
        if isinstance(self.make, bytes):
            path.write_bytes(self.make)
        else:
            self.make(path)


def sweep_of(axes: int, values: int) -> str:
    """A matrix of so many axes with so many values each."""
    numbers = ", ".join(map(str, range(values)))
    return "matrix:\n" + "".join(f"  a{axis}: [{numbers}]\n" for axis in range(axes))


def _yaml() -> Iterator[Sheet]:
    def refused(name: str, text: str | bytes, *says: str) -> Sheet:
        return Sheet(f"yaml-{name}", text.encode() if isinstance(text, str) else text, ".yaml", says)

    def fine(name: str, text: str) -> Sheet:
        return Sheet(f"yaml-{name}", text.encode(), ".yaml", code=FINE)

    laughs = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    merges = "a0: &a0 {x: 1}\n" + "".join(
        f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 8)}]}}\n" for n in range(9)
    )
    yield refused("billion-laughs", laughs, ":1", "anchors")
    yield refused("merge-bomb", merges, ":1", "anchors")
    yield refused("alias", "- prompt: *x\n", ":1", "aliases")
    yield refused("anchor-to-itself", "- &a [*a]\n", ":1")
    yield refused("merge-key", "- <<: {prompt: a}\n", ":1", "merge")
    yield refused("duplicate-key", "- prompt: a\n  prompt: b\n", ":2", "twice")
    yield refused("duplicate-key-deep", "rows:\n- matrix: {a: [1], a: [2]}\n  prompt: x\n", ":2", "twice")
    yield refused("duplicate-top-key", "rows: []\nrows: []\n", ":2", "twice")
    yield refused("python-object", "- !!python/object/apply:os.system [id]\n", ":1", "tag")
    yield refused("python-name", "- prompt: !!python/name:os.system\n", ":1", "tag")
    yield refused("local-tag", "- prompt: !include /etc/passwd\n", ":1", "tag")
    yield refused("binary-tag", "- prompt: !!binary aGVsbG8=\n", ":1", "tag")
    yield refused("set-tag", "- !!set {prompt}\n", ":1", "tag")
    yield refused("verbatim-tag", "- prompt: !<tag:yaml.org,2002:float> 1\n", ":1", "tag")
    yield refused("many-documents", "- prompt: a\n---\n- prompt: b\n", ":2", "second document")
    yield refused("directive", "%YAML 9.9\n---\n- prompt: a\n", ":1")
    yield refused("tag-directive", "%TAG ! tag:evil,2026:\n---\n- prompt: !x a\n", ":3")
    yield refused("infinity", "- prompt: a\n  cfg_scale: .inf\n", ":2", "finite")
    yield refused("nan", "- prompt: a\n  mood: .nan\n", ":2", "finite")
    yield refused("exponent", "- prompt: a\n  cfg_scale: 1e400\n", ":2", "finite")
    yield refused("digits", f"- prompt: a\n  mood: {'9' * 5_000}\n", ":2", "digits")
    yield refused("deep-flow", "[" * 100_000, ":1")
    yield refused("deep-flow-closed", "[" * 60 + "]" * 60, ":1", "nested")
    yield refused("deep-blocks", "".join(f"{'  ' * n}a:\n" for n in range(3_000)), "nested")
    yield refused("deep-dashes", "- " * 5_000 + "a\n", ":1", "nested")
    yield refused("question-keys", "? " * 5_000 + "a\n", ":1")
    yield refused("list-as-key", "? [a, b]\n: c\n", ":1")
    yield refused("mapping-as-key", "{{a: 1}: 2}\n", ":1")
    yield refused("number-as-key", "- 1: a\n  prompt: b\n", ":1", "names are text")
    yield refused("null-key", "- ~: a\n  prompt: b\n", ":1")
    yield refused("boolean-key", "- true: a\n  prompt: b\n", ":1")
    yield refused("nul", "- prompt: a\x00b\n", ":1", "U+0000")
    yield refused("nul-everywhere", b"\x00" * 4096, ":1", "U+0000")
    yield refused("escape-raw", "- prompt: a\n- prompt: \x1b[2J\n", ":2", "U+001B")
    yield refused("escape-quoted", '- prompt: "\\x1b]0;owned\\x07"\n', ":1", "control")
    yield refused("c1-quoted", '- prompt: "\\x9b2J"\n', ":1")
    yield refused("half-character", '- prompt: "\\ud800"\n', ":1")
    yield refused("no-utf-8", b"- prompt: a\n- prompt: caf\xe9\n", ":2", "UTF-8")
    yield refused("utf-16", "- prompt: a\n".encode("utf-16")[:-1], "UTF-16")
    yield refused("utf-32", "- prompt: a\n".encode("utf-32"), "hostile.yaml")
    yield refused("bom-inside", "- prompt: a\n\ufeff- prompt: b\n", "hostile.yaml")
    yield refused("tabs", "- prompt: a\n\tduration: 5\n", ":2")
    yield refused("unclosed", "- prompt: 'a\n", "hostile.yaml")
    yield refused("unclosed-flow", "- {prompt: a\n", "hostile.yaml")
    yield refused("colon", "- prompt: a: b\n", ":1", "quote")
    yield refused("reserved", "- prompt: @a\n", ":1", "quote")
    yield refused("scalar", "just words\n", ":1")
    yield refused("number", "42\n", ":1")
    yield refused("empty", "", "asks for nothing")
    yield refused("comment-only", "# nothing\n", "asks for nothing")
    yield refused("sweep-of-a-trillion", sweep_of(12, 10) + "rows: [{prompt: a}]\n", "more than 2,000,000 videos")
    entries = ", ".join("{a0: 11}" for _ in range(3_000))
    yield refused("sweep-of-entries", sweep_of(6, 10) + f"exclude: [{entries}]\nrows: [{{prompt: a}}]\n", "too many")
    counts = "".join(f"- {{prompt: a{n}, count: 10000}}\n" for n in range(300))
    yield refused("counts-of-millions", counts, "more than 2,000,000 videos")
    yield refused("rows-from-itself", "rows_from: hostile.yaml\n", "rows alone")
    yield refused("rows-from-nowhere", "rows_from: ../../../../etc/shadow\n", "is no table")
    yield refused("where-breaks-out", "rows_from: {path: x.csv, where: 'a %}{% for i in range(9**9) %}'}\n", "x.csv")
    yield refused("null-row", "- ~\n", ":1", "row 1")
    yield refused("text-row", "- prompt: a\n- words\n", ":2", "row 2")
    yield refused("list-row", "- [prompt, a]\n", ":1", "row 1")
    yield refused("rows-is-text", "rows: many\n", ":1", "rows")
    yield refused("rows-is-mapping", "rows: {a: 1}\n", ":1", "rows")
    yield refused("prompt-is-list", "- prompt: [a]\n", ":1", "row 1, prompt")
    yield refused("prompt-is-mapping", "- prompt: {a: b}\n", ":1", "row 1, prompt")
    yield refused("prompt-is-null", "- prompt:\n", ":1", "row 1, prompt")
    yield refused("prompt-missing", "- mood: a\n", "row 1, prompt")
    yield refused("prompt-blank", '- prompt: "   "\n', "row 1, prompt")
    yield refused("prompt-of-a-megabyte", f"- prompt: {'a' * 2**20}\n", "row 1, prompt")
    yield refused("unknown-key", "rows: []\nplugins: [evil]\n", ":2", "plugins")
    yield refused("name-is-path", "name: ../../evil\nrows: [{prompt: a}]\n", ":1", "name")
    yield refused("name-is-absolute", "name: /etc/cron.d/x\nrows: [{prompt: a}]\n", ":1", "name")
    yield refused("name-is-list", "name: [a]\nrows: [{prompt: a}]\n", ":1", "name")
    yield refused("model-unknown", "model: ../kling\nrows: [{prompt: a}]\n", ":1", "model")
    yield refused(
        "matrix-bomb",
        "matrix:\n"
        + "".join(f"  a{n}: [{', '.join(map(str, range(100)))}]\n" for n in range(30))
        + "rows: [{prompt: a}]\n",
        "videos",
    )
    yield refused("matrix-empty", "matrix: {a: []}\nrows: [{prompt: a}]\n", ":1", "a")
    yield refused("matrix-of-lists", "matrix: {a: [[1]]}\nrows: [{prompt: a}]\n", ":1", "a")
    yield refused("matrix-over-id", "matrix: {id: [a, b]}\nrows: [{prompt: a}]\n", ":1", "id")
    yield refused("count-huge", "- {prompt: a, count: 999999999999}\n", ":1", "row 1, count")
    yield refused("count-negative", "- {prompt: a, count: -1}\n", ":1", "row 1, count")
    yield refused("count-true", "- {prompt: a, count: true}\n", ":1", "row 1, count")
    yield refused("count-fraction", "- {prompt: a, count: 1.5}\n", ":1", "row 1, count")
    yield refused("priority-huge", "- {prompt: a, priority: 1e300}\n", ":1", "row 1, priority")
    yield refused("duration-huge", "- {prompt: a, duration: 99999999999999999999}\n", ":1", "row 1, duration")
    yield refused("one-line-of-10-megabytes", "- {prompt: a, mood: " + "m" * 10 * 2**20 + "}\n", "row 1, mood")
    yield refused("name-of-a-megabyte", f"- {{prompt: a, {'n' * 2**20}: 1}}\n", ":1")
    yield refused("bidi-name", '- {prompt: a, "\\u202emood": 1}\n', ":1", "row 1")
    yield refused("newline-name", '- {prompt: a, "mo\\nod": 1}\n', ":1", "row 1")
    for name, text in IDS.items():
        place = ":3" if name in UNREADABLE_IDS else "row 2, id"
        yield refused(f"id-{name}", f"- prompt: a\n- prompt: b\n  id: {json.dumps(text)}\n", place)
    yield refused("id-twice", "- {id: Hero, prompt: a}\n- {id: hero, prompt: b}\n", ":2", "row 2, id")
    yield fine("bidi-prompt", '- prompt: "\\u202egnp.exe \\u2066x"\n')
    yield fine("markup-prompt", '- prompt: "<script>alert(1)</script>"\n')
    yield fine("formula-prompt", '- prompt: "=1+1"\n')
    yield fine("crlf", "- prompt: a\r\n- prompt: b\r\n")
    yield fine("mac-lines", "- prompt: a\r- prompt: b\r")
    yield fine("bom", "\ufeff- prompt: a\n")
    yield fine("norway", "- {prompt: a, country: no, ratio: 16:9, code: 010, day: 2026-01-01}\n")
    yield fine("emoji", "- prompt: 👩‍👩‍👧‍👦🏳️‍🌈\n")
    yield fine("combining", f"- prompt: Z{chr(0x301) * 500}\n")
    yield fine("right-to-left", "- prompt: שלום עולם\n")


IDS = {
    "path": "../../x",
    "absolute": "/etc/passwd",
    "backslash": "..\\x",
    "dots": "..",
    "dot-first": ".hidden",
    "dash-first": "-rf",
    "nul": "a\x00b",
    "newline": "a\nb",
    "trailing-newline": "abc\n",
    "space": "a b",
    "colon": "a:b",
    "star": "a*",
    "tilde": "~root",
    "dollar": "$HOME",
    "unicode": "é",
    "nfd": "e\u0301",
    "fullwidth": "ａ",
    "dotless": "ı",
    "bidi": "\u202eabc",
    "zero-width": "a\u200bb",
    "half": "\ud800",
    "escape": "\x1b[2J",
    "formula": "=1+1",
    "long": "a" * 65,
    "megabyte": "a" * 2**20,
    "empty": "",
    "markup": "<b>",
}


UNREADABLE_IDS = frozenset({"nul", "half", "escape"})
"""Refused by the reader of YAML already, which knows no rows."""


def _csv() -> Iterator[Sheet]:
    def refused(name: str, text: str | bytes, *says: str) -> Sheet:
        return Sheet(
            f"csv-{name}", text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text, ".csv", says
        )

    def fine(name: str, text: str) -> Sheet:
        return Sheet(f"csv-{name}", text.encode(), ".csv", code=FINE)

    yield refused("empty", "", "asks for nothing")
    yield refused("header-only", "prompt\n", "asks for nothing")
    yield refused("no-prompt", "text\na\n", ":1", "prompt")
    yield refused("header-twice", "prompt,prompt\na,b\n", ":1", "prompt")
    yield refused("quote-never-closed", 'prompt,mood\n"a,b\nc,d\n', ":2")
    yield refused("quote-inside", 'prompt\n"a"b\n', ":2")
    yield refused("quote-of-10-megabytes", 'prompt\n"' + "a" * 10 * 2**20 + '"\n', ":2")
    yield refused("line-of-10-megabytes", "prompt\n" + "a" * 10 * 2**20 + "\n", ":2")
    yield refused("cells-of-10-megabytes", "prompt\n" + "," * 10 * 2**20 + "\n", "hostile.csv")
    yield refused("header-of-a-million", ",".join(f"c{n}" for n in range(300_000)) + "\n", ":1", "longer than")
    yield refused("header-of-100000", ",".join(f"c{n}" for n in range(100_000)) + "\n", ":1", "columns")
    yield refused("short-row", "prompt,mood\na\n", ":2", "row 1")
    yield refused("long-row", "prompt\na,b\n", ":2", "row 1")
    yield refused("nameless-column", "prompt,\na,b\n", ":2", "row 1")
    yield refused("nul", "prompt\na\x00b\n", ":2")
    yield refused("nul-everywhere", b"\x00" * 4096, "hostile.csv")
    yield refused("escape", "prompt\n\x1b[2J\n", ":2", "row 1, prompt")
    yield refused("escape-in-variable", "prompt,mood\na,\x1b]0;owned\x07\n", ":2", "row 1, mood")
    yield refused("escape-in-header", "prompt,\x1b[2J\na,b\n", "row 1")
    yield refused("c1", "prompt\n\x9b2J\n", ":2", "row 1, prompt")
    yield refused("latin-1", "prompt\ncafé\n".encode("latin-1"), ":2", "UTF-8")
    yield refused("utf-16", "prompt\na\n".encode("utf-16")[:-1], "UTF-16")
    yield refused("utf-16-no-bom", "prompt\na\n".encode("utf-16-le"), "hostile.csv")
    yield refused("half-character", "prompt\n\ud800\n", ":2")
    yield refused("money-nan", "prompt,cfg_scale\na,nan\n", ":2", "row 1, cfg_scale")
    yield refused("money-inf", "prompt,cfg_scale\na,inf\n", ":2", "row 1, cfg_scale")
    yield refused("exponent", "prompt,cfg_scale\na,1e400\n", ":2", "row 1, cfg_scale")
    yield refused("underscore", "prompt,count\na,1_0\n", ":2", "row 1, count")
    yield refused("arabic-digits", "prompt,count\na,٣\n", ":2", "row 1, count")
    yield refused("count-huge", "prompt,count\na,99999999999999999999\n", ":2", "row 1, count")
    yield refused("count-of-digits", f"prompt,count\na,{'9' * 5_000}\n", ":2", "row 1, count")
    yield refused("duration-nonsense", "prompt,duration\na,=5\n", ":2", "row 1, duration")
    yield refused("id-is-path", "id,prompt\n../../x,a\n", ":2", "row 1, id")
    yield refused("id-twice", "id,prompt\nhero,a\nHERO,b\n", ":3", "row 2, id")
    yield refused("binary", bytes(range(256)) * 16, "hostile.csv")
    yield refused("zip", b"PK\x03\x04" + bytes(200), "hostile.csv")
    yield refused("html", "<html>\n<body>\n", "prompt")
    yield fine("sep-line", "sep=;\nprompt;mood\na;b\n")
    yield fine("formulas", "prompt,mood\n=1+1,@SUM(1)\n-a,+b\n")
    yield fine("newline-in-quotes", 'prompt,mood\n"a\nb",c\n')
    yield fine("doubled-quotes", 'prompt\n"a ""b"" c"\n')
    yield fine("crlf", "prompt\r\na\r\n")
    yield fine("mac-lines", "prompt\ra\r")
    yield fine("mixed-lines", "prompt\r\na\rb\nc\r\n")
    yield fine("bom", "\ufeffprompt\na\n")
    yield fine("semicolons", "prompt;mood\na,b;c\n")
    yield fine("bidi", "prompt\n\u202egnp.exe\n")
    yield fine("line-separators", "prompt\na\u2028b\u2029c\n")
    yield fine("next-line-in-cell", "prompt,mood\na,b\u2028c\n")


def _jsonl() -> Iterator[Sheet]:
    def refused(name: str, text: str | bytes, *says: str) -> Sheet:
        return Sheet(f"jsonl-{name}", text.encode() if isinstance(text, str) else text, ".jsonl", says)

    def fine(name: str, text: str) -> Sheet:
        return Sheet(f"jsonl-{name}", text.encode(), ".jsonl", code=FINE)

    row = '{"prompt": "a"}\n'
    yield refused("empty", "", "asks for nothing")
    yield refused("blank-lines", "\n\n \n", "asks for nothing")
    yield refused("nan", row + '{"prompt": "a", "cfg_scale": NaN}\n', ":2", "row 2", "finite")
    yield refused("infinity", '{"prompt": "a", "mood": -Infinity}\n', ":1", "row 1", "finite")
    yield refused("exponent", '{"prompt": "a", "mood": 1e400}\n', ":1", "row 1", "finite")
    yield refused("digits", f'{{"prompt": "a", "mood": {"9" * 5_000}}}\n', ":1", "row 1", "digits")
    yield refused("digits-after-point", f'{{"prompt": "a", "cfg_scale": 0.{"9" * 5_000}}}\n', ":1", "row 1")
    yield refused("duplicate-key", '{"prompt": "a", "prompt": "b"}\n', ":1", "row 1", "twice")
    yield refused("duplicate-escaped-key", '{"prompt": "a", "pr\\u006fmpt": "b"}\n', ":1", "row 1", "twice")
    yield refused("deep-list", '{"prompt": ' + "[" * 200_000 + "\n", ":1", "row 1")
    yield refused("deep-object", '{"a":' * 200_000 + "\n", ":1", "row 1")
    yield refused("list", "[1, 2]\n", ":1", "row 1")
    yield refused("array-file", '[\n{"prompt": "a"},\n{"prompt": "b"}\n]\n', ":1", "JSON array")
    yield refused("string", '"prompt"\n', ":1", "row 1")
    yield refused("null", "null\n", ":1", "row 1")
    yield refused("two-on-a-line", '{"prompt": "a"}{"prompt": "b"}\n', ":1", "row 1")
    yield refused("trailing-comma", '{"prompt": "a",}\n', ":1", "row 1")
    yield refused("comment", '// {"prompt": "a"}\n', ":1", "row 1")
    yield refused("single-quotes", "{'prompt': 'a'}\n", ":1", "row 1")
    yield refused("cut", '{"prompt": "a', ":1", "row 1")
    yield refused("raw-control", '{"prompt": "a\x1b[2J"}\n', ":1", "row 1")
    yield refused("escaped-control", '{"prompt": "a\\u001b[2J"}\n', ":1", "row 1, prompt")
    yield refused("escaped-nul", '{"prompt": "a\\u0000b"}\n', ":1", "row 1, prompt")
    yield refused("escaped-c1", '{"prompt": "a\\u009b2J"}\n', ":1", "row 1, prompt")
    yield refused("half-character", '{"prompt": "a\\ud800"}\n', ":1", "row 1, prompt")
    yield refused("half-character-variable", '{"prompt": "a", "mood": "\\udfff"}\n', ":1", "row 1, mood")
    yield refused("half-character-name", '{"prompt": "a", "\\ud800": 1}\n', ":1", "row 1")
    yield refused("nul", b'{"prompt": "a\x00"}\n', ":1", "row 1")
    yield refused("bad-utf-8", b'{"prompt": "a"}\n{"prompt": "\xff"}\n', ":2", "UTF-8")
    yield refused("object-value", '{"prompt": {"a": 1}}\n', ":1", "row 1, prompt")
    yield refused("prompt-number", '{"prompt": 5}\n', ":1", "row 1, prompt")
    yield refused("prompt-null", '{"prompt": null}\n', ":1", "row 1, prompt")
    yield refused("prompt-true", '{"prompt": true}\n', ":1", "row 1, prompt")
    yield refused("count-true", '{"prompt": "a", "count": true}\n', ":1", "row 1, count")
    yield refused("count-fraction", '{"prompt": "a", "count": 1.5}\n', ":1", "row 1, count")
    yield refused("matrix", '{"prompt": "a", "matrix": {"a": [1]}}\n', ":1", "row 1, matrix")
    yield refused("line-of-10-megabytes", '{"prompt": "' + "a" * 10 * 2**20 + '"}\n', ":1", "longer than")
    yield refused("keys-of-a-megabyte", "{" + ", ".join(f'"k{n}": {n}' for n in range(50_000)) + "}\n", ":1", "names")
    yield refused("escape-in-name", '{"prompt": "a", "\\u001b[2J": 1}\n', ":1", "row 1")
    yield fine("proto", '{"prompt": "a", "__proto__": 1, "constructor": 2}\n')
    yield fine("crlf", '{"prompt": "a"}\r\n{"prompt": "b"}\r\n')
    yield fine("line-separator", '{"prompt": "a\u2028b"}\n')
    yield fine("bom", "\ufeff" + row)
    yield fine("bidi", '{"prompt": "\u202eabc\u2066"}\n')


TEMPLATES = {
    "loop-for-ever": "{% for a in range(10**9) %}x{% endfor %}",
    "range": "{{ range(10**9)|length }}",
    "range-product": "{% for a in range(99999999) %}x{% endfor %}",
    "range-negative": "{% for a in range(0, -99999999, -1) %}x{% endfor %}",
    "nested-loops": "{% for a in range(99) %}" * 3 + "x" + "{% endfor %}" * 3,
    "class": "{{ ''.__class__ }}",
    "mro": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr-filter": "{{ ''|attr('__class__') }}",
    "item-class": "{{ ''['__class__'] }}",
    "globals": "{{ range.__globals__ }}",
    "self": "{{ self.__init__.__globals__ }}",
    "self-blocks": "{{ self._TemplateReference__context }}",
    "cycler": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "lipsum": "{{ lipsum.__globals__['os'] }}",
    "namespace": "{% set ns = namespace(a=1) %}{{ ns.a }}",
    "joiner": "{{ joiner() }}",
    "dict": "{{ dict(a=1) }}",
    "config": "{{ config }}",
    "request": "{{ request.environ }}",
    "format": "{{ '{0.__class__}'.format(1) }}",
    "percent": "{{ '%999999999d' % 1 }}",
    "multiply": "{{ 'a' * 10**9 }}",
    "multiply-list": "{{ [1] * 10**9 }}",
    "power": "{{ 9**9**9 }}",
    "shift": "{{ 2 ** 100000000 }}",
    "numbers-that-grow": "{% set a = 9999999999 %}" + "{% set a = a * a %}" * 40 + "{{ a }}",
    "texts-that-grow": "{% set a = 'aaaaaaaaaa' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "replace-that-grows": "{{ 'aaaa'" + "|replace('a', 'aaaaaaaaaa')" * 9 + " }}",
    "center": "{{ 'a'|center(999999999) }}",
    "indent": "{{ 'a'|indent(999999999) }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "extends": "{% extends '/etc/passwd' %}",
    "macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "call": "{% call x() %}{% endcall %}",
    "do": "{% do 1 %}",
    "debug": "{% debug %}",
    "undefined": "{{ moood }}",
    "deep-brackets": "{{ " + "(" * 4_000 + "1" + ")" * 4_000 + " }}",
    "deep-ifs": "{% if 1 %}" * 900 + "x" + "{% endif %}" * 900,
    "deep-not": "{{ " + "not " * 2_000 + "1 }}",
    "unclosed": "{{ 1",
    "unclosed-block": "{% if 1 %}x",
    "unclosed-comment": "{# x",
    "long": "{{ 1 }}" + "x" * 20_000,
    "random": "{{ [1, 2]|random }}",
    "pprint": "{{ [1]|pprint }}",
    "address": "{{ ''.upper }}",
    "generator": "{{ [1, 2]|map('string') }}",
    "raise": "{{ 1 / 0 }}",
    "index": "{{ [1][5] }}",
    "escape-in-text": "{{ '\\x1b[2J' }}",
}  # fmt: skip


def _templates() -> Iterator[Sheet]:
    for name, text in TEMPLATES.items():
        line = json.dumps({"prompt": text, "mood": "x"})
        yield Sheet(f"template-{name}", (MANIFEST_ROW + line + "\n").encode(), ".jsonl", (":2", "row 2, prompt"))


MANIFEST_ROW = '{"prompt": "a"}\n'


def _instead_of_files(*, is_config: bool) -> Iterator[Sheet]:
    def made(name: str, make: Callable[[Path], object], *says: str, code: int = REFUSED) -> Sheet:
        kind = "config" if is_config else "manifest"
        return Sheet(f"{kind}-is-{name}", make, ".yaml", ("hostile.yaml", *says), code, is_config)

    text = CONFIG if is_config else MANIFEST
    yield made("missing", lambda path: None, "o such file")
    yield made("fifo", os.mkfifo, "not a regular file")
    yield made("directory", Path.mkdir, "is a directory")
    yield made("zero", lambda path: path.symlink_to("/dev/zero"), "not a regular file")
    yield made("random", lambda path: path.symlink_to("/dev/urandom"), "not a regular file")
    yield made("null", lambda path: path.symlink_to("/dev/null"), "not a regular file")
    yield made("loop", lambda path: path.symlink_to(path.name), "cannot be read")
    yield made("dangling", lambda path: path.symlink_to("nowhere"), "o such file")
    yield made("socket", _bind, "hostile.yaml")
    yield made("sparse-5-gigabytes", _sparse, "larger than")
    yield made("proc-mem", lambda path: path.symlink_to("/proc/self/mem"), "cannot be read")
    yield made("link-to-a-file", lambda path: _linked(path, text), code=FINE)


def _bind(path: Path) -> None:
    import socket

    # The path of a socket must be short: bind from inside its folder.
    here = Path.cwd()
    os.chdir(path.parent)
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5 * 2**30)


def _linked(path: Path, text: str) -> None:
    other = path.with_name("other.yaml")
    other.write_text(text)
    path.symlink_to(other.name)


def _configs() -> Iterator[Sheet]:
    def refused(name: str, text: str | bytes, *says: str) -> Sheet:
        data = text.encode() if isinstance(text, str) else text
        return Sheet(f"config-{name}", data, ".yaml", says, is_config=True)

    money = {
        "inf": ".inf", "minus-inf": "-.inf", "nan": ".nan", "nan-as-text": '"nan"', "inf-as-text": '"Infinity"',
        "exponent": "1e400", "exponent-as-text": '"1e3"', "true": "true", "zero": "0", "negative": '"-1"',
        "float": "99.5e1", "list": "[1]", "mapping": "{a: 1}", "underscore": '"1_000"', "comma": '"1,000"',
        "dollar": '"$100"', "hex": "0x64", "octal": '"0o144"', "digits": "9" * 400, "arabic": '"١٠٠"',
        "words": "all of it", "too-exact": '"1.00000001"', "too-much": '"99999999999999999999"', "space": '" "',
    }  # fmt: skip
    for name, text in money.items():
        yield refused(f"cap-{name}", f"provider: {{kind: segmind}}\nbudget:\n  cap_usd: {text}\n", ":3")
    yield refused("cap-null", "provider: {kind: segmind}\nbudget: {cap_usd: null}\n", "cap")
    yield refused("price-nan", 'budget: {cap_usd: "1", prices_usd: {"5": .nan}}\n', ":1")
    yield refused("price-zero", 'budget: {cap_usd: "1", prices_usd: {"5": 0}}\n', ":1")
    yield refused("price-of-nothing", 'budget: {cap_usd: "1", prices_usd: {"7": "1"}}\n', ":1", "7")
    yield refused("cap-twice", 'budget:\n  cap_usd: "1"\n  cap_usd: "1000"\n', ":3", "twice")
    yield refused("section-twice", 'budget: {cap_usd: "1"}\nbudget: {cap_usd: "1000"}\n', ":2", "twice")
    yield refused("laughs", "a: &a [x]\nb: [*a, *a]\n", ":1", "anchors")
    yield refused("merge", 'x: {cap_usd: "1000"}\nbudget: {<<: {cap_usd: "1"}}\n', ":2", "merge")
    yield refused("tag", "budget: !!python/object/apply:os.system [id]\n", ":1", "tag")
    yield refused("nul", b"budget: \x00\n", ":1", "U+0000")
    yield refused("escape", "budget: \x1b[2J\n", ":1")
    yield refused("deep", "[" * 100_000, ":1")
    yield refused("list", "- a\n", "mapping")
    yield refused("scalar", "words\n", "mapping")
    yield refused("binary", bytes(range(256)), "hostile.yaml")
    yield refused("utf-16", CONFIG.encode("utf-16"), "hostile.yaml")
    yield refused("two-documents", CONFIG + "---\n" + CONFIG, ":3")
    yield refused("unknown-section", "bugdet: {cap_usd: 1}\n", "bugdet")
    yield refused("unknown-key", "budget: {cap_eur: 1}\n", "cap_eur")
    yield refused("section-is-list", "limits: [1]\n", ":1", "limits")
    yield refused("section-is-number", "limits: 7\n", ":1", "limits")
    yield refused("rpm-zero", "limits: {requests_per_minute: 0}\n", ":1")
    yield refused("rpm-inf", "limits: {requests_per_minute: .inf}\n", ":1")
    yield refused("in-flight-huge", "limits: {max_in_flight: 99999999999}\n", ":1")
    yield refused("timeout-negative", "timeouts: {read_s: -1}\n", ":1")
    yield refused("hosts-star", 'provider: {output_hosts: ["*"]}\n', ":1")
    yield refused("hosts-url", 'provider: {output_hosts: ["https://evil.example"]}\n', ":1")
    yield refused("hosts-userinfo", 'provider: {output_hosts: ["a@b"]}\n', ":1")
    yield refused("hosts-empty", "provider: {output_hosts: []}\n", ":1")
    yield refused("line-of-10-megabytes", "budget: {cap_usd: " + "1" * 10 * 2**20 + "}\n", "larger than")
    for name, url in ORIGINS.items():
        text = f'provider: {{kind: segmind, base_url: {json.dumps(url)}}}\nbudget: {{cap_usd: "1"}}\n'
        yield refused(f"origin-{name}", text, ":1")
    yield Sheet("config-empty", b"", ".yaml", code=FINE, is_config=True)
    yield Sheet("config-bom", b"\xef\xbb\xbf" + CONFIG.encode(), ".yaml", code=FINE, is_config=True)
    yield Sheet("config-crlf", CONFIG.replace("\n", "\r\n").encode(), ".yaml", code=FINE, is_config=True)


ORIGINS = {
    "http": "http://api.segmind.com",
    "private": "https://10.0.0.1",
    "metadata": "http://169.254.169.254",
    "userinfo": "https://api.segmind.com@evil.example",
    "path": "https://evil.example/api.segmind.com",
    "query": "https://evil.example?https://api.segmind.com",
    "fragment": "https://evil.example#api.segmind.com",
    "backslash": "https://evil.example\\@api.segmind.com",
    "file": "file:///etc/passwd",
    "ftp": "ftp://api.segmind.com",
    "idn": "https://api.segmínd.com",
    "fullwidth": "https://ａpi.segmind.com",
    "newline": "https://api.segmind.com\nX-Evil: 1",
    "nul": "https://api.segmind.com\x00.evil.example",
    "space": "https://api.segmind.com evil.example",
    "port": "https://api.segmind.com:99999",
    "single-label": "https://router",
    "decimal": "https://2130706433",
    "local": "https://printer.local",
    "empty": "",
}


def corpus() -> dict[str, Sheet]:
    """Every file by its name."""
    made = [*_yaml(), *_csv(), *_jsonl(), *_templates(), *_configs()]
    made += [*_instead_of_files(is_config=False), *_instead_of_files(is_config=True)]
    return {sheet.name: sheet for sheet in made}

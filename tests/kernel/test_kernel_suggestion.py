"""What is said of a name that there is not."""

from __future__ import annotations

from pipeline.kernel.suggestion import suggestion

KNOWN = ["Mood", "product"]


def test_the_name_that_was_probably_meant_is_said() -> None:
    """As it is written where it is known, however it was typed."""
    assert suggestion("mod", KNOWN) == "did you mean Mood?"
    assert suggestion("PRODUKT", KNOWN, quote="`") == "did you mean `product`?"


def test_where_none_is_near_the_known_ones_are_said() -> None:
    """Or what is to be said instead."""
    assert suggestion("zebra", KNOWN) == "known: Mood, product"
    assert suggestion("zebra", KNOWN, otherwise="--list names them") == "--list names them"

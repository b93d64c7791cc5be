"""What is said of a name that there is not: the known one that was probably meant, or which names there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(name: str, known: Iterable[str], *, quote: str = "", otherwise: str | None = None) -> str:
    """`did you mean x?`, or where no known name is near, `known: x, y`. Upper and lower case are alike.

    Args:
        quote: what stands before and after the name that was probably meant.
        otherwise: what is said instead where no known name is near.
    """
    by_folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    if near:
        return f"did you mean {quote}{by_folded[near[0]]}{quote}?"
    return f"known: {', '.join(by_folded.values())}" if otherwise is None else otherwise

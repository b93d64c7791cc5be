"""Everything that the sandbox can do wrong, by name, and the seeded draw that decides when.

A submission's faults depend on the seed and on its ordinal; a poll's, result's, file's or history call's
also on how many such calls came before, so that the same call made again can go well.
"""

import difflib
import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

# Phase -> fault name -> what it does. In one draw at most one fault of a phase fires.
_PHASES: Final[Mapping[str, Mapping[str, str]]] = {
    "submit": {
        "submit_400": "The submission is refused with 400 before acceptance; nothing is billed.",
        "submit_401": "The submission is refused with 401 as if the key were bad; nothing is billed.",
        "submit_403": "The submission is refused with 403, model not allowed; nothing is billed.",
        "submit_404": "The submission is refused with 404, no such model; nothing is billed.",
        "submit_406_credits": "The submission is refused with 406 Insufficient credits; nothing is billed.",
        "submit_406_parameter": "The submission is refused with 406, a bad parameter; nothing is billed.",
        "submit_410": "The submission is refused with 410, model retired; nothing is billed.",
        "submit_429": "The submission is refused with 429 and a reset time; nothing is billed.",
        "submit_500": "The submission is refused with 500 before acceptance; nothing is billed.",
        "submit_502_before": "The gateway answers 502 and the job was never accepted.",
        "submit_503_before": "The gateway answers 503 and the job was never accepted.",
        "submit_504_before": "The gateway answers 504 and the job was never accepted.",
        "submit_drop_before": "The connection closes without a reply and the job was never accepted.",
        "submit_hang_before": "No reply until the connection closes after hang_s; never accepted.",
        "submit_3xx_before": "A 307 to another path of this server; the job was never accepted.",
        "submit_500_after": "The job is accepted and billed, the reply is a 500.",
        "submit_502_after": "The job is accepted and billed, the reply is a 502.",
        "submit_503_after": "The job is accepted and billed, the reply is a 503.",
        "submit_504_after": "The job is accepted and billed, the reply is a 504.",
        "submit_drop_after": "The job is accepted and billed, the connection closes without a reply.",
        "submit_hang_after": "The job is accepted and billed, no reply until the close after hang_s.",
        "submit_3xx_after": "The job is accepted and billed, the reply is a 307 to another path here.",
        "submit_garbage_after": "The job is accepted and billed, the reply is a 200 that is not JSON.",
        "submit_half_reply_after": "The job is accepted and billed, the reply is cut in half.",
        "submit_bad_id_after": "The job is accepted and billed, the reply names it ../../x.",
        "submit_huge_header_after": "The job is accepted and billed, the reply has a 9,500-byte header.",
        "submit_empty_after": "The job is accepted and billed, the reply is a 200 with no body.",
        "submit_html_after": "The job is accepted and billed, the reply is a 200 with an HTML page.",
    },
    "outcome": {
        "gen_failed": "The generation ends FAILED (422) by the provider's fault; nothing is billed.",
        "gen_failed_input": "The generation ends FAILED (422), the input is at fault; nothing is billed.",
    },
    "pace": {"gen_slow": "The generation takes three times as long."},
    "price": {"cost_above_quote": "The generation costs, and is billed at, twice its price."},
    "receipt": {
        "cost_missing": "The result does not say what it cost; the bill and the history do.",
        "cost_garbage": "The result says that it cost NaN or -1; the bill and the history are right.",
    },
    "link": {"result_no_url": "The result is COMPLETED and carries no URL; the history does."},
    "poll": {
        "poll_404": "A status call answers 404, once for each request; the record is there later.",
        "poll_429": "A status call answers 429 with a reset time.",
        "poll_500": "A status call answers 500.",
        "poll_502": "A status call answers 502 in HTML.",
        "poll_drop": "A status call's connection closes without a reply.",
        "poll_garbage": "A status call answers 200 with half a JSON body.",
        "poll_hang": "A status call gets no reply until the connection closes after hang_s.",
        "poll_unknown_state": "A status call answers with a state that is not documented.",
    },
    "result": {
        "result_404": "A result call answers 404.",
        "result_429": "A result call answers 429 with a reset time.",
        "result_500": "A result call answers 500.",
        "result_502": "A result call answers 502 in HTML.",
        "result_drop": "A result call's connection closes without a reply.",
        "result_garbage": "A result call answers 200 with half a JSON body.",
    },
    "file": {
        "file_404": "A download answers 404.",
        "file_500": "A download answers 500.",
        "file_drop": "A download's connection closes without a reply.",
        "file_cut": "A download ends before its Content-Length is reached.",
        "file_short": "A download is cut, and its Content-Length agrees with the cut.",
        "file_corrupt": "A download has flipped bytes in mdat and chunk offsets beyond the file.",
        "file_html": "A download is an HTML page labelled video/mp4.",
        "file_empty": "A download is 200 with no bytes.",
        "file_gzip": "A download comes with Content-Encoding: gzip although nobody asked.",
        "file_206": "A download answers 206 with the first half of the file.",
        "file_redirect_out": "A download redirects to a link-local address outside.",
        "file_slow": "A download trickles in over file_slow_s seconds, whole.",
    },
    "history": {
        "history_429": "A history call answers 429 with a reset time.",
        "history_500": "A history call answers 500.",
        "history_drop": "A history call's connection closes without a reply.",
        "history_garbage": "A history call answers 200 with half a JSON body.",
    },
    "upload": {
        "upload_400": "An upload is refused with 400; nothing is kept.",
        "upload_401": "An upload is refused with 401 as if the key were bad; nothing is kept.",
        "upload_429": "An upload is refused with 429 and a reset time; nothing is kept.",
        "upload_500": "An upload answers 500; nothing is kept.",
        "upload_drop": "An upload is kept, and its connection closes without a reply.",
        "upload_garbage": "An upload is kept, and answered with 200 and half a JSON body.",
    },
}

FAULTS: Final[dict[str, str]] = {name: text for names in _PHASES.values() for name, text in names.items()}


def check_fault_name(name: str) -> None:
    """Raise ValueError, with the nearest names, when there is no such fault."""
    if name in FAULTS:
        return
    near = difflib.get_close_matches(name, FAULTS, n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ValueError(f"unknown fault {name!r}{hint}")


def unit(seed: int, *key: object) -> float:
    """A number in [0, 1) that depends on nothing but the seed and the key."""
    text = ":".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


class FaultPlan:
    """Decides which fault, if any, hits a call, and counts what fired."""

    def __init__(self, seed: int, rates: Mapping[str, float], limits: Mapping[str, int]) -> None:
        self._seed = seed
        self._limits = dict(limits)
        self.fired: Counter[str] = Counter()
        self._active = {
            phase: [(name, rates[name]) for name in names if rates.get(name, 0.0) > 0]
            for phase, names in _PHASES.items()
        }

    def draw(self, phase: str, *key: object, spare: Collection[str] = ()) -> str | None:
        """The fault of this phase for this key, counted as fired, or None; `spare` names may not fire.

        Of several that hit, the one whose draw is lowest against its rate wins, so that faults with equal
        rates share the calls equally.
        """
        active = self._active[phase]
        if not active:
            return None
        best: tuple[float, str] | None = None
        for name, rate in active:
            limit = self._limits.get(name)
            if name in spare or (limit is not None and self.fired[name] >= limit):
                continue
            level = unit(self._seed, name, *key)
            if level < rate and (best is None or level / rate < best[0]):
                best = (level / rate, name)
        if best is None:
            return None
        self.fired[best[1]] += 1
        return best[1]

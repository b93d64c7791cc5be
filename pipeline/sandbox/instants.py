"""The instants of the protocol that the hook `on_event` is told of, by name. Killing the client at each is a test."""

from collections.abc import Mapping
from typing import Final

_CALLS: Final[Mapping[str, str]] = {
    "submit": "a submission",
    "poll": "a question for the status",
    "result": "a question for the result",
    "history": "a page or a row of the history",
    "credits": "a question for the balance",
}
_STEPS: Final[Mapping[str, str]] = {
    "head": "The request's head has been read.",
    "reply_head": "The answer's head has been handed to the kernel.",
    "reply_half": "Half of the answer's body has been handed to the kernel.",
    "reply_sent": "The whole answer has been handed to the kernel.",
}

INSTANTS: Final[Mapping[str, str]] = {
    "connected": "A connection stands; nothing has come over it yet.",
    "disconnected": "A connection is gone, whoever closed it.",
    **{f"{call}_{step}": f"{what} ({of})" for call, of in _CALLS.items() for step, what in _STEPS.items()},
    "submit_body": "The submission's body has been read; nothing has been decided.",
    "submit_accepted": "The submission is accepted and billed; the answer is still to come.",
    "file_head": "The head of a request for a video has been read.",
    "file_reply_head": "The head of the video's answer has been handed to the kernel.",
    "file_first_bytes": "The first bytes of a video have been handed to the kernel.",
    "file_half": "Half of a video has been handed to the kernel.",
    "file_done": "A whole video has been handed to the kernel.",
}
"""Instant -> what has happened by then. Answers that a fault drops, cuts or withholds tell only what did happen."""

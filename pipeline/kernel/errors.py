"""What can go wrong, in two trees.

Exceptions, for what ends a command (its exit code is the class's):

    KlingBatchError
    ├── InputError            2  usage, config or manifest is wrong: nothing was sent
    │   ├── ManifestError     2  carries every mistake, each with its place
    │   └── RunDirectoryError 2  the directory is held, damaged, or belongs to another provider
    └── MachineError          6  this machine failed (disk, descriptors): nothing is lost, run again after the cure

Error classes, for what happens to an attempt. An attempt's trouble is a recorded value, never an exception that
travels, and the first fork is about money:

    ErrorClass
    ├── refused    certainly not charged: the reservation is voided
    ├── uncertain  may be charged: the money stays reserved and the attempt is in doubt
    └── charged    certainly charged: the money is posted, and what is left to do is free
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum


class KlingBatchError(Exception):
    """Ends a command with one clear sentence and `exit_code`."""

    exit_code = 1


class InputError(KlingBatchError):
    """Usage, config or manifest is wrong. Nothing was sent."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in a file that the user wrote: where it is, what is wrong, what would be right."""

    file: str
    message: str
    row: int | None = None
    column: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = self.file
        if self.line is not None:
            place += f":{self.line}"
        if self.row is not None:
            place += f": row {self.row}"
        if self.column:
            place += f", {self.column}" if self.row is not None else f": {self.column}"
        return f"{place}: {self.message}"


class ManifestError(InputError):
    """The manifest has mistakes: all of them, each with its place."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes


class RunDirectoryError(InputError):
    """The run directory is held by another run, damaged, or belongs to another provider."""


class MachineError(KlingBatchError):
    """This machine failed (disk full, I/O error): nothing is lost, run again after the cure."""

    exit_code = 6


class Charge(StrEnum):
    """Whether the provider charged for an attempt, as far as this side can know."""

    NO = "no"
    UNKNOWN = "unknown"
    YES = "yes"


class Reaction(Enum):
    """What an error class asks of the run."""

    RETRY_COUNTED = "try again; counts against the attempts"
    RETRY_FREE = "try again; does not count against the attempts"
    FAIL_ROW = "the row is wrong: fail it for good"
    STOP_ACCOUNT = "every row would fail alike: stop the run until a person acts"
    PAUSE = "every call waits until the provider's limit resets"
    SETTLE = "find out from the provider's history before paying again"
    FETCH_AGAIN = "download again, which is free"


class ErrorClass(Enum):
    """Each kind of trouble of an attempt: its name in the tables, who is charged, the reaction, what to do next."""

    NOT_SENT = (
        "not_sent",
        Charge.NO,
        Reaction.RETRY_FREE,
        "No connection was made. It is tried again; check the network if it stays.",
    )
    BAD_REQUEST = (
        "bad_request",
        Charge.NO,
        Reaction.FAIL_ROW,
        "The provider refused this row's values. Correct the row and run again.",
    )
    UNAUTHORIZED = (
        "unauthorized",
        Charge.NO,
        Reaction.STOP_ACCOUNT,
        "The API key was refused. Set a valid key and run again.",
    )
    FORBIDDEN = (
        "forbidden",
        Charge.NO,
        Reaction.STOP_ACCOUNT,
        "This account may not use this model. Ask the provider, then run again.",
    )
    NO_SUCH_MODEL = (
        "no_such_model",
        Charge.NO,
        Reaction.STOP_ACCOUNT,
        "The provider does not know this model. Check `model` and `base_url`, then run again.",
    )
    MODEL_RETIRED = (
        "model_retired",
        Charge.NO,
        Reaction.STOP_ACCOUNT,
        "The provider has retired this model.",
    )
    OUT_OF_CREDITS = (
        "out_of_credits",
        Charge.NO,
        Reaction.STOP_ACCOUNT,
        "The account has too few credits or a spend limit. Top up and run again.",
    )
    WRONG_METHOD = (
        "wrong_method",
        Charge.NO,
        Reaction.STOP_ACCOUNT,
        "The provider refused the kind of call: please report it as a defect of kling-batch.",
    )
    RATE_LIMITED = (
        "rate_limited",
        Charge.NO,
        Reaction.PAUSE,
        "The rate limit was reached. All calls waited and it was tried again.",
    )
    GENERATION_FAILED = (
        "generation_failed",
        Charge.NO,
        Reaction.RETRY_COUNTED,
        "The generation failed at the provider. It is tried again within the attempts; --retry-failed grants more.",
    )
    INPUT_REFUSED = (
        "input_refused",
        Charge.NO,
        Reaction.FAIL_ROW,
        "The model refused this input. Change the prompt or the image and run again.",
    )
    BAD_IMAGE = (
        "bad_image",
        Charge.NO,
        Reaction.FAIL_ROW,
        "The image was changed or removed after it was planned. Run again; with the old file, use --retry-failed.",
    )
    SERVER_ERROR = (
        "server_error",
        Charge.NO,
        Reaction.RETRY_COUNTED,
        "The provider's server failed, often for a value the model refuses. It is tried again within the attempts.",
    )
    NEVER_ACCEPTED = (
        "never_accepted",
        Charge.NO,
        Reaction.RETRY_FREE,
        "The provider's history shows that it never arrived. It is tried again.",
    )
    NOT_BILLED = (
        "not_billed",
        Charge.NO,
        Reaction.RETRY_FREE,
        "A person said that it was not billed. It is tried again.",
    )

    NO_REPLY = (
        "no_reply",
        Charge.UNKNOWN,
        Reaction.SETTLE,
        "No answer came. Run again: the provider's history settles it.",
    )
    GATEWAY = (
        "gateway",
        Charge.UNKNOWN,
        Reaction.SETTLE,
        "A gateway lost the answer. Run again: the provider's history settles it.",
    )
    UNREADABLE = (
        "unreadable",
        Charge.UNKNOWN,
        Reaction.SETTLE,
        "The answer could not be understood. Run again: the provider's history settles it.",
    )
    INTERRUPTED = (
        "interrupted",
        Charge.UNKNOWN,
        Reaction.SETTLE,
        "The run ended before the answer was recorded. Run again: the provider's history settles it.",
    )
    RECORD_EXPIRED = (
        "record_expired",
        Charge.UNKNOWN,
        Reaction.SETTLE,
        "The provider forgot the request before it was collected. Run again: the provider's history settles it.",
    )

    FETCH_FAILED = (
        "fetch_failed",
        Charge.YES,
        Reaction.FETCH_AGAIN,
        "The paid video could not be downloaded. Run again within 7 days: downloading is free.",
    )
    BAD_FILE = (
        "bad_file",
        Charge.YES,
        Reaction.FETCH_AGAIN,
        "The downloaded file was damaged. Run again within 7 days: downloading is free.",
    )
    NOT_AS_ASKED = (
        "not_as_asked",
        Charge.YES,
        Reaction.FETCH_AGAIN,
        "The video is whole but not as asked. It was kept; look at it, and take it up with the provider.",
    )

    def __init__(self, label: str, charge: Charge, reaction: Reaction, advice: str) -> None:
        self.label = label
        self.charge = charge
        self.reaction = reaction
        self.advice = advice

    def __str__(self) -> str:
        return self.label


ERROR_CLASSES: dict[str, ErrorClass] = {member.label: member for member in ErrorClass}
"""Error classes by the name that the tables show."""

"""The words of the provider: status, headers and body of every answer it gives. Pure."""

import datetime as dt
import math
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from pipeline.sandbox.faults import unit
from pipeline.sandbox.settings import MICRO
from pipeline.sandbox.state import Generation, usd_text

JSON: Final = "application/json"
HTML: Final = "text/html"
MP4: Final = "video/mp4"
RESET_HEADER: Final = "x-rate-limit-reset-at-utc"
_UNAUTHORISED: Final = "Invalid or expired API key. Send a valid key in the x-api-key header."
_METADATA_URL: Final = "http://169.254.169.254/"
_REASONS: Final = {
    405: "Method Not Allowed",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Time-out",
}


@dataclass(slots=True)
class Reply:
    """One HTTP answer."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


def of(payload: object, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """A JSON answer."""
    return Reply(status, orjson.dumps(payload), JSON, headers or {})


def error(status: int, message: str) -> Reply:
    """The usual error body."""
    return of({"error": message}, status)


def auth_error(status: int = 401) -> Reply:
    """The auth surface's error body."""
    code, text = {
        401: ("unauthorized", _UNAUTHORISED),
        403: ("forbidden", "This account may not call this model."),
    }[status]
    return of({"error": code, "error_description": text, "status_code": status}, status)


def page(status: int) -> Reply:
    """An HTML page, as a gateway or a router in front of the API answers."""
    reason = _REASONS.get(status, "OK")
    text = (
        f"<!doctype html>\n<html><head><title>{status} {reason}</title></head><body><h1>{reason}</h1></body></html>\n"
    )
    return Reply(status, text.encode(), HTML)


def too_many(reset_at: float, message: str = "Rate limit exceeded") -> Reply:
    """429 with the instant, epoch seconds, from which a call fits again, rounded up to a second."""
    at = dt.datetime.fromtimestamp(math.ceil(reset_at), dt.UTC)
    return of({"error": message}, 429, {RESET_HEADER: at.strftime("%Y-%m-%dT%H:%M:%SZ")})


def no_credits(balance_microusd: int, need_microusd: int) -> Reply:
    """406 that names balance and need."""
    return error(
        406,
        f"Insufficient credits. Balance: ${usd_text(balance_microusd)}, required: ${usd_text(need_microusd)}",
    )


def submit_fault(fault: str, model: str, balance_microusd: int, price_microusd: int, now: float) -> Reply:
    """What a refused, lost or spoilt submission is answered with, for faults that answer at all."""
    match fault:
        case "submit_400":
            return error(400, "Unsupported operation")
        case "submit_401":
            return auth_error(401)
        case "submit_403":
            return auth_error(403)
        case "submit_404":
            return error(404, f"Model not found: {model}")
        case "submit_406_credits":
            return no_credits(min(balance_microusd, price_microusd - 1), price_microusd)
        case "submit_406_parameter":
            return error(406, "Invalid value for parameter cfg_scale: must be between 0 and 1")
        case "submit_410":
            return error(410, f"Model retired: {model}")
        case "submit_429":
            return too_many(now + 1)
        case "submit_garbage_after":
            return Reply(200, b'{"request_id": "3f2c1a', JSON)
        case "submit_empty_after":
            return Reply(200, b"", JSON)
        case "submit_html_after":
            return page(200)
    status = fault.split("_")[1]
    return error(500, "Internal server error") if status == "500" else page(int(status))


def call_fault(fault: str, reply: Reply, now: float) -> Reply:
    """What a poll, result, history call or upload gets instead of `reply`, for faults that answer."""
    match fault.split("_", 1)[1]:
        case "400":
            return error(400, "Bad request")
        case "401":
            return auth_error()
        case "404":
            return error(404, "Request not found or expired")
        case "429":
            return too_many(now + 1)
        case "500":
            return error(500, "Internal server error")
        case "502":
            return page(502)
        case "unknown_state":
            return of({**orjson.loads(reply.body), "status": "WARMING_UP"})
    return Reply(200, reply.body[: max(1, len(reply.body) // 2)], JSON)  # garbage


def redirect_out() -> Reply:
    """A redirect to an address that no client may follow."""
    return Reply(302, b"", HTML, {"Location": _METADATA_URL})


def accepted(base: str, request_id: str) -> Reply:
    """A v2 submission was taken."""
    url = f"{base}/v2/requests/{request_id}"
    return of(
        {
            "request_id": request_id,
            "status": "QUEUED",
            "poll_url": f"{base}/v1/requests/{request_id}",
            "status_url": f"{url}/status",
            "response_url": url,
        }
    )


def _timings(generation: Generation, time_scale: float) -> dict[str, float]:
    total_s = generation.total_s
    if generation.ended_at is not None:  # a clip that was late to be drawn took longer than planned
        total_s = max(total_s, (generation.ended_at - generation.accepted_at) * time_scale)
    return {
        "inference_time": round(total_s - generation.queue_s, 3),
        "queue_time": round(generation.queue_s, 3),
        "total_time": round(total_s, 3),
    }


def _told_cost(generation: Generation) -> Any:
    """The cost as the result tells it: dollars, nonsense, or None for silence."""
    if "cost_missing" in generation.faults:
        return None
    if "cost_garbage" in generation.faults:
        return "NaN" if unit(0, "garbage", generation.ordinal) < 0.5 else -1
    return generation.cost_microusd / MICRO


def status_reply(generation: Generation, status: str, time_scale: float) -> Reply:
    """The status document; FAILED comes as 422."""
    payload: dict[str, Any] = {"status": status, "request_id": generation.id, "metrics": {}}
    if status in ("COMPLETED", "FAILED"):
        payload["metrics"] = _timings(generation, time_scale)
    if status == "FAILED":
        payload["error"] = generation.error
        return of(payload, 422)
    return of(payload)


def video_url(base: str, generation: Generation) -> str:
    """Where its video is served."""
    return f"{base}/files/{generation.id}.mp4"


def result_reply(base: str, generation: Generation, size: int, credits_microusd: int, time_scale: float) -> Reply:
    """The result document of a COMPLETED request."""
    metrics: dict[str, Any] = _timings(generation, time_scale)
    metrics["remaining_credits"] = credits_microusd / MICRO
    cost = _told_cost(generation)
    if cost is not None:
        metrics["cost"] = cost
    payload: dict[str, Any] = {"status": "COMPLETED", "request_id": generation.id, "metrics": metrics}
    if "result_no_url" not in generation.faults:
        url = video_url(base, generation)
        payload["output"] = url
        payload["video"] = {
            "url": url,
            "content_type": MP4,
            "file_name": f"{generation.id}.mp4",
            "file_size": size,
        }
    return of(payload)


def accounting(generation: Generation, credits_microusd: int, time_scale: float) -> dict[str, str]:
    """The headers that a blocking call is billed by."""
    timings = _timings(generation, time_scale)
    headers = {
        "x-request-id": generation.id,
        "x-remaining-credits": usd_text(credits_microusd),
        "x-generation-time": str(timings["total_time"]),
    }
    cost = _told_cost(generation)
    if cost is not None:
        headers["x-cost"] = str(cost)
    return headers

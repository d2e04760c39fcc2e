"""What can go wrong between us and a server, in few kinds, whichever SDK or library found it."""

from __future__ import annotations

import email.utils
import math
import time
from typing import Any

from hafs.errors import HafsError
from hafs.models.chat import whole

RETRIABLE = ("rate_limit", "server", "timeout", "cut", "connection")
PERHAPS_PAID = ("timeout", "cut", "large")
"""Failures after which the server may have done the work and taken the money."""
LONGEST_MESSAGE = 2000


class CallFailed(Exception):
    """An attempt without a reply.

    `kind`: rate_limit, server, timeout, cut, connection, large, request, missing, auth. `retry_after` is how many
    seconds the endpoint asks to wait, None when it does not say; `status` the HTTP status (200: a reply came
    that is none), None without one.
    """

    def __init__(self, kind: str, message: str, retry_after: float | None = None, status: int | None = None) -> None:
        self.kind = kind
        self.message = whole(message).replace("\0", "�")[:LONGEST_MESSAGE]
        super().__init__(self.message)
        self.retry_after = retry_after
        self.status = status


class EndpointDown(HafsError):
    """The endpoint answers nothing, or refuses everything: going on would be of no use."""


class NotTaken(Exception):
    """A reply, or a request, that the transport stops: `kind` as of CallFailed."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def failure_of(e: BaseException) -> CallFailed | None:
    """What an SDK's exception means; None when it is none of theirs.

    Both SDKs name their errors alike, so one reading serves both and neither has to be there.
    """
    names = {c.__name__ for c in type(e).__mro__}
    for stopped in (e, e.__cause__):
        if isinstance(stopped, NotTaken):
            return CallFailed(stopped.kind, str(stopped))
    if "TransportError" in names:  # while a reply streams, of the library below the SDK
        return CallFailed("timeout" if "TimeoutException" in names else "cut", str(e) or type(e).__name__)
    if "APITimeoutError" in names:
        return CallFailed("timeout", str(e))
    if "APIResponseValidationError" in names:
        return CallFailed("cut", str(e))
    if "APIConnectionError" in names:
        cause = type(e.__cause__).__name__
        unsent = cause in ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")
        return CallFailed("connection" if unsent else "cut", f"{e} ({e.__cause__ or cause})")
    status = getattr(e, "status_code", None)
    if isinstance(status, int):
        response = getattr(e, "response", None)
        return CallFailed(_kind(status), f"{status}: {_said(e, response)}", _retry_after(response), status)
    if names & {"AnthropicError", "OpenAIError", "CredentialsError"} or (
        isinstance(e, TypeError) and "authentication" in str(e)
    ):
        return CallFailed("auth", str(e))
    return None


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit"
    if status in (401, 403, 402):
        return "auth"
    if status == 404:
        return "missing"
    if status in (408, 409) or status >= 500:
        return "server"
    return "request"


def _said(error: BaseException, response: Any) -> str:
    """What the server said, in one line."""
    if where := getattr(response, "headers", {}).get("location"):
        return f"it sends us on to {where[:200]}, and redirects are not followed: give that address if it is right"
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else body
    text = inner.get("message") if isinstance(inner, dict) else inner
    text = text if isinstance(text, str) and text else getattr(error, "message", "") or str(error)
    return " ".join(str(text)[: 4 * LONGEST_MESSAGE].split())


def _retry_after(response: Any) -> float | None:
    """Seconds that the response asks to wait (`retry-after-ms`, or `Retry-After` in seconds or as a date)."""
    headers = getattr(response, "headers", {})
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        seconds = _until(headers.get("retry-after", ""))
    return None if math.isnan(seconds) else max(0.0, seconds)


def _until(date: str) -> float:
    """Seconds to a date of HTTP's form; NaN for what is none."""
    try:
        when = email.utils.parsedate_tz(date)
        return email.utils.mktime_tz(when) - time.time() if when else math.nan
    except (ValueError, OverflowError, OSError):
        return math.nan

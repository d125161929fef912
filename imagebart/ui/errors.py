"""Errors outside our own sentences: a bad request is refused in one, and what nobody expected gets a number.

The number stands in the server's log, too, beside the traceback. It reveals nothing of the server, no path.
"""

from __future__ import annotations

import errno
import logging
import secrets
import shutil
from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr
from fastapi import Request, Response
from gradio.exceptions import InvalidPathError
from gradio.route_utils import MultiPartException
from gradio.utils import get_upload_folder
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagebart.errors import InputError
from imagebart.ui import messages

log = logging.getLogger(__name__)

PROXY_ROUTE = "/proxy="  # Gradio's route to other servers, which a page that loads nothing from them does not need
MAX_REQUEST = 8_000_000  # bytes; the largest mask, of noise, takes six million characters
MAX_UPLOAD = 64_000_000  # bytes of a request with files, each of which Gradio limits
RESERVED_DISK = 500_000_000  # bytes that uploads leave to results
DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What Gradio's own reading of a request raises where it is not of the kind that the page sends.
INVALID_REQUEST_ERRORS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError)


def log_unexpected(what: str) -> str:
    """Logs the exception at hand under a new number; the sentence for the person, with that number."""
    number = f"{secrets.randbelow(10**8):08}"
    log.exception("%s: error %s", what, number)
    return messages.unexpected_error(number)


def answering(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that the browser may call by name: an unexpected error is answered with {"error": a sentence}."""

    @wraps(function)
    def answer(*values: Any) -> Any:
        try:
            return function(*values)
        except Exception:
            return {"error": log_unexpected(function.__name__)}

    return answer


class GuardedBlocks(gr.Blocks):
    """Blocks whose calls end with values, or with one sentence."""

    async def preprocess_data(self, *values: Any, **named: Any) -> list[Any]:
        """Gradio's reading of a request: too few values, of another kind, or files that nobody uploaded."""
        try:
            return await super().preprocess_data(*values, **named)
        except InvalidPathError as error:
            raise gr.Error(messages.NOT_UPLOADED, print_exception=False) from error
        except Exception as error:
            raise gr.Error(messages.INVALID_REQUEST, print_exception=False) from error

    async def call_function(self, block_fn: Any, *values: Any, **named: Any) -> dict[str, Any]:
        """Gradio's call of a function, which may be one of JavaScript alone."""
        if getattr(block_fn, "fn", self) is None:
            raise gr.Error(messages.INVALID_REQUEST, print_exception=False)
        return await super().call_function(block_fn, *values, **named)

    async def process_api(self, *values: Any, **named: Any) -> dict[str, Any]:
        """Gradio's whole answer to a call."""
        try:
            return await super().process_api(*values, **named)
        except gr.Error:
            raise
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:
            raise gr.Error(log_unexpected("a call failed"), print_exception=False) from error


class RequestGuard:
    """ASGI middleware: no route to other servers, nothing of endless length, and no answer without a sentence."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if PROXY_ROUTE in scope["path"]:
            await _answer(404, messages.NO_PROXY)(scope, receive, send)
            return
        upload = scope["path"].endswith("/upload")
        if upload and _disk_nearly_full():
            await _answer(507, messages.DISK_FULL)(scope, receive, send)
            return
        answering, refused, received = False, False, 0

        async def receive_limited() -> Message:
            nonlocal received, refused
            message = await receive()
            received += len(message.get("body", b""))
            if received > (MAX_UPLOAD if upload else MAX_REQUEST):
                refused = upload
                # On an exception of this kind only, Gradio deletes what it has written of an upload by then.
                raise MultiPartException(messages.TOO_LARGE) if upload else HTTPException(413, messages.TOO_LARGE)
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal answering
            if refused:  # Gradio's answer has another status, and is no JSON
                return
            answering = True
            await send(message)

        try:
            await self._app(scope, receive_limited, send_unless_refused)
            if refused:
                await _answer(413, messages.TOO_LARGE)(scope, receive, send)
        except ClientDisconnect:
            log.info("a request to %s broke off", scope["path"][:80])
        except Exception as error:
            if answering and isinstance(error.__cause__, HTTPException):  # an unknown session: Gradio has said so
                log.warning("a stream of %s ended: %s", scope["path"][:80], error.__cause__)
                await send({"type": "http.response.body"})
                return
            if answering:
                raise
            if isinstance(error, INVALID_REQUEST_ERRORS):
                log.warning("a request to %s was refused: %s", scope["path"][:80], type(error).__name__)
                answer = _answer(400, messages.INVALID_REQUEST)
            else:
                answer = _answer(500, log_unexpected("a request failed"))
            await answer(scope, receive, send)


def upload_not_written(_request: Request, error: Exception) -> Response:
    """The answer to an upload that cannot be written, for the server's `exception_handlers`."""
    if not (isinstance(error, OSError) and error.errno in DISK_FULL_ERRORS):
        raise error
    return Response(messages.DISK_FULL, status_code=507, media_type="text/plain")


def _disk_nearly_full() -> bool:
    """Whether uploads would take the space that results need."""
    try:
        return shutil.disk_usage(get_upload_folder()).free < RESERVED_DISK
    except OSError:  # the folder is made for the first upload
        return False


def _answer(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status)

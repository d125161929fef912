"""What goes wrong outside our own sentences: a bad request is refused in one, what nobody expected gets a number.

The number stands in the server's log, too, beside the traceback. Of the server itself nothing is told: no path.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr
from gradio.exceptions import InvalidPathError
from gradio.route_utils import MultiPartException
from gradio.utils import get_upload_folder
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagebart.errors import InputError
from imagebart.ui import messages as wording
from imagebart.ui.files import NO_ROOM

log = logging.getLogger(__name__)

ABROAD = "/proxy="  # Gradio's way to other servers, which a page that loads nothing from them does not need
MOST_ASKED = 8_000_000  # bytes of a request; the largest mask, of noise, takes six million letters
MOST_UPLOADED = 64_000_000  # of one with files, each of which Gradio bounds
RESERVE = 500_000_000  # bytes of the disk that uploads leave to results
# What Gradio's own reading of a request raises where it is not of the kind that the page sends.
MISREAD = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError)


def noted(what: str) -> str:
    """Logs the exception at hand under a new number; the sentence for the person, with that number."""
    number = f"{secrets.randbelow(10**8):08}"
    log.exception("%s: error %s", what, number)
    return wording.sorry(number)


def answering(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that the browser may call by name; what nobody expected is an {"error": a sentence}, too."""

    @wraps(function)
    def answer(*values: Any) -> Any:
        try:
            return function(*values)
        except Exception:
            return {"error": noted(function.__name__)}

    return answer


class Guarded(gr.Blocks):
    """Blocks whose calls end with values, or with one sentence."""

    async def preprocess_data(self, *values: Any, **named: Any) -> list[Any]:
        """Gradio's reading of what was sent: too few values, of another kind, or files that nobody uploaded."""
        try:
            return await super().preprocess_data(*values, **named)
        except InvalidPathError as error:
            raise gr.Error(wording.FOREIGN_FILE, print_exception=False) from error
        except Exception as error:
            raise gr.Error(wording.MISREAD, print_exception=False) from error

    async def process_api(self, *values: Any, **named: Any) -> dict[str, Any]:
        """Gradio's whole answer to a call."""
        try:
            return await super().process_api(*values, **named)
        except gr.Error:
            raise
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:
            raise gr.Error(noted("a call failed"), print_exception=False) from error


class Gate:
    """Around the server's routes: no way to other servers, nothing without end, and no answer without a sentence."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if ABROAD in scope["path"]:
            await _say(404, wording.NOTHING_ABROAD)(scope, receive, send)
            return
        upload = scope["path"].endswith("/upload")
        if upload and _nearly_full():
            await _say(507, NO_ROOM)(scope, receive, send)
            return
        begun, refused, arrived = False, False, 0

        async def counted() -> Message:
            nonlocal arrived, refused
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > (MOST_UPLOADED if upload else MOST_ASKED):
                refused = upload
                # On an exception of this kind only, Gradio deletes what it has written of an upload by then.
                raise MultiPartException(wording.TOO_MUCH) if upload else HTTPException(413, wording.TOO_MUCH)
            return message

        async def noticed(message: Message) -> None:
            nonlocal begun
            if refused:  # Gradio's answer has another status, and is no JSON
                return
            begun = True
            await send(message)

        try:
            await self._app(scope, counted, noticed)
            if refused:
                await _say(413, wording.TOO_MUCH)(scope, receive, send)
        except Exception as error:
            if begun and isinstance(error.__cause__, HTTPException):  # a session that is not there: Gradio has said so
                log.warning("a stream of %s ended: %s", scope["path"][:80], error.__cause__)
                await send({"type": "http.response.body"})
                return
            if begun:
                raise
            if isinstance(error, MISREAD):
                log.warning("a request to %s was refused: %s", scope["path"][:80], type(error).__name__)
                answer = _say(400, wording.MISREAD)
            else:
                answer = _say(500, noted("a request failed"))
            await answer(scope, receive, send)


def _nearly_full() -> bool:
    """Whether uploads would take the room that results need."""
    try:
        return shutil.disk_usage(get_upload_folder()).free < RESERVE
    except OSError:  # the folder is made for the first upload
        return False


def _say(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status)

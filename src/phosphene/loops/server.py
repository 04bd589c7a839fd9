"""A closed loop through a socket: one JSON object a line, on the loopback address, with a token.

The rig connects and says {"token": TOKEN}. Then it says {"ask": true}, and is answered with the
pictures, as PNG in base64, and their order; {"tell": [[picture, trial, channel, value], …]}, in as
many pieces as it likes; and {"done": true} at the end of a block. What cannot be is answered with
{"error": …}, and nothing is lost.
"""

from __future__ import annotations

import base64
import json
import math
import secrets
import socketserver
import sys
from typing import Any

from phosphene.errors import BadRequest, PhospheneError
from phosphene.loops.block import Interleaved
from phosphene.loops.folder import PROTOCOL, npy, png
from phosphene.loops.generation import Generation, Response
from phosphene.loops.loop import Loop, notice
from phosphene.loops.responses import response_of

HOST = "127.0.0.1"
MAX_LINE = 64 << 20
"""Bytes; a client that sends a longer line is cut off."""
MAX_HELLO = 4096
"""Bytes of the line with the token."""
PATIENCE = 10.0
"""Seconds in which a client says the token; until then others wait."""


class LoopServer(socketserver.TCPServer):
    """Serve one rig at a time. `server_address` has the port, `token` what the rig must say."""

    allow_reuse_address = True

    def __init__(self, loop: Loop | Interleaved, port: int = 0, token: str = ""):
        self.loop = loop
        self.token = token or secrets.token_hex(16)
        super().__init__((HOST, port), _Rig)

    @property
    def port(self) -> int:
        """Return the port that is listened at."""
        return int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Tell of a connection that broke, and wait for the next."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            raise
        notice(f"a connection ended ({error.strerror or type(error).__name__}); waiting for a rig")

    def serve(self) -> None:
        """Serve until all generations are complete."""
        while not self.loop.is_over:
            self.handle_request()


class _Rig(socketserver.StreamRequestHandler):
    server: LoopServer

    def handle(self) -> None:
        known = False
        self.connection.settimeout(PATIENCE)
        while not self.server.loop.is_over:
            line = self.rfile.readline(MAX_LINE if known else MAX_HELLO)
            if len(line) >= MAX_LINE:
                self._say({"error": f"a line has fewer than {MAX_LINE:,} bytes"})
            if not line.endswith(b"\n"):
                return
            answer, known = answer_of(line, self.server.loop, self.server.token, known)
            self._say(answer)
            if not known:
                return
            self.connection.settimeout(None)

    def _say(self, answer: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def answer_of(
    content: bytes, loop: Loop | Interleaved, token: str, known: bool = False
) -> tuple[dict[str, Any], bool]:
    """Return the answer to a rig's message, and whether the rig is known.

    A rig is known that said the token, in this message or before.
    """
    try:
        message = json.loads(content)
        if not isinstance(message, dict):
            raise BadRequest(f"a message is a JSON object; got {content[:60]!r}")
        said = str(message.get("token", "")).encode()
        known = known or secrets.compare_digest(said, token.encode())
        return (_answered(message, loop) if known else {"error": "the token is another"}), known
    except (ValueError, RecursionError, PhospheneError) as error:
        return {"error": str(error)}, known


def _answered(message: dict[str, Any], loop: Loop | Interleaved) -> dict[str, Any]:
    if "ask" in message:
        return as_json(loop.ask())
    if "tell" in message or "done" in message:
        rows = message.get("tell", [])
        if not isinstance(rows, list):
            raise BadRequest("tell takes a list of [picture, trial, channel, value]")
        told = loop.tell([*map(_response, rows)], done=bool(message.get("done")))
        return {**vars(told), "over": loop.is_over}
    return {"hello": PROTOCOL}


def as_json(generation: Generation) -> dict[str, Any]:
    """Return a generation as the rig is given it."""
    wanted = sorted({each.picture for each in generation.order})
    pictures = {name: _text(png(generation.shown(name))) for name in wanted}
    message = {"generation": generation.number, "pictures": pictures, "order": generation.order}
    if generation.has_arrays:
        message["arrays"] = {name: _text(npy(generation.psychopy(name))) for name in wanted}
    return message | generation.place_as_json()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _response(row: Any) -> Response:
    try:
        picture, trial, channel, value = row
        columns = {"picture": picture, "trial": trial, "channel": channel}
        return response_of({**columns, "value": math.nan if value is None else value})
    except (TypeError, ValueError):
        raise BadRequest(
            f"a response is [picture, trial, channel, value]; got {repr(row)[:200]}"
        ) from None

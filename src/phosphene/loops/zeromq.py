"""A closed loop through ZeroMQ: the messages of `server`, each with the token.

The loop's side is a REP socket on the loopback address, the rig's a REQ socket. One message is one
JSON object. A rig may come and go: nothing is known of a connection.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from phosphene.errors import BadRequest, Unavailable
from phosphene.loops.block import Interleaved
from phosphene.loops.loop import Loop
from phosphene.loops.server import HOST, MAX_LINE, answer_of

LAST_WORDS = 5000
"""Milliseconds in which the last answer is still sent when the search is over."""
PATIENCE = 60_000
"""Milliseconds that a rig waits for an answer."""


def _zmq() -> Any:
    """Return the library; `Unavailable` where it is not installed."""
    try:
        import zmq
    except ImportError:
        raise Unavailable("ZeroMQ needs pyzmq: pip install 'phosphene[zeromq]'") from None
    return zmq


class ZeroServer:
    """Serve rigs through ZeroMQ. `port` is the loop's, `token` what each message must say."""

    def __init__(self, loop: Loop | Interleaved, port: int = 0, token: str = ""):
        zmq = _zmq()
        self.loop = loop
        self.token = token or secrets.token_hex(16)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, LAST_WORDS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_LINE)
        try:
            self._socket.bind(f"tcp://{HOST}:{port or '*'}")
        except zmq.ZMQError as error:
            self.close()
            raise Unavailable(f"cannot listen at {HOST}:{port}: {error.strerror}") from None
        endpoint: bytes = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        self.port = int(endpoint.decode().rstrip("\0").rpartition(":")[2])

    def __enter__(self) -> ZeroServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Send what is left to be sent, and give the port back."""
        self._socket.close()
        self._context.term()

    def serve(self) -> None:
        """Serve until all generations are complete."""
        while not self.loop.is_over:
            parts = self._socket.recv_multipart()
            answer, _ = answer_of(b"".join(parts), self.loop, self.token)
            self._socket.send(json.dumps(answer).encode())


class Client:
    """Speak for a rig to a loop through ZeroMQ; used in a `with`."""

    def __init__(self, port: int, token: str):
        zmq = _zmq()
        self._place = f"{HOST}:{port}"
        self._token = token
        self._silence = zmq.Again
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, PATIENCE)
        self._socket.connect(f"tcp://{self._place}")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
        self._context.term()

    def say(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Say a message and return the answer; `BadRequest` where it is an error."""
        self._socket.send(json.dumps({**message, "token": self._token}).encode())
        try:
            answer: dict[str, Any] = json.loads(self._socket.recv())
        except self._silence:
            raise Unavailable(
                f"no loop answers at {self._place} within {PATIENCE // 1000} seconds"
            ) from None
        if "error" in answer:
            raise BadRequest(f"the loop says: {answer['error']}")
        return answer

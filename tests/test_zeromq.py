"""A closed loop through ZeroMQ: the messages of the socket, each with the token."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading

import pytest
from test_loops import CLIMB, answers, brightness, history, tiny_loop

from phosphene.errors import BadRequest, Unavailable
from phosphene.loops import Loop, Noise
from phosphene.loops import zeromq as loops_zeromq
from phosphene.loops.rig import Mishaps, Rig, answer_zeromq
from phosphene.loops.run import simulate
from phosphene.loops.zeromq import Client, ZeroServer

zmq = pytest.importorskip("zmq")


def served(loop: Loop) -> tuple[ZeroServer, threading.Thread]:
    server = ZeroServer(loop)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    return server, thread


def ended(server: ZeroServer, thread: threading.Thread) -> None:
    thread.join(20)
    assert not thread.is_alive()
    server.close()


@pytest.mark.parametrize("mishaps", [Mishaps(), Mishaps(missing=0.2, failed=0.2, repeated=0.5)])
def test_a_rig_behind_zeromq_ends_with_the_scores_of_python(tmp_path, mishaps):
    climb = CLIMB.changed(steps=3)
    noise = Noise(multiplicative=0.3)
    loop = tiny_loop(tmp_path / "zeromq", climb=climb, tries=50)
    server, thread = served(loop)
    answered = [*answer_zeromq(Rig(brightness, noise, mishaps), server.port, server.token)]
    ended(server, thread)
    assert answered[-1] == "0002"
    if mishaps == Mishaps():
        alone = tiny_loop(tmp_path / "python", climb=climb)
        simulate(alone, brightness, noise)
        assert loop.history == alone.history


def test_another_token_and_what_is_no_message_are_answered(tmp_path):
    loop = tiny_loop(tmp_path, climb=CLIMB.changed(steps=1))
    server, thread = served(loop)
    with (
        pytest.raises(BadRequest, match="the token is another"),
        Client(server.port, "x") as client,
    ):
        client.say({"ask": True})
    token = json.dumps({"token": server.token}).encode()
    with zmq.Context() as context, context.socket(zmq.REQ) as rig:
        rig.connect(f"tcp://127.0.0.1:{server.port}")
        for garbage in (b"", b"\x00\xff", b"[]", b"[" * 100_000, b"{}", token[:-1], b"3"):
            rig.send(garbage)
            assert "error" in json.loads(rig.recv()), garbage
        rig.send_multipart([token[:5], token[5:]])
        assert json.loads(rig.recv()) == {"hello": 1}
        rig.send(json.dumps({"token": server.token, "tell": [["x"]]}).encode())
        assert "a response is [picture, trial" in json.loads(rig.recv())["error"]
    assert loop.blocks == 0
    assert [*answer_zeromq(Rig(brightness), server.port, server.token)] == ["0000"]
    ended(server, thread)


def test_a_message_that_is_too_long_ends_its_rig_and_not_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr(loops_zeromq, "MAX_LINE", 5000)
    monkeypatch.setattr(loops_zeromq, "PATIENCE", 500)
    server, thread = served(tiny_loop(tmp_path, climb=CLIMB.changed(steps=1)))
    with (
        Client(server.port, server.token) as client,
        pytest.raises(Unavailable, match="no loop answers"),
    ):
        client.say({"tell": "x" * 5000})
    assert [*answer_zeromq(Rig(brightness), server.port, server.token)] == ["0000"]
    ended(server, thread)


def test_a_rig_that_goes_in_the_middle_of_a_block_is_followed_by_another(tmp_path):
    loop = tiny_loop(tmp_path / "zeromq", climb=CLIMB.changed(steps=2))
    server, thread = served(loop)
    rows = [[r.picture, r.trial, r.channel, r.value] for r in answers(loop)]
    with zmq.Context() as context:
        rig = context.socket(zmq.REQ)
        rig.connect(f"tcp://127.0.0.1:{server.port}")
        rig.send(json.dumps({"token": server.token, "tell": rows[:4]}).encode())
        rig.poll(5000)
        rig.close(0)  # it never reads the answer
    assert len([*answer_zeromq(Rig(brightness), server.port, server.token)]) == 2
    ended(server, thread)
    assert loop.history == history(tiny_loop(tmp_path / "alone", climb=CLIMB.changed(steps=2)))


def test_a_port_that_is_taken_or_that_nobody_listens_at_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(loops_zeromq, "PATIENCE", 200)
    loop = tiny_loop(tmp_path)
    with ZeroServer(loop) as server:
        with pytest.raises(Unavailable, match=f"cannot listen at 127.0.0.1:{server.port}"):
            ZeroServer(loop, server.port)
        port = server.port
    with pytest.raises(Unavailable, match=f"no loop answers at 127.0.0.1:{port}"):
        next(answer_zeromq(Rig(brightness), port, ""))


def test_only_this_machine_is_listened_to(tmp_path):
    with ZeroServer(tiny_loop(tmp_path)) as server:
        assert server._socket.getsockopt(zmq.LAST_ENDPOINT).startswith(b"tcp://127.0.0.1:")


def test_the_commands_of_a_loop_and_of_a_rig_meet_behind_zeromq(tmp_path):
    command = [sys.executable, "-m", "phosphene"]
    loop = subprocess.Popen(
        [*command, "evolve", "--port", "0", "--zeromq", "--steps", "2", "--population", "4",
         "--optimizer", "genetic", "--out", str(tmp_path), "--json", "--device", "cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    port, token = re.search(r"127.0.0.1:(\d+), token (\w+)", loop.stderr.readline()).groups()
    rig = [*command, "rig", "caffenet-objects", "class:lion", "--zeromq", "--port", port]
    run = subprocess.run([*rig, "--token", "x"], capture_output=True, text=True)
    assert (run.returncode, "the token is another" in run.stderr) == (2, True)
    subprocess.run([*rig, "--token", token], check=True, capture_output=True, timeout=120)
    told, _ = loop.communicate(timeout=120)
    assert json.loads(told)[0]["generations"] == 2

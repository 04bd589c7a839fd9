"""Closed loops: nothing that was told is lost or counted twice, whatever happens to the rig."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from phosphene.errors import (
    BadFile,
    BadRequest,
    Notice,
    OutOfSpace,
    PhospheneError,
    Unavailable,
)
from phosphene.images import read_png
from phosphene.loops import Interleaved, Loop, Noise, Readout, Response
from phosphene.loops.folder import serve_folder, take_responses
from phosphene.loops.responses import read_responses
from phosphene.loops.rig import Mishaps, Rig, answer_folder, answer_socket
from phosphene.loops.run import check_channels, simulate
from phosphene.loops.server import LoopServer
from phosphene.loops.session import NAME, Session
from phosphene.loops.simulated import load_neuron, responses
from phosphene.loops.trials import rises, without_drift
from phosphene.priors import load_prior
from phosphene.synthesis import Climb
from phosphene.tensors import recoloured
from phosphene.testing import tiny_generated

CLIMB = Climb.of(optimizer="evolution", constraint="none", decay=1.0, steps=6, population=6)


def tiny_loop(folder: Path, **how) -> Loop:
    return Loop(tiny_generated(), how.pop("climb", CLIMB), folder, **how)


def brightness(images):
    """A neuron that answers how red a picture is, and how green."""
    return images.mean((2, 3))[:, :2].double().numpy()


def answers(loop):
    generation = loop.ask()
    return responses(brightness, generation.wanted, generation.order, Noise(), loop.seed)[0]


def log_of(folder: Path) -> list[dict]:
    """The events of a log, without what a clock made."""
    session = Session(folder)
    session.close()
    return [{key: event[key] for key in event.keys() - {"time"}} for event in session.events]


def test_a_search_finds_what_a_neuron_prefers(tmp_path):
    climb = CLIMB.changed(steps=30, population=20)
    loop = tiny_loop(tmp_path, climb=climb)
    outcome = simulate(loop, brightness, Noise())
    assert outcome.pictures == 600
    with torch.no_grad():
        drawn = loop.prior.images(torch.stack([loop.prior.start(seed) for seed in range(6000)]))
    assert outcome.preferred > brightness(drawn)[:, 0].max()


def test_a_loop_goes_on_from_its_log_with_the_same_bits(tmp_path):
    whole = tiny_loop(tmp_path / "whole")
    while not whole.is_over:
        whole.tell(answers(whole))
    for _ in range(6):
        loop = tiny_loop(tmp_path / "parts")
        first = loop.ask()
        loop.session.close()  # the process ends after it asked
        loop = tiny_loop(tmp_path / "parts")
        again = loop.ask()
        assert torch.equal(first.images, again.images)
        assert first.order == again.order
        loop.tell(answers(loop))
        loop.session.close()
    loop = tiny_loop(tmp_path / "parts")
    assert loop.is_over
    assert torch.equal(loop.preferred()[1], whole.preferred()[1])
    whole.session.close()
    loop.session.close()
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


def test_another_setting_is_refused_and_the_log_stays(tmp_path):
    loop = tiny_loop(tmp_path)
    loop.session.close()
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(BadRequest, match="started with another seed"):
        tiny_loop(tmp_path, seed=1)
    assert (tmp_path / NAME).read_bytes() == before


def test_two_processes_cannot_hold_one_log(tmp_path):
    loop = tiny_loop(tmp_path)
    with pytest.raises(BadRequest, match="in use by another process"):
        tiny_loop(tmp_path)
    loop.session.close()
    tiny_loop(tmp_path)


def test_each_picture_is_shown_as_often_as_wanted_in_a_fixed_order(tmp_path):
    shown = torch.rand(2, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    how = {"repeats": 3, "blanks": 4, "references": shown}
    orders = []
    for name in ("a", "b"):
        generation = tiny_loop(tmp_path / name, **how).ask()
        orders.append(generation.order)
        counts = {name: sum(each.picture == name for each in generation.order)
                  for name in generation.ids}  # fmt: skip
        assert counts == {**dict.fromkeys(generation.ids, 3), "blank": 4}
        passes = [each.picture for each in generation.order if each.picture != "blank"]
        assert sorted(passes[:8]) == sorted(passes[8:16]) == sorted(passes[16:])
    assert orders[0] == orders[1]
    assert tiny_loop(tmp_path / "c", seed=1, **how).ask().order != orders[0]


def test_a_picture_without_a_response_is_shown_again(tmp_path):
    loop = tiny_loop(tmp_path)
    generation = loop.ask()
    lost = {generation.ids[1], generation.ids[4]}
    told = loop.tell([each for each in answers(loop) if each.picture not in lost])
    assert not told.complete
    again = loop.ask()
    assert again.number == 0
    assert {each.picture for each in again.order} == lost
    assert {each.trial for each in again.order} == {1}
    assert loop.tell(answers(loop)).complete
    assert loop.ask().number == 1


def test_a_trial_that_failed_is_shown_again_and_counts_for_nothing(tmp_path):
    loop = tiny_loop(tmp_path)
    rows = answers(loop)
    first = rows[0].picture
    failed = [
        Response(r.picture, r.trial, r.channel, math.nan if r.picture == first else r.value)
        for r in rows
    ]
    told = loop.tell(failed)
    assert (told.failed, told.complete) == (2, False)
    assert [each.picture for each in loop.ask().order] == [first]
    assert loop.tell(answers(loop)).complete
    clean = tiny_loop(tmp_path / "clean")
    clean.tell(answers(clean))
    assert loop.history == clean.history


def test_a_map_and_an_array_answer_what_was_asked_last(tmp_path):
    """Also where pictures are shown again, whose trials have higher numbers."""
    loop = tiny_loop(tmp_path)
    lost = loop.ask().ids[2]
    loop.tell({name: math.nan if name == lost else 1.0 for name in loop.own_ids})
    loop.ask()
    assert loop.tell({lost: 7.0}).complete
    assert loop.history[0][2] == 7
    rows = answers(loop)
    loop.tell(rows[:4], done=False)
    assert len(loop.ask().order) == 4
    assert loop.tell(np.arange(4.0)).complete


@pytest.mark.parametrize(
    "given", [{1: 2.0}, [Response("a", "0", "0", 1.0)], [Response("a", 0, "0", "x")]]
)
def test_a_response_of_wrong_types_is_refused(tmp_path, given):
    loop = tiny_loop(tmp_path)
    loop.ask()
    with pytest.raises(BadRequest, match="a response is"):
        loop.tell(given)


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        (lambda loop, folder: loop.ask().pixels("9999-000"), "no picture '9999-000' here; near"),
        (lambda loop, folder: Readout.of(3), "a readout is a text such as 'channel:3'; got an int"),
        (lambda loop, folder: tiny_loop(folder / "b", readout="channel:0"), "got a str"),
        (lambda loop, folder: tiny_loop(None), "a loop's folder is a path; got None"),
    ],
)
def test_a_slip_is_one_line(tmp_path, slip, said):
    loop = tiny_loop(tmp_path / "a")
    with pytest.raises(PhospheneError, match=said):
        slip(loop, tmp_path)


def test_it_goes_on_without_a_picture_that_never_answers(tmp_path):
    loop = tiny_loop(tmp_path, tries=2)
    lost = loop.ask().ids[2]
    rows = [each for each in answers(loop) if each.picture != lost]
    assert not loop.tell(rows).complete
    assert [each.picture for each in loop.ask().order] == [lost]
    with pytest.warns(Notice, match="1 pictures lack responses after 2 blocks"):
        assert loop.tell([]).complete
    (scores,) = loop.history
    assert scores[2] == pytest.approx(np.mean(scores[:2] + scores[3:]))


def test_pictures_are_as_a_stimulus_must_be(tmp_path):
    loop = tiny_loop(tmp_path, climb=CLIMB.changed(contrast=0.1, luminance=0.5, aperture=0.8))
    luminance = recoloured(loop.ask().images, 1)
    assert torch.allclose(luminance.mean((1, 2, 3)), torch.tensor(0.5), atol=0.003)
    assert torch.allclose(luminance.std((1, 2, 3), correction=0), torch.tensor(0.1), atol=0.003)
    assert torch.allclose(luminance[:, :, 0, 0], torch.tensor(0.5), atol=0.003)


def test_what_is_told_twice_counts_once(tmp_path):
    loop = tiny_loop(tmp_path)
    rows = answers(loop)
    half = rows[: len(rows) // 2]
    assert loop.tell(half, done=False).counted == len(half)
    told = loop.tell(half, done=False)
    assert (told.counted, told.repeated) == (0, len(half))
    other = [Response(half[0].picture, 0, half[0].channel, 99.0)]
    with pytest.warns(Notice, match="99 is left out"):
        loop.tell(other, done=False)
    loop.tell(rows)
    clean = tiny_loop(tmp_path / "clean")
    clean.tell(answers(clean))
    assert loop.history == clean.history


def test_late_and_unknown_responses_are_not_counted(tmp_path):
    loop = tiny_loop(tmp_path)
    first = answers(loop)
    loop.tell(first)
    second = answers(loop)
    late = [Response(first[0].picture, 7, "0", 1e6)]
    assert loop.tell(late, done=False).late == 1
    with pytest.warns(Notice, match="1 responses are to presentations that never were, such as 'x"):
        told = loop.tell([*second, Response("x", 0, "0", 1e6)])
    assert told.complete
    assert max(map(max, loop.history)) < 1e3


def test_responses_in_any_order_and_in_pieces_are_the_same(tmp_path):
    whole = tiny_loop(tmp_path / "whole", repeats=2)
    pieces = tiny_loop(tmp_path / "pieces", repeats=2)
    rng = random.Random(0)
    for _ in range(3):
        rows = answers(whole)
        whole.tell(rows)
        pieces.ask()
        rng.shuffle(rows)
        for row in rows:
            pieces.tell([row], done=False)
    assert whole.history == pieces.history


def test_a_channel_that_dies_is_left_out_with_a_line(tmp_path):
    loop = tiny_loop(tmp_path, readout=Readout.of("channel:0 + channel:1"))
    rows = [
        Response(r.picture, r.trial, r.channel, math.nan if r.channel == "1" else r.value)
        for r in answers(loop)
    ]
    with pytest.warns(Notice, match="generation 0: channel 1 gave no response"):
        assert loop.tell(rows).complete
    alone = tiny_loop(tmp_path / "alone")
    alone.tell(answers(alone))
    assert loop.history == alone.history


@pytest.mark.parametrize("text", ["channel:7", "channel:0 + channel:7"])
def test_a_channel_that_no_response_is_of_is_told(tmp_path, text):
    loop = tiny_loop(tmp_path, readout=Readout.of(text))
    with pytest.warns(Notice, match="in channel 0, 1; the readout waits for channel 7"):
        loop.tell(answers(loop), done=False)


def test_a_block_is_over_when_each_presentation_has_a_response_or_failed(tmp_path):
    """Also where the rig does not say that it is done."""
    loop = tiny_loop(tmp_path, tries=2)
    for block in range(2):
        rows = [Response(r.picture, r.trial, r.channel, r.value if r.picture[-1] in "012" else
                         math.nan) for r in answers(loop)]  # fmt: skip
        assert {each.trial for each in rows} == {block}
        if block == 1:
            break
        loop.tell(rows, done=False)
    with pytest.warns(Notice, match="3 pictures lack responses after 2 blocks"):
        assert loop.tell(rows, done=False).complete


def test_a_plateau_is_of_as_many_generations_as_the_test_needs(tmp_path):
    assert not rises([1, 2, 3])
    assert rises([1, 2, 3, 4])
    with pytest.raises(BadRequest, match="fewer than 4 generations"):
        tiny_loop(tmp_path, plateau=3)


def test_evolution_refuses_a_prior_without_a_gradient(tmp_path, monkeypatch):
    prior = tiny_generated()
    images = prior.images
    monkeypatch.setattr(type(prior), "images", lambda self, codes: images(codes).detach())
    with pytest.raises(BadRequest, match="needs a prior with a gradient; take cma-es"):
        Loop(prior, CLIMB, tmp_path)


@pytest.mark.parametrize(
    ("references", "words"),
    [
        (torch.zeros(2, 3, 9, 9), r"as the prior's pictures; got \[2, 3, 9, 9\]"),
        (torch.zeros(0, 3, 14, 14), r"as the prior's pictures; got \[0, 3, 14, 14\]"),
        (torch.zeros(3, 14, 14), r"as the prior's pictures; got \[3, 14, 14\]"),
        (torch.full((2, 3, 14, 14), math.nan), "in 0 … 1; got nan … nan"),
        (torch.full((2, 3, 14, 14), 128.0), "in 0 … 1; got 128 … 128"),
        (torch.zeros(2, 3, 14, 14, dtype=torch.uint8), "of floats; got a Tensor"),
        (np.zeros((2, 3, 14, 14)), "of floats; got a ndarray"),
    ],
)
def test_references_that_are_none_are_refused(tmp_path, references, words):
    with pytest.raises(BadRequest, match=rf"references are a tensor \(n, 3, 14, 14\).*{words}"):
        tiny_loop(tmp_path, references=references)


def test_pictures_that_are_shown_again_are_mixed_anew(tmp_path):
    """The order is drawn from the seed for each block, and never that of the ids."""
    orders = []
    for name in ("a", "b"):
        loop = tiny_loop(tmp_path / name, climb=CLIMB.changed(population=30), tries=4)
        for _ in range(3):
            loop.ask()
            loop.tell([])
            orders.append([each.picture for each in loop.ask().order])
    assert orders[:3] == orders[3:]
    assert len({tuple(each) for each in orders[:3]}) == 3
    assert [*loop.ids] not in orders
    assert all(sorted(each) == sorted(loop.ids) for each in orders)


@pytest.mark.parametrize("name", ["9", "A"])
def test_a_channel_that_a_simulated_neuron_lacks_is_refused_at_once(name):
    with pytest.raises(BadRequest, match=f"no channel {name}; there are: 0, 1"):
        check_channels(brightness, Readout.of(f"channel:0 + channel:{name}"), tiny_generated())
    check_channels(brightness, Readout.of("channel:0 - channel:1"), tiny_generated())


@pytest.mark.parametrize("name", ["pixels", "fourier"])
def test_a_prior_that_has_the_size_of_a_network_needs_one(name):
    with pytest.raises(BadRequest, match=f"prior {name} has the size of a network"):
        load_prior(name, None)


def test_no_response_at_all_is_told(tmp_path):
    loop = tiny_loop(tmp_path, tries=1)
    rows = [Response(r.picture, r.trial, r.channel, math.nan) for r in answers(loop)]
    words = "6 pictures lack responses after 1 blocks, and none has one of channel 0; mend it"
    with pytest.raises(BadRequest, match=words):
        loop.tell(rows)
    loop.session.close()
    loop = tiny_loop(tmp_path, tries=1)  # the channel lives again after the electrode was mended
    assert sorted(each.picture for each in loop.ask().order) == sorted(loop.own_ids)
    assert loop.tell(answers(loop)).complete


def test_a_simulated_neuron_that_answers_nan_alone_is_refused(tmp_path):
    with pytest.raises(BadRequest, match="answers each picture with NaN"):
        simulate(tiny_loop(tmp_path), lambda images: np.full((len(images), 1), np.nan), Noise())


def test_what_is_lacking_is_told_in_one_line(tmp_path):
    loop = tiny_loop(tmp_path)
    rows = [each for each in answers(loop) if each.channel == "0"]
    rows[0] = Response(rows[0].picture, 0, "0", math.nan)
    words = "generation 0: 2 pictures lack responses, 1 trials failed; they are shown again"
    with pytest.warns(Notice, match=words):
        loop.tell(rows[:-1])


def test_a_late_response_is_told_and_kept_once(tmp_path):
    """A rig's file is read again at each change of the folder."""
    loop = tiny_loop(tmp_path)
    first = loop.ask().ids[0]
    loop.tell(answers(loop))
    rows = answers(loop)
    late = Response(first, 7, "0", 1.0)
    with pytest.warns(Notice, match=f"1 responses are late, such as to {first}"):
        assert loop.tell([late, late], done=False).late == 1
    assert loop.tell([late, *rows[:1]], done=False).late == 0
    loop.session.close()
    loop = tiny_loop(tmp_path)
    assert loop.tell([late], done=False).repeated == 1
    loop.session.close()
    kept = [row for event in log_of(tmp_path) for row in event.get("late", ())]
    assert kept == [[first, 7, "0", 1.0]]


def test_a_drift_is_corrected_by_the_references(tmp_path):
    """A gain that falls by a fifth in each generation changes no score."""
    shown = torch.full((3, 3, 14, 14), 0.5)
    steady = tiny_loop(tmp_path / "steady", references=shown, drift="gain")
    drifting = tiny_loop(tmp_path / "drifting", references=shown, drift="gain")
    for number in range(4):
        steady.tell(answers(steady))
        rows = answers(drifting)
        gain = 0.8**number
        drifting.tell([Response(r.picture, r.trial, r.channel, gain * r.value) for r in rows])
    assert np.allclose(steady.history, drifting.history, rtol=1e-9)


@pytest.mark.parametrize(
    ("drift", "now", "first", "wanted"),
    [("gain", 4.0, 2.0, 5.0), ("offset", 4.0, 2.0, 8.0), ("none", 4.0, 2.0, 10.0),
     ("gain", 0.0, 2.0, 10.0), ("gain", None, 2.0, 10.0)],
)  # fmt: skip
def test_a_response_without_drift(drift, now, first, wanted):
    assert without_drift(10.0, drift, now, first) == wanted


def test_a_series_rises_as_the_published_test_says():
    """Of five different values all 120 orders are as likely; S = 10 and 8 lie in the upper 5 %."""
    assert rises([1, 2, 3, 4, 5])
    assert rises([1, 2, 3, 5, 4])
    assert not rises([2, 1, 3, 5, 4])
    assert not rises([5, 4, 3, 2, 1])
    assert not rises([1, 1, 1, 1, 1])


def test_it_stops_at_a_plateau(tmp_path):
    loop = tiny_loop(tmp_path, climb=CLIMB.changed(steps=50), plateau=5)
    while not loop.is_over:
        loop.tell([Response(r.picture, r.trial, r.channel, 1.0) for r in answers(loop)])
    assert loop.number == 5


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("channel:3", {"3": 1.0}),
        ("A7", {"A7": 1.0}),
        ("-1*channel:3", {"3": -1.0}),
        ('channel:"A 7" - 0.5*channel:2', {"A 7": 1.0, "2": -0.5}),
    ],
)
def test_a_readout_is_written_as_units_are(text, weights):
    assert Readout.of(text).weights == weights


def test_a_sum_without_spaces_is_refused():
    with pytest.raises(BadRequest, match="a sum has spaces"):
        Readout.of("channel:0+channel:1")


@pytest.mark.parametrize("text", ["", "fc8:3", "channel:3@2,2", 'channel:""'])
def test_a_readout_is_of_channels_alone(text):
    with pytest.raises(BadRequest, match="a readout is of channels, such as channel:3"):
        Readout.of(text)


def test_a_pattern_is_the_angle_between_population_vectors():
    readout = Readout({"a": 3.0, "b": 4.0}, pattern=True)
    assert readout({"a": 6.0, "b": 8.0}) == pytest.approx(1)
    assert readout({"a": -4.0, "b": 3.0}) == pytest.approx(0)
    assert readout({"a": 0.0, "b": 0.0}) == 0


def test_a_line_that_was_not_finished_is_cut_off(tmp_path):
    loop = tiny_loop(tmp_path)
    loop.tell(answers(loop))
    loop.session.close()
    file = tmp_path / NAME
    whole = file.read_bytes()
    events = log_of(tmp_path)
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in (last + 1, last + 20, len(whole) - 1):
        file.write_bytes(whole[:cut])
        assert log_of(tmp_path) == events[:-1]
        loop = tiny_loop(tmp_path)  # the responses are there, so their scores are made again
        loop.session.close()
        assert log_of(tmp_path) == events


def test_a_line_that_was_changed_is_refused(tmp_path):
    loop = tiny_loop(tmp_path)
    loop.tell(answers(loop))
    loop.session.close()
    file = tmp_path / NAME
    lines = file.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"0.", b"1.", 1)
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(BadFile, match="line 3 is damaged"):
        tiny_loop(tmp_path)


def test_a_line_that_was_removed_is_refused(tmp_path):
    loop = tiny_loop(tmp_path)
    for _ in range(2):
        loop.tell(answers(loop))
    loop.session.close()
    file = tmp_path / NAME
    lines = file.read_bytes().split(b"\n")
    assert b'"scored"' in lines[3]
    file.write_bytes(b"\n".join(lines[:3] + lines[4:]))
    with pytest.raises(BadFile, match="lines were removed"):
        tiny_loop(tmp_path)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_loops import *
loop = tiny_loop(Path(sys.argv[1]), repeats=2)
while not loop.is_over:
    rows = [row for row in answers(loop) if row.channel == "0"]
    for at in range(0, len(rows), 5):
        loop.tell(rows[at : at + 5], done=False)
print("over")
"""


def test_a_loop_that_is_killed_at_random_moments_ends_with_the_same_log(tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", script]
    begun = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    took = time.monotonic() - begun
    rng = random.Random(0)
    kills = 0
    lines = 0
    while kills < 12:
        child = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
        try:
            child.wait(rng.uniform(0.3, 1) * took if kills % 3 else rng.uniform(0, took))
            break
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
        log = tmp_path / "killed" / NAME
        now = log.read_bytes().count(b"\n") if log.exists() else 0
        assert now >= lines
        lines = now
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    scored = [
        [event for event in log_of(tmp_path / name) if event["event"] in ("shown", "scored")]
        for name in ("whole", "killed")
    ]
    assert scored[0] == scored[1]
    for name in ("whole", "killed"):
        told = [
            tuple(row[:3])
            for event in log_of(tmp_path / name)
            if event["event"] == "responses"
            for row in event["responses"]
        ]
        assert len(told) == len(set(told)) == 6 * 6 * 2


def rig(folder: Path, script, *, suffix="csv", wholes=True):
    """Serve a folder in this thread while a rig answers in another; return the loop."""
    loop = tiny_loop(folder / "log", climb=CLIMB.changed(steps=3))
    answered = []

    def run(block: Path) -> None:
        manifest = json.loads((block / "manifest.json").read_text())
        rows = []
        for picture, trial in manifest["order"]:
            pixels = read_png(block / manifest["pictures"][picture]["file"])
            value = pixels[..., 0].mean() / 255
            rows.append({"picture": picture, "trial": trial, "channel": 0, "value": value})
        script(folder, manifest["responses"], rows)
        answered.append(len(rows))

    for generation in serve_folder(loop, folder):
        block = folder / f"block-{generation.number:04}-{loop.blocks - 1:02}"
        threading.Thread(target=run, args=(block,)).start()
    return loop, answered


def as_csv(rows) -> str:
    lines = ["picture,trial,channel,value"]
    lines += [f"{r['picture']},{r['trial']},{r['channel']},{r['value']}" for r in rows]
    return "\n".join(lines) + "\n"


def at_once(folder, name, rows):
    (folder / f"{name}.csv").write_text(as_csv(rows))


def test_a_rig_answers_through_a_folder(tmp_path):
    loop, answered = rig(tmp_path, at_once)
    assert (loop.number, answered) == (3, [6, 6, 6])


def test_a_rig_that_writes_slowly_loses_nothing(tmp_path):
    """It writes letter by letter into the very file, with pauses, as no rig should."""

    def slowly(folder, name, rows):
        with open(folder / f"{name}.csv", "w") as file:
            for at in range(0, len(as_csv(rows)), 37):
                file.write(as_csv(rows)[at : at + 37])
                file.flush()
                time.sleep(0.01)

    loop, _ = rig(tmp_path, slowly)
    assert loop.number == 3
    quick, _ = rig(
        tmp_path / "quick",
        lambda folder, name, rows: (folder / f"{name}.csv").write_text(as_csv(rows)),
    )
    assert loop.history == quick.history


def test_a_rig_that_drops_trials_says_that_the_block_is_over(tmp_path):
    def dropping(folder, name, rows):
        kept = rows[:-2] if name.endswith("-00") else rows
        (folder / f"{name}.json").write_text(json.dumps(kept))
        (folder / f"{name}.done").touch()

    loop, answered = rig(tmp_path, dropping)
    assert (loop.number, answered) == (3, [6, 2, 6, 2, 6, 2])


def test_the_rig_of_the_page_answers(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "closed-loop.md").read_text(encoding="utf-8")
    source = page.partition("<!-- file: my_rig.py -->\n```python\n")[2].partition("```")[0]
    names = {"__name__": "my_rig"}
    exec(compile(source, "my_rig.py", "exec"), names)
    readout = Readout.of("channel:3")
    loop = tiny_loop(tmp_path / "log", climb=CLIMB.changed(steps=3), readout=readout)
    for generation in serve_folder(loop, tmp_path / "exchange"):
        names["answer"](tmp_path / "exchange" / f"block-{generation.number:04}-00")
    assert loop.number == 3


def test_the_socket_rig_of_the_page_answers(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "own-rig.md").read_text(encoding="utf-8")
    source = page.partition("<!-- file: my_socket_rig.py -->\n```python\n")[2].partition("```")[0]
    names = {"__name__": "my_socket_rig"}
    exec(compile(source, "my_socket_rig.py", "exec"), names)
    loop = tiny_loop(tmp_path, climb=CLIMB.changed(steps=3), readout=Readout.of("channel:3"))
    server, thread = served(loop)
    names["run"](server.port, server.token)
    thread.join(10)
    server.server_close()
    assert loop.number == 3


def test_a_last_line_without_an_end_counts_when_the_rig_is_done(tmp_path):
    def unended(folder, name, rows):
        (folder / f"{name}.csv").write_text(as_csv(rows).rstrip("\n"))
        (folder / f"{name}.done").touch()

    loop, answered = rig(tmp_path, unended)
    assert (loop.number, answered) == (3, [6, 6, 6])


def test_a_last_line_without_an_end_is_told_once_nobody_writes_on(tmp_path):
    folder = tmp_path / "exchange"
    loop = tiny_loop(tmp_path / "log")
    block = next(serve_folder(loop, folder))
    rows = [{"picture": p, "trial": t, "channel": 0, "value": 1.0} for p, t in block.order]
    file = folder / "responses-0000-00.csv"
    file.write_text(as_csv(rows).rstrip("\n"))
    os.utime(file, (0, 0))
    with pytest.warns(Notice, match="last line has no end"):
        assert not take_responses(loop, folder, "0000-00")
    assert len(loop.ask().order) == 1


def test_a_file_to_an_earlier_block_of_the_generation_counts(tmp_path):
    folder = tmp_path / "exchange"
    loop = tiny_loop(tmp_path / "log")
    blocks = serve_folder(loop, folder, lambda place: iter(range(3)))
    first = next(blocks)
    (folder / "responses-0000-00.done").touch()
    assert sorted(next(blocks).order) == sorted((name, 1) for name, _ in first.order)
    rows = [{"picture": p, "trial": t, "channel": 0, "value": 1.0} for p, t in first.order]
    (folder / "responses-0000-00.csv").write_text(as_csv(rows))
    assert next(blocks).number == 1


def test_files_of_another_search_are_refused(tmp_path):
    """The same names would say responses to other pictures."""
    folder = tmp_path / "exchange"
    next(serve_folder(tiny_loop(tmp_path / "first"), folder))
    with pytest.raises(BadRequest, match="files of another search, such as block-0000-00"):
        next(serve_folder(tiny_loop(tmp_path / "second"), folder))
    other = tiny_loop(tmp_path / "third")
    other.ask()
    with pytest.raises(BadRequest, match="block-0000-00 is of another search"):
        next(serve_folder(other, folder))


def test_responses_that_were_there_before_their_block_are_set_aside(tmp_path):
    folder = tmp_path / "exchange"
    loop = tiny_loop(tmp_path / "log")
    blocks = serve_folder(loop, folder, lambda place: iter(range(3)))
    rows = [{"picture": p, "trial": t, "channel": 0, "value": 1.0} for p, t in next(blocks).order]
    (folder / "responses-0000-00.csv").write_text(as_csv(rows))
    (folder / "responses-0001-00.csv").write_text("picture,value\n0001-000,9\n")
    with pytest.warns(Notice, match="was there before its block"):
        assert len(next(blocks).order) == 6
    assert not take_responses(loop, folder, "0001-00")
    assert len(loop.ask().order) == 6
    assert (folder / "early-0001-00.csv").exists()


def test_answers_to_a_block_that_was_shown_and_removed_count(tmp_path):
    """The rig had seen it, so nothing was early."""
    folder = tmp_path / "exchange"
    loop = tiny_loop(tmp_path / "log")
    first = next(serve_folder(loop, folder))
    loop.session.close()
    rows = [{"picture": p, "trial": t, "channel": 0, "value": 1.0} for p, t in first.order]
    (folder / "responses-0000-00.csv").write_text(as_csv(rows))
    shutil.rmtree(folder / "block-0000-00")
    blocks = serve_folder(tiny_loop(tmp_path / "log"), folder, lambda place: iter(range(3)))
    assert next(blocks).number == 0
    assert next(blocks).number == 1


def test_a_folder_in_the_way_of_a_block_is_told(tmp_path):
    (tmp_path / "exchange" / "block-0000-00").mkdir(parents=True)
    (tmp_path / "exchange" / "block-0000-00" / "x").touch()
    loop = tiny_loop(tmp_path / "log")
    loop.ask()
    with pytest.raises(BadRequest, match="block-0000-00 is in the way and has no manifest"):
        next(serve_folder(loop, tmp_path / "exchange"))
    assert sorted(each.name for each in (tmp_path / "exchange").iterdir()) == ["block-0000-00"]


def to_zeros(file):
    file.symlink_to("/dev/zero")


def to_itself(file):
    file.symlink_to(file.name)


def of_a_gigabyte(file):
    with open(file, "wb") as target:
        target.truncate(1 << 30)


def of_noise(file):
    file.write_bytes(np.random.default_rng(0).bytes(100_000))


def nested(file):
    file.write_text("[" * 200_000)


@pytest.mark.skipif(os.name == "nt", reason="no such files there")
@pytest.mark.parametrize(
    ("make", "suffix"),
    [(to_zeros, "csv"), (to_zeros, "json"), (to_itself, "csv"), (os.mkfifo, "csv"),
     (os.mkfifo, "h5"), (os.mkdir, "csv"), (os.mkdir, "mat"), (of_a_gigabyte, "csv"),
     (of_a_gigabyte, "mat"), (of_noise, "csv"), (of_noise, "json"), (of_noise, "mat"),
     (of_noise, "h5"), (nested, "json")],
)  # fmt: skip
def test_a_hostile_file_loses_nothing_and_ends_nothing(tmp_path, make, suffix):
    """It is told, where it is there at all, and the responses of another file count."""
    folder = tmp_path / "exchange"
    loop = tiny_loop(tmp_path / "log")
    generation = next(serve_folder(loop, folder))
    file = folder / f"responses-0000-00.{suffix}"
    make(file)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert not take_responses(loop, folder, "0000-00")
    assert (len(told) == 1) == file.exists()
    other = folder / ("responses-0000-00.json" if suffix == "csv" else "responses-0000-00.csv")
    rows = [{"picture": p, "trial": t, "channel": 0, "value": 1.0} for p, t in generation.order]
    other.write_text(json.dumps(rows) if other.suffix == ".json" else as_csv(rows))
    assert take_responses(loop, folder, "0000-00")
    assert loop.number == 1


def test_a_matlab_file_that_would_fill_the_memory_is_refused(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    file = tmp_path / "responses.mat"
    columns = {"picture": np.zeros(40_000_000, np.uint8), "value": np.zeros(3)}
    savemat(file, columns, do_compression=True)
    assert file.stat().st_size < 100_000
    with pytest.raises(BadFile, match="picture has 40,000,000 numbers"):
        read_responses(file)


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path, monkeypatch):
    times = iter(range(2_000_000_000, 0, -100_000))
    monkeypatch.setattr(time, "time", lambda: float(next(times)))
    folder = tmp_path / "exchange"
    climb = CLIMB.changed(steps=3)
    answering = answer_folder(Rig(brightness), folder)
    thread = threading.Thread(target=lambda: [*answering], daemon=True)
    thread.start()
    for _ in range(3):  # each process sees an earlier time than the last
        loop = tiny_loop(tmp_path / "log", climb=climb)
        for generation in serve_folder(loop, folder):
            if generation.number == 1:
                break
        loop.session.close()
    loop = tiny_loop(tmp_path / "log", climb=climb)
    for _ in serve_folder(loop, folder):
        pass
    thread.join(10)
    assert loop.history == history(tiny_loop(tmp_path / "alone", climb=climb))


def test_a_folder_that_goes_ends_the_command_and_not_the_search(tmp_path):
    folder = tmp_path / "exchange"
    loop = tiny_loop(tmp_path / "log")
    blocks = serve_folder(loop, folder, lambda place: iter(range(3)))
    first = next(blocks)
    shutil.rmtree(folder)
    with pytest.raises(Unavailable, match="has gone"):
        next(blocks)
    assert next(serve_folder(loop, folder)).order == first.order


def test_a_broken_file_does_not_end_its_block(tmp_path):
    folder = tmp_path / "exchange"
    loop = tiny_loop(tmp_path / "log")
    next(serve_folder(loop, folder))
    (folder / "responses-0000-00.json").write_text("[{")
    (folder / "responses-0000-00.done").touch()
    with pytest.warns(Notice, match="waiting for a whole one"):
        assert not take_responses(loop, folder, "0000-00")
    assert loop.blocks == 1


def test_a_rig_whose_file_is_broken_is_told(tmp_path):
    def broken(folder, name, rows):
        (folder / f"{name}.json").write_text("[{")
        time.sleep(0.05)
        (folder / f"{name}.json").write_text(json.dumps(rows))

    with pytest.warns(Notice, match="cannot be read.*waiting for a whole one"):
        loop, _ = rig(tmp_path, broken)
    assert loop.number == 3


ROWS = [
    Response("0000-000", 0, "0", 1.5),
    Response("0000-001", 1, "A7", math.nan),
]


@pytest.mark.parametrize("suffix", ["csv", "json", "mat", "h5"])
def test_each_form_of_response_file_says_the_same(tmp_path, suffix):
    file = tmp_path / f"responses.{suffix}"
    columns = {
        "picture": [each.picture for each in ROWS],
        "trial": [each.trial for each in ROWS],
        "channel": [each.channel for each in ROWS],
        "value": [each.value for each in ROWS],
    }
    if suffix == "csv":
        file.write_text("picture,trial,channel,value\n0000-000,0,0,1.5\n0000-001,1,A7,\n")
    elif suffix == "json":
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        file.write_text(json.dumps(rows))
    elif suffix == "mat":
        savemat = pytest.importorskip("scipy.io").savemat
        savemat(file, {**columns, "picture": np.array(columns["picture"], dtype=object)})
    else:
        with pytest.importorskip("h5py").File(file, "w") as target:
            for name, values in columns.items():
                target[name] = values
    assert list(map(repr, read_responses(file))) == list(map(repr, ROWS))


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfpicture,trial,channel,value\r\n0000-000,0,0,1.5\r\n0000-001,1,A7,\r\n",
        b"picture;trial;channel;value\n0000-000;0;0;1,5\n0000-001;1;A7;NaN\n",
        b"picture\ttrial\tchannel\tvalue\r0000-000\t0\t0\t1.5\r0000-001\t1\tA7\tNA\r",
        b'"picture","trial","channel","value"\n"0000-000","0","0.0","1.5"\n"0000-001",1.0,A7,NA\n',
        b"picture , trial , channel , value\n0000-000, 0, 0, 1.5\n0000-001, 1, A7, nan\n",
        "value,channel,trial,picture\n1.5,0,0,0000-000\n,A7,1,0000-001\n".encode("utf-16"),
    ],
)
def test_the_csv_files_of_other_programs_say_the_same(tmp_path, content):
    (tmp_path / "responses.csv").write_bytes(content)
    assert list(map(repr, read_responses(tmp_path / "responses.csv"))) == list(map(repr, ROWS))


def test_a_file_of_matlab_7_3_says_the_same(tmp_path):
    """It is HDF5 behind a header of 512 bytes; texts in a cell are references to their letters."""
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("scipy")
    file = tmp_path / "responses.mat"
    with h5py.File(file, "w", userblock_size=512) as target:
        for name in ("picture", "channel"):
            texts = [getattr(each, name) for each in ROWS]
            for i, text in enumerate(texts):
                letters = np.array([[ord(letter)] for letter in text], dtype=np.uint16)
                target[f"#refs#/{name}{i}"] = letters
            cells = [[target[f"#refs#/{name}{i}"].ref for i in range(len(texts))]]
            target[name] = np.array(cells, dtype=h5py.ref_dtype)
        target["trial"] = np.array([[float(each.trial) for each in ROWS]])
        target["value"] = np.array([[each.value for each in ROWS]])
    head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    file.write_bytes(head + file.read_bytes()[len(head) :])
    assert list(map(repr, read_responses(file))) == list(map(repr, ROWS))


def test_the_last_line_counts_when_it_has_its_end_or_the_rig_is_done(tmp_path):
    """A number that is still being written is not taken for a smaller one."""
    (tmp_path / "responses.csv").write_text("picture,value\na,1\nb,12")
    assert [each.value for each in read_responses(tmp_path / "responses.csv")] == [1]
    whole = read_responses(tmp_path / "responses.csv", whole=True)
    assert [each.value for each in whole] == [1, 12]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,value\na,1\n", "its columns are image, value, not"),
        ("picture,value\na,b\n", "could not convert"),
        ("picture,value\na,1,2\n", "another number of columns"),
        ("picture,trial,value\na,0.5,2\n", "trial 0.5 is no whole number"),
        ("picture,trial,value\na,nan,2\n", "trial nan is no whole number"),
        ("picture,trial,value\na,-1,2\n", "trials are numbered 0 … 10,000; got -1"),
        ("picture,value\na,-inf\n", "the response is infinite"),
    ],
)
def test_a_file_that_is_none_of_responses_is_told(tmp_path, text, words):
    (tmp_path / "responses.csv").write_text(text)
    with pytest.raises(BadFile, match=words):
        read_responses(tmp_path / "responses.csv")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"x": [1.0]}, "it has no picture"),
        ({"picture": ["a"], "trial": [0]}, "it has no value"),
        ({"picture": ["a", "b"], "value": [1.0]}, "differ in length: 2 of picture, 1 of value"),
        ({"picture": ["a", "a"], "value": [1.0, 2.0]}, "two values for a"),
    ],
)
def test_columns_that_are_not_all_there_are_told(tmp_path, columns, words):
    """Without its column of trials, a file would say all values of the first trial."""
    with pytest.importorskip("h5py").File(tmp_path / "responses.h5", "w") as target:
        for name, values in columns.items():
            target[name] = values
    with pytest.raises(BadFile, match=words):
        read_responses(tmp_path / "responses.h5")


def test_an_object_without_a_value_is_no_failed_trial(tmp_path):
    (tmp_path / "responses.json").write_text('[{"picture": "a", "Value": 1}]')
    with pytest.raises(BadFile, match="a row has no value"):
        read_responses(tmp_path / "responses.json")


def talk(port: int, token: str, ending: threading.Event | None = None) -> list[dict]:
    """A rig behind a socket, which tells its responses one by one."""
    import base64
    import io

    with socket.create_connection(("127.0.0.1", port)) as connection:
        file = connection.makefile("rwb")

        def say(**message):
            file.write(json.dumps(message).encode() + b"\n")
            file.flush()
            return json.loads(file.readline())

        told = [say(token=token)]
        if "error" in told[0]:
            return told
        while True:
            asked = say(ask=True)
            for picture, trial in asked["order"]:
                pixels = read_png(io.BytesIO(base64.b64decode(asked["pictures"][picture])))
                told.append(say(tell=[[picture, trial, 0, float(pixels[..., 0].mean())]]))
                if ending and ending.is_set():
                    return told
            if told[-1]["over"]:
                return told


def served(loop: Loop) -> tuple[LoopServer, threading.Thread]:
    server = LoopServer(loop)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    return server, thread


def test_a_rig_answers_through_a_socket(tmp_path):
    loop = tiny_loop(tmp_path, climb=CLIMB.changed(steps=2))
    server, thread = served(loop)
    assert "token is another" in talk(server.server_address[1], "x")[0]["error"]
    told = talk(server.server_address[1], server.token)
    thread.join(10)
    server.server_close()
    assert told[-1]["over"]
    assert loop.number == 2


def test_a_rig_whose_connection_breaks_goes_on(tmp_path):
    loop = tiny_loop(tmp_path, climb=CLIMB.changed(steps=2))
    server, thread = served(loop)
    broken = threading.Event()
    broken.set()
    assert len(talk(server.server_address[1], server.token, broken)) == 2
    told = talk(server.server_address[1], server.token)
    thread.join(10)
    server.server_close()
    assert len(told) == 1 + 2 * 6 - 1


def test_a_bad_message_is_answered_and_nothing_is_lost(tmp_path):
    loop = tiny_loop(tmp_path)
    server, _ = served(loop)
    with socket.create_connection(server.server_address) as connection:
        file = connection.makefile("rwb")
        file.write(json.dumps({"token": server.token}).encode() + b"\n")
        for text in (b"{", b"[]", b'{"tell": 3}', b'{"tell": [["a"]]}'):
            file.write(text + b"\n")
        file.flush()
        answered = [json.loads(file.readline()) for _ in range(5)]
        assert ["error" in each for each in answered] == [False, True, True, True, True]
    assert loop.number == 0


def test_what_a_socket_cannot_take_is_answered_and_the_next_rig_is_served(tmp_path, recwarn):
    loop = tiny_loop(tmp_path, climb=CLIMB.changed(steps=1))
    server, thread = served(loop)
    for garbage in (b"\x00\xff\n", b"half a line", b"[" * 100_000 + b"\n", b"x" * 5000, b"\n"):
        with socket.create_connection(server.server_address) as connection:
            connection.sendall(garbage)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection = socket.create_connection(server.server_address)
    with connection, connection.makefile("rwb") as file:
        file.write(json.dumps({"token": server.token}).encode() + b"\n")
        name = loop.ids[0]
        for row in ([name, math.inf, 0, 1], [name, 0.5, 0, 1], [name, -1, 0, 1], [name, 0, 0, {}]):
            file.write(json.dumps({"tell": [row]}).encode() + b"\n")
        file.write(b"[" * 100_000 + b"\n")
        file.flush()
        answered = [json.loads(file.readline()) for _ in range(6)]
        assert ["error" in each for each in answered] == [False] + 5 * [True]
    assert talk(server.server_address[1], server.token)[-1]["over"]
    thread.join(10)
    server.server_close()
    assert loop.is_over


def test_a_client_without_a_token_does_not_keep_the_rig_out(tmp_path, monkeypatch):
    monkeypatch.setattr("phosphene.loops.server.PATIENCE", 0.1)
    loop = tiny_loop(tmp_path, climb=CLIMB.changed(steps=1))
    server, thread = served(loop)
    with socket.create_connection(server.server_address):  # it says nothing
        assert talk(server.server_address[1], server.token)[-1]["over"]
    thread.join(10)
    server.server_close()


def test_noise_has_the_moments_that_it_states():
    rng = np.random.default_rng(0)
    rates = np.full((200_000, 1), 4.0)
    multiplied = Noise(multiplicative=0.2)(rates, rng)
    assert multiplied.mean() == pytest.approx(4, rel=0.01)
    assert multiplied.std() == pytest.approx(0.8, rel=0.01)
    counts = Noise(fano=1.5, exponent=1.2)(rates, rng)
    assert counts.mean() == pytest.approx(4, rel=0.01)
    assert counts.var() == pytest.approx(1.5 * 4**1.2, rel=0.02)
    poisson = Noise(fano=1.0)(rates, rng)
    assert poisson.var() == pytest.approx(4, rel=0.02)


def test_noise_is_learned_from_single_trials():
    rng = np.random.default_rng(0)
    truth = Noise(fano=1.5, exponent=1.3)
    rates = rng.uniform(0.5, 12, 3000)
    trials = np.stack([truth(rates[:, None], rng)[:, 0] for _ in range(10)], 1)
    trials[rng.random(trials.shape) < 0.1] = np.nan
    found = Noise.of_trials(trials)
    assert found.fano == pytest.approx(1.5, rel=0.05)
    assert found.exponent == pytest.approx(1.3, abs=0.05)
    with pytest.raises(BadRequest, match="four trials and more"):
        Noise.of_trials(np.ones((5, 1)))


def test_a_command_answers_the_paths_of_pictures(tmp_path):
    program = tmp_path / "rig.py"
    program.write_text(
        "import sys\nfrom PIL import Image\n"
        "for path in sys.argv[1:]: print(sum(Image.open(path).convert('RGB').getpixel((0, 0))))\n"
    )
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    neuron = load_neuron(f"command:{sys.executable} {program}")
    assert neuron(images).tolist() == [[0.0], [765.0]]
    with pytest.raises(BadRequest, match="ended with code 1"):
        load_neuron(f"command:{sys.executable} -c 'raise SystemExit(1)'")(images)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "names no program"),
        ('"x', "cannot be read: No closing quotation"),
        ("/nowhere/x", "cannot run /nowhere/x"),
        ("{python} -c 'import sys; sys.stdout.buffer.write(bytes([255]))'", "prints numbers"),
        ("{python} -c 'print(1, 2); print(3)'", "as many numbers in each line"),
        ("{python} -c 'input()'", "ended with code 1: EOFError"),
    ],
)
def test_a_command_that_cannot_answer_is_one_line(command, words):
    with pytest.raises(BadRequest, match=words):
        load_neuron("command:" + command.format(python=sys.executable))(torch.zeros(2, 3, 4, 4))


@pytest.mark.skipif(os.name == "nt", reason="no groups of processes")
def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path):
    """Also where its children hold its output."""
    noted = tmp_path / "pids"
    program = tmp_path / "hangs.py"
    program.write_text(
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        f"open({str(noted)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(100)\n"
    )
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="has not answered within 3 seconds"):
        load_neuron(f"command:{sys.executable} {program}", 3.0)(torch.zeros(2, 3, 4, 4))
    assert time.monotonic() - begun < 20
    time.sleep(0.2)
    for pid in noted.read_text().split():
        status = Path(f"/proc/{pid}/status")
        assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_disk_without_space_is_told(tmp_path, monkeypatch):
    loop = tiny_loop(tmp_path)
    rows = answers(loop)

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace, match="No space left"):
        loop.tell(rows)
    monkeypatch.undo()
    assert loop.tell(rows).complete


def history(loop: Loop) -> list[list[float]]:
    while not loop.is_over:
        loop.tell(answers(loop))
    return loop.history


def test_the_same_neuron_answers_the_same_through_each_way(tmp_path):
    """Python, the folder and the socket end with the same scores, bit by bit, noise and all."""
    climb = CLIMB.changed(steps=3)
    noise = Noise(multiplicative=0.3)
    simulated = tiny_loop(tmp_path / "python", climb=climb)
    simulate(simulated, brightness, noise)
    rig = Rig(brightness, noise, seed=simulated.seed)

    folder = tmp_path / "exchange"
    through_folder = tiny_loop(tmp_path / "folder", climb=climb)
    answering = answer_folder(rig, folder)
    threading.Thread(target=lambda: [next(answering) for _ in range(3)], daemon=True).start()
    assert len([*serve_folder(through_folder, folder)]) == 3
    assert through_folder.history == simulated.history

    through_socket = tiny_loop(tmp_path / "socket", climb=climb)
    server, thread = served(through_socket)
    answered = [*answer_socket(rig, server.server_address[1], server.token)]
    thread.join(10)
    server.server_close()
    assert answered == ["0000", "0001", "0002"]
    assert through_socket.history == simulated.history


def test_a_rig_with_all_mishaps_changes_no_score(tmp_path):
    """Trials that are missing, NaN or told twice cost blocks, and no score."""
    climb = CLIMB.changed(steps=2)
    mishaps = Mishaps(missing=0.2, failed=0.2, repeated=0.5)
    loop = tiny_loop(tmp_path / "log", climb=climb, tries=50)
    answering = answer_folder(Rig(brightness, mishaps=mishaps), tmp_path / "exchange")
    thread = threading.Thread(target=lambda: [*answering], daemon=True)
    thread.start()
    blocks = [*serve_folder(loop, tmp_path / "exchange")]
    thread.join(10)
    assert not thread.is_alive()  # it was told that the search is over
    assert len(blocks) > 2
    assert loop.history == history(tiny_loop(tmp_path / "clean", climb=climb))


def test_a_picture_that_was_changed_on_the_way_is_refused_by_the_rig(tmp_path):
    loop = tiny_loop(tmp_path / "log")
    next(serve_folder(loop, tmp_path))
    (block,) = tmp_path.glob("block-*")
    first, second = sorted(block.glob("*.png"))[:2]
    first.write_bytes(second.read_bytes())
    with pytest.raises(BadFile, match="is not the picture of the manifest"):
        next(answer_folder(Rig(brightness), tmp_path))


def test_the_commands_of_a_loop_and_of_a_rig_meet_in_a_folder(tmp_path):
    command = [sys.executable, "-m", "phosphene"]
    exchange = ["--folder", str(tmp_path / "exchange"), "--device", "cpu"]
    loop = subprocess.Popen(
        [*command, "evolve", *exchange, "--steps", "2", "--population", "4", "--out",
         str(tmp_path / "out"), "--json"], stdout=subprocess.PIPE,
    )  # fmt: skip
    subprocess.run(
        [*command, "rig", "caffenet-objects", "class:lion", *exchange],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    told, _ = loop.communicate(timeout=120)
    assert json.loads(told)[0]["generations"] == 2
    assert (tmp_path / "out" / "preferred.png").exists()


def test_the_command_goes_on_from_its_log(tmp_path):
    command = [sys.executable, "-m", "phosphene", "evolve", "caffenet-objects", "class:lion"]
    command += ["--steps", "2", "--population", "4", "--noise", "0.2", "--json"]
    command += ["--optimizer", "sphere", "--out"]  # it needs no directions of the prior
    told = [
        subprocess.run([*command, str(tmp_path)], check=True, capture_output=True).stdout
        for _ in range(2)
    ]
    assert told[0] == told[1]
    (row,) = json.loads(told[0])
    assert row["pictures"] == 8


def test_interleaved_loops_search_as_they_would_alone(tmp_path):
    """Pictures of several searches lie in one block, and each log is as if it were alone."""
    readouts = {"red": "channel:0", "green": "-1*channel:1"}
    how = {"blanks": 1, "repeats": 2}
    loops = [
        tiny_loop(tmp_path / "both" / name, name=name, readout=Readout.of(text), **how)
        for name, text in readouts.items()
    ]
    both = Interleaved(loops)
    generation = both.ask()
    names = [each.picture.partition("-")[0] for each in generation.order]
    assert sorted(names) == ["green"] * 13 + ["red"] * 13
    assert names != sorted(names)
    lost = tuple(generation.order[5])
    while not both.is_over:
        rows = answers(both)
        told = both.tell([each for each in rows if (each.picture, each.trial) != lost])
        lost = None
        assert told.late == told.repeated == 0
    for name, text in readouts.items():
        alone = tiny_loop(tmp_path / name, name=name, readout=Readout.of(text), **how)
        history(alone)
        (loop,) = [each for each in loops if each.name == name]
        assert loop.history == alone.history


def test_a_dead_neuron_does_not_stop_the_others(tmp_path):
    """Its pictures are shown beside theirs, until it is alone."""
    climb = CLIMB.changed(steps=3)
    loops = [
        tiny_loop(tmp_path / text, name=text, climb=climb, tries=1, readout=Readout.of(text))
        for text in ("0", "1")
    ]
    both = Interleaved(loops)

    def told():
        return [
            Response(r.picture, r.trial, r.channel, math.nan if r.channel == "1" else r.value)
            for r in answers(both)
        ]

    for _ in range(3):
        with pytest.warns(Notice, match="none has one of channel 1; mend it"):
            both.tell(told())
    assert [each.number for each in loops] == [3, 0]
    with pytest.raises(BadRequest, match="none has one of channel 1; mend it"):
        both.tell(told())
    while not both.is_over:
        both.tell(answers(both))
    alone = tiny_loop(tmp_path / "alone", name="1", climb=climb, readout=Readout.of("1"))
    assert loops[1].history == history(alone)


def test_drift_that_no_reference_shows_is_told(tmp_path):
    shown = torch.zeros(1, 3, 14, 14)
    loop = tiny_loop(tmp_path, references=shown, drift="gain")
    with pytest.warns(Notice, match="drift of channel 0 is not corrected; .* now and first: 0, 0"):
        loop.tell(answers(loop))


@pytest.mark.parametrize("names", [("a", "a"), ("a", "")])
def test_interleaved_loops_need_a_name_each(tmp_path, names):
    loops = [tiny_loop(tmp_path / str(i), name=name) for i, name in enumerate(names)]
    with pytest.raises(BadRequest, match="have a name each"):
        Interleaved(loops)


def test_two_channels_of_a_rig_are_searched_in_one_block(tmp_path):
    loops = [
        tiny_loop(
            tmp_path / text, name=text, climb=CLIMB.changed(steps=2), readout=Readout.of(text)
        )
        for text in ("0", "1")
    ]
    answering = answer_folder(Rig(brightness), tmp_path / "exchange")
    threading.Thread(target=lambda: [*answering], daemon=True).start()
    blocks = [*serve_folder(Interleaved(loops), tmp_path / "exchange")]
    assert [len(each.order) for each in blocks] == [12, 12]
    assert [each.number for each in loops] == [2, 2]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"pictures": {}}', '{"pictures": {"a": {"file": "../a.png", "sha256": ""}}}'],
)
def test_a_manifest_that_is_none_is_refused_by_the_rig(tmp_path, text):
    (tmp_path / "block-0000-00").mkdir()
    (tmp_path / "block-0000-00" / "manifest.json").write_text(text)
    with pytest.raises(BadFile, match="is no manifest of a block"):
        next(answer_folder(Rig(brightness), tmp_path))


def test_a_search_without_a_generation_is_refused(tmp_path):
    with pytest.raises(BadRequest, match="one generation at least"):
        tiny_loop(tmp_path, climb=CLIMB.changed(steps=0))

"""Closed loops: a search for what a neuron prefers that needs nothing but its responses."""

from phosphene.loops.block import Interleaved
from phosphene.loops.generation import BLANK, Generation, Presentation, Response
from phosphene.loops.loop import DRIFTS, Loop, Told
from phosphene.loops.readout import Readout
from phosphene.loops.references import read_references
from phosphene.loops.simulated import Noise, read_trials

__all__ = [
    "BLANK",
    "DRIFTS",
    "Generation",
    "Interleaved",
    "Loop",
    "Noise",
    "Presentation",
    "Readout",
    "Response",
    "Told",
    "read_references",
    "read_trials",
]

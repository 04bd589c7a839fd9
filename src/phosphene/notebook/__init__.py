"""Python calls for what the command line does; one file a call.

Each call shows its progress on a terminal and in a notebook. Each returns a value that can be
looked at, indexed, iterated over and saved.
"""

from phosphene.notebook._dissect import DissectionResult, dissect
from phosphene.notebook._evaluate import EvaluationResult, GeneratorResult, evaluate
from phosphene.notebook._exemplars import ExemplarResult, exemplars
from phosphene.notebook._layers import layers
from phosphene.notebook._reconstruct import reconstruct
from phosphene.notebook._record import SavedPicture, load_record
from phosphene.notebook._results import StudyResult
from phosphene.notebook._synthesize import synthesize

__all__ = [
    "DissectionResult",
    "EvaluationResult",
    "ExemplarResult",
    "GeneratorResult",
    "SavedPicture",
    "StudyResult",
    "dissect",
    "evaluate",
    "exemplars",
    "layers",
    "load_record",
    "reconstruct",
    "synthesize",
]

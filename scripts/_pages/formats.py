"""Write the page of file formats from the dataclasses and constants of the package."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from phosphene import kept, weights
from phosphene.forms import Dissection, Evaluation, Exemplars, Figure, Record, StudyTable
from phosphene.forms.claim import ClaimResult, Judged
from phosphene.forms.dissection import UnitOverlap
from phosphene.forms.exemplars import UnitExemplars
from phosphene.forms.form import Form
from phosphene.loops import folder, responses, session
from phosphene.weights import file as weights_file

FORMS: dict[str, tuple[type[Form], str, tuple[type, ...]]] = {
    "Records": (Record, "`NAME.json` beside a picture, by `phosphene synthesize`", ()),
    "Exemplars": (Exemplars, "`exemplars.json`, by `phosphene exemplars`", (UnitExemplars,)),
    "Evidence": (Evaluation, "`evidence/evaluation….json`, by `phosphene evaluate`", (Figure,)),
    "Dissections": (Dissection, "`dissection.json`, by `phosphene dissect`", (UnitOverlap,)),
    "Studies": (StudyTable, "`STUDY.json`, by `phosphene study` and `phosphene importance`", ()),
    "Claims": (ClaimResult, "`claims.json` and `C1.json` …, by `phosphene claims`", (Judged,)),
}
"""The JSON files: what is in each, who writes it, and what its objects hold."""


def page() -> str:
    """Return the page."""
    text = """# File formats

Every file that phosphene writes has a number of its format. A version reads the formats that are
listed here, and refuses a later one with a line that says so. Files are written whole or not at
all. A file from somebody else is checked as it is read: it never runs code.

This page is written from the package. A key with a default may be absent.

"""
    text += "\n".join(overview()) + "\n\n## JSON files\n"
    for title, (form, where, inner) in FORMS.items():
        text += f"\n### {title}\n\nFile: {where}. Format {number(form)}.\n\n{doc(form)}\n\n"
        text += "\n".join(keys(form)) + "\n"
        for kind in inner:
            text += f"\n**{kind.__name__}.** {doc(kind)}\n\n" + "\n".join(keys(kind)) + "\n"
    return text + "\n" + others()


def overview() -> Iterator[str]:
    """Yield the table of all formats."""
    yield "| file | format | reads |\n| --- | --- | --- |"
    yield f"| weights, `NAME.safetensors` | {weights.FORMAT} | 1 … {weights.FORMAT} |"
    for title, (form, _, _) in FORMS.items():
        reads = ", ".join(map(str, form.reads))
        yield f"| {title.lower()} | {number(form)} | {reads} |"
    yield f"| indexes and other kept results, `.safetensors` | {kept.FORMAT} | 1 … {kept.FORMAT} |"
    yield f"| log of a closed loop, `{session.NAME}` | {session.FORMAT} | {session.FORMAT} |"
    yield f"| block of a closed loop, `manifest.json` | protocol {folder.PROTOCOL} | – |"
    yield f"| messages of a closed loop | hello {folder.PROTOCOL} | – |"


def number(form: type[Form]) -> int:
    """Return the number of a form's present format."""
    defaults = {each.name: each.default for each in fields(form)}
    return int(str(defaults["format"]))


def keys(kind: type) -> Iterator[str]:
    """Yield the table of a dataclass's keys."""
    yield "| key | type | default |\n| --- | --- | --- |"
    assert is_dataclass(kind)
    for each in fields(kind):
        if each.name != "format":
            yield f"| `{each.name}` | {type_of(str(each.type))} | {default_of(each)} |"


def default_of(each: Any) -> str:
    """Return a key's default, or that it is needed."""
    if each.default_factory is not MISSING:
        return "empty"
    if each.default is MISSING:
        return "needed"
    if each.default is None:
        return "null"
    return "empty" if each.default in ("", ()) else f"`{each.default}`"


SAID = {
    "Shown": "text",
    "UnitName": "LAYER:CHANNEL",
    "Share": "number in 0 … 1",
    "Figures": "object of figures",
    "Rows": "list of rows",
    "Table": "list of objects",
    "Box": "list of 4 numbers",
    "str": "text",
    "int": "whole number",
    "float": "number",
}


def type_of(annotation: str) -> str:
    """Return an annotation of Python as words about JSON."""
    if "Annotated[" in annotation:  # what follows the type reads and checks it
        annotation = re.sub(r"Annotated\[((?:[^\[\],]|\[[^\]]*\])+), [^\]]*\]", r"\1", annotation)
    if annotation.endswith(" | None"):
        return f"{type_of(annotation.removesuffix(' | None'))}, or null"
    if made := re.fullmatch(r"dict\[str, (.+)\]", annotation):
        return "object" if made[1] == "Any" else f"object of {type_of(made[1])}"
    if made := re.fullmatch(r"(?:tuple|list)\[(.+?)(?:, \.\.\.)?\]", annotation):
        pair = re.fullmatch(r"(\w+), (\w+)", made[1])
        inner = " and ".join(map(type_of, pair.groups())) if pair else type_of(made[1])
        return f"list of {inner}"
    return SAID.get(annotation, annotation)


def doc(kind: Any) -> str:
    """Return a docstring as Markdown."""
    return inspect.cleandoc(kind.__doc__ or "").strip()


def others() -> str:
    """Return the forms that are no dataclass of JSON: their modules say what they are."""
    said = {
        "Weights": weights_file,
        "Indexes and other kept results": kept,
        "Responses of a rig": responses,
        "Blocks of a closed loop": folder,
        "The log of a closed loop": session,
    }
    text = "## Other files\n"
    for title, module in said.items():
        text += f"\n### {title}\n\n{doc(module)}\n"
    text += "\nResponse files have these columns: " + ", ".join(
        f"`{name}`" for name in responses.COLUMNS
    )
    return text + f". They end in {', '.join(f'`{name}`' for name in responses.SUFFIXES)}.\n"

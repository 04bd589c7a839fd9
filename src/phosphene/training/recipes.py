"""Recipes: TOML files that say what is trained and how, checked before any work."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from phosphene.errors import BadFile, BadRequest, Notice
from phosphene.files import read_text, without_nan

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[import-not-found,no-redef]

Recipe = dict[str, Any]

RECIPES = Path(__file__).parent.parent / "recipes"
MODELS = {"subject": "caffenet-objects", "generator": "objects-fc6"}
"""The bundled recipe that shows what values a recipe of this kind takes."""
OPTIONAL = {"snapshots"}
"""Keys of the bundled recipe of a subject that another one may lack."""
NUMBERS = {int: "whole number from 0 on", float: "number from 0 on"}


RENAMED = {
    "begin": "init_from",
    "reader": "code_regressor",
    "beyond": "extrapolated",
    "fall": "cosine_decay",
    "named": "class_kl",
    "judged": "discriminator_layers",
    "compared": "comparator_layers",
    "likened": "style_layers",
    "likeness": "style",
    "again": "reconstructed",
    "same": "consistency",
    "seen": "view_size",
}
"""What version 0.1.0 called keys of a recipe, and their names now."""
FORMER_NAMES = {now: former for former, now in RENAMED.items()}
RENAMED_RECIPES = {"taught": "from-teacher", "direct": "deepsim-layout"}


def _shares(pair: Any) -> bool:
    return not isinstance(pair, list) or (len(pair) == 2 and 0 < pair[0] <= pair[1] <= 1)


def _in_order(sizes: Any) -> bool:
    if not sizes or any(len(each) != 2 for each in sizes):
        return False
    starts = [share for share, _ in sizes]
    return (
        starts[0] == 0
        and starts == sorted(starts)
        and all(pixels >= 1 and pixels % 1 == 0 for _, pixels in sizes)
    )


BOUNDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("batch", "epochs", "evaluate_every", "r1_every"), (lambda n: n >= 1, "1 or more")
    ),
    **dict.fromkeys(("crop", "scale"), (_shares, "two shares of the area, the smaller first")),
    "sizes": (_in_order, "[share of the run, pixels] in order, from share 0 on"),
    "seed": (lambda n: n < 2**63, "less than 2⁶³"),
    "label_smoothing": (lambda share: share <= 1, "a share"),
}
"""What values of a recipe have to be, beside their kind."""


class _Settings(dict[str, Any]):
    """Hold a table of a recipe. What it lacks is the recipe's mistake."""

    def __missing__(self, key: str) -> Any:
        raise BadRequest(f"the recipe lacks {key!r}; phosphene's own are in {RECIPES}")


def _settings(value: Any) -> Any:
    return (
        _Settings({key: _settings(each) for key, each in value.items()})
        if isinstance(value, dict)
        else value
    )


def read_recipe(name: str | Path, kind: str | None = None) -> Recipe:
    """Return a recipe, by its bundled name or as a TOML file; `kind` is what it must make."""
    file = Path(name)  # a folder of that name is not a recipe
    if not file.is_file():
        now = RENAMED_RECIPES.get(str(name), name)
        if now != name:
            warnings.warn(f"the recipe {name!r} is now called {now!r}", Notice, stacklevel=2)
        file = RECIPES / f"{now}.toml"
        if not file.is_file():
            known = ", ".join(sorted(f.stem for f in RECIPES.glob("*.toml")))
            raise BadRequest(f"no recipe {str(name)!r}; bundled: {known}; or give a TOML file")
    try:
        recipe: Recipe = _settings(tomllib.loads(read_text(file)))
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"recipe {file} is not TOML: {error}") from None
    _check_json(recipe, f"recipe {file}:")
    recipe = current(recipe, f"recipe {file}")
    if kind is not None and recipe["kind"] != kind:
        raise BadRequest(f"recipe {file} makes a {recipe['kind']}, not a {kind}")
    model = RECIPES / f"{MODELS.get(recipe['kind'], '')}.toml"
    if model.is_file() and file != model:
        _check_values(recipe, tomllib.loads(model.read_text(encoding="utf-8")), f"recipe {file}:")
    return recipe


def current(recipe: Recipe, where: str = "the recipe") -> Recipe:
    """Return a recipe with the keys of this version; a line names those that were called else."""
    former = sorted(RENAMED.keys() & set(_keys(recipe)))
    if former:
        names = ", ".join(f"{name!r} is now {RENAMED[name]!r}" for name in former)
        warnings.warn(f"{where} has keys of version 0.1.0: {names}", Notice, stacklevel=3)
    return cast("Recipe", _with_names(recipe, RENAMED))


def _keys(value: Any) -> Iterator[str]:
    """Yield all keys of a recipe and its tables."""
    for key, each in value.items() if isinstance(value, dict) else ():
        yield key
        yield from _keys(each)


def _with_names(value: Any, names: dict[str, str]) -> Any:
    """Return a recipe whose keys have other names, in all of its tables."""
    if not isinstance(value, dict):
        return value
    return type(value)({names.get(k, k): _with_names(each, names) for k, each in value.items()})


def check_complete(recipe: Recipe) -> None:
    """Refuse a subject's recipe that lacks what training needs, with `BadRequest`."""
    model = RECIPES / f"{MODELS['subject']}.toml"
    _check_whole(recipe, tomllib.loads(model.read_text(encoding="utf-8")), "the recipe")


def _check_whole(given: Recipe, model: Recipe, where: str) -> None:
    """Refuse a recipe that lacks what the bundled one has and training needs.

    `BadRequest` names what is lacking and gives an example.
    """
    for key in sorted(model.keys() - OPTIONAL):
        if key not in given:
            raise BadRequest(f"{where} lacks {key!r}, such as {key} = {model[key]!r}")
        if isinstance(model[key], dict) and key != "architecture":
            _check_whole(given[key], model[key], f"{where}, {key},")


def _check_json(value: Any, where: str) -> None:
    """Refuse a value that JSON has no word for, with `BadRequest`: a card holds its recipe."""
    if isinstance(value, dict):
        for key, each in value.items():
            _check_json(each, f"{where} {key}")
    elif isinstance(value, list):
        for each in value:
            _check_json(each, where)
    elif not isinstance(value, str | int | float) or without_nan(value) is None:
        raise BadRequest(f"{where} is {value}; it should be a text, a finite number, true or false")


def _check_values(given: Any, model: Any, where: str) -> None:
    """Refuse a value that is not of the kind that it is in a bundled recipe, with `BadRequest`.

    Architectures check their own.
    """
    if isinstance(model, dict) and isinstance(given, dict):
        for key in sorted(given.keys() & model.keys() - {"architecture"}):
            _check_values(given[key], model[key], f"{where} {key}")
            fine, what = BOUNDS.get(key, (None, ""))
            if fine is not None and not fine(given[key]):
                raise BadRequest(
                    f"{where} {key} is {given[key]!r}; it should be {what}, such as {model[key]!r}"
                )
    elif isinstance(model, list) and isinstance(given, list):
        for value in given:
            _check_values(value, model[0], where)
    elif isinstance(model, str | dict | list):
        if not isinstance(given, type(model)):
            raise BadRequest(f"{where} is {given!r}; it should be such as {model!r}")
    elif (
        isinstance(given, bool)
        or not isinstance(given, (int, type(model)))
        or not 0 <= given < math.inf
    ):
        raise BadRequest(
            f"{where} is {given!r}; it should be a {NUMBERS[type(model)]} such as {model!r}"
        )


def recipe_hash(recipe: Recipe, data: str) -> str:
    """Return one hash of a recipe and of the fingerprint of the data it is run on.

    It is that of the former keys, so that runs of version 0.1.0 go on.
    """
    text = json.dumps([_with_names(recipe, FORMER_NAMES), data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

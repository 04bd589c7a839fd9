"""Write the page of recipes: every key, and the bundled recipes whole."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from _pages.recipe_keys import ARGUMENTS, KEYS, OPTIONAL
from phosphene.networks import ARCHITECTURES
from phosphene.training.recipes import BOUNDS, RECIPES, tomllib

MODELS = {"subject": "caffenet-objects", "generator": "objects-fc6", "enlarger": "enlarger"}
"""The bundled recipe whose values are the examples, where it has them."""
NAMES = {bool: "true or false", int: "whole number", float: "number", str: "text", list: "list"}


def page() -> str:
    """Return the page."""
    text = """# Recipes

A recipe is a TOML file that says what is trained and how. [Train a network](training.md#the-recipe)
and [train a generator](generators.md) say how to use one. A recipe of your own may begin as a copy
of one of the bundled recipes. The program refuses a missing value, or one of the wrong kind, before
any work.
"""
    for kind, tables in KEYS.items():
        text += f"\n## Keys of a recipe of kind {kind}\n"
        if kind == "generator":
            text += "\nA table whose stage is left out may be absent.\n"
        for table, keys in tables.items():
            text += f"\n### {f'[{table}]' if table else f'At the top ({kind})'}\n\n"
            text += "\n".join(keys_of(kind, table, keys)) + "\n"
    return text + architectures() + bundled()


def keys_of(kind: str, table: str, keys: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a table of keys."""
    yield "| key | meaning | value | without it | for example |\n| --- | --- | --- | --- | --- |"
    values = dict(values_of(kind, table))
    for key, meaning in keys.items():
        value = values.get(key)
        default = OPTIONAL[kind].get(key, "refused")
        value = value[:1] if key == "extra" else value
        own = "–" if value is None or isinstance(value, dict) else f"`{literal(value)}`"
        yield f"| `{key}` | {meaning} | {kind_of(key, value)} | {default} | {own} |"


def values_of(kind: str, table: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a table and their values in bundled recipes, that of `MODELS` last."""
    files = sorted(RECIPES.glob("*.toml"), key=lambda file: file.stem == MODELS[kind])
    for file in files:
        recipe = tomllib.loads(file.read_text(encoding="utf-8"))
        if recipe["kind"] == kind:
            yield from (recipe.get(table, {}) if table else recipe).items()


def kind_of(key: str, value: Any) -> str:
    """Return what a value has to be, as the program checks it."""
    if key in BOUNDS and not (key == "crop" and isinstance(value, int)):
        return BOUNDS[key][1]
    if isinstance(value, dict):
        return "table"
    if isinstance(value, list):
        return f"list of {NAMES.get(type(value[0]), 'table')}s" if value else "list"
    if value is None:
        return "text"
    return f"{NAMES[type(value)]}{', from 0 on' if isinstance(value, int | float) else ''}"


def literal(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        inner = (f"{key} = {literal(each)}" for key, each in value.items())
        return f"{{ {', '.join(inner)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def architectures() -> str:
    """Return the arguments of each architecture with their defaults."""
    text = (
        "\n## Architectures\n\n`architecture.name` names one of these. Other keys have defaults.\n"
    )
    for name, build in ARCHITECTURES.items():
        text += f"\n### {name}\n\n| key | meaning | default |\n| --- | --- | --- |\n"
        for key, argument in inspect.signature(build).parameters.items():
            default = argument.default
            shown = literal(list(default) if isinstance(default, tuple) else default)
            text += f"| `{key}` | {ARGUMENTS[key]} | `{shown}` |\n"
    return text


def bundled() -> str:
    """Return all bundled recipes."""
    text = "\n## The bundled recipes\n"
    for file in sorted(RECIPES.glob("*.toml")):
        shown = file.read_text(encoding="utf-8").strip()
        text += f"\n### {file.stem}\n\n```toml\n{shown}\n```\n"
    return text

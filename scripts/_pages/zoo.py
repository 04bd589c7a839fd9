"""Write the page of all weights."""

from __future__ import annotations

import json

from phosphene import weights


def page() -> str:
    """Return the page of all weights: what each file is, and what was measured of generators."""
    package = weights.zoo_folder()
    manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
    text = """# The zoo

`phosphene zoo list` prints these networks, and `phosphene zoo show NAME` prints one with its
recipe, its data and its licence. This page is written from `manifest.json` and `figures.json`.

| name | kind | size | measured |
| --- | --- | --- | --- |
"""
    for name, entry in manifest.items():
        size = f"{entry['bytes'] / 1e6:.1f} MB"
        text += f"| `{name}` | {entry['kind']} | {size} | {entry['summary']} |\n"
    text += """
## Generators, as judges see them

`scripts/measure PHOTOGRAPHS NAME…` measures these figures. *Named* is the share of reconstructions
whose class the judge names first, with its interval of 95 %. [Metrics](metrics.md) defines them.

| generator | code of | judge | photographs | named | image error | cosine of the codes |
| --- | --- | --- | --- | --- | --- | --- |
"""
    figures = json.loads((package / "figures.json").read_text(encoding="utf-8"))
    for each in (each for measured in figures.values() for each in measured):
        read = each["figures"]
        named = read.get("recognised_top1")
        share = f"{named['value']:.1%} ({named['low']:.1%} … {named['high']:.1%})" if named else "–"
        error, cosine = (read[key]["value"] for key in ("image_error", "code_cosine"))
        of = f"`{each['encoder']}` `{each['layer']}`"
        text += f"| `{each['prior']}` | {of} | {each['judge']} | {each['data']} | {share}"
        text += f" | {error:.3f} | {cosine:.3f} |\n"
    return text

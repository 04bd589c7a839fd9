"""Sources of photographs, one file each: `SOURCE:PLACE`, found by listing this folder.

A module has `open_split(place, split, labelled)`, which returns a `Source`.
"""

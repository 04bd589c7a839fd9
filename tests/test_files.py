"""Where files go: to a place that is known before the work, and nothing else is lost there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phosphene import files, weights
from phosphene.networks import huggingface

# ---------------------------------------------------------------- a user without a home


def homeless(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """What a command says to a number that has no HOME and no entry in passwd, in a folder."""
    user = ["unshare", "--user", "--map-user=12345"]
    if not shutil.which("unshare") or subprocess.run([*user, "true"], check=False).returncode:
        pytest.skip("no user namespaces here")
    kept = {name: value for name, value in os.environ.items() if name != "HOME"}
    return subprocess.run(
        [*user, *command],
        cwd=folder,
        env={**kept, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_number_without_a_home_finds_the_bundled_weights(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "phosphene", "zoo", "show", "caffenet-objects")
    done = homeless(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "name: caffenet-objects" in done.stdout


def test_without_a_home_libraries_keep_their_files_under_tmpdir(tmp_path: Path) -> None:
    code = """if True:
        import os, sys
        sys.argv = ["phosphene", "--version"]
        from phosphene import cli, files
        try:
            cli.main()
        except SystemExit:
            print(os.path.expanduser("~"), files.caches())"""
    done = homeless(tmp_path, sys.executable, "-c", code)
    assert f"{tmp_path}/phosphene-12345 " in done.stdout, done.stderr
    assert f"{tmp_path}/phosphene-12345/.cache/phosphene" in done.stdout
    assert os.listdir(tmp_path) == []  # nothing that is called "~"


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PHOSPHENE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    usual = tmp_path / ".cache" / "phosphene"
    assert files.caches() == [usual]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert files.caches() == [usual, tmp_path / "xdg" / "phosphene"]  # both are looked into
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert files.caches() == [usual]
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "own"))
    assert files.caches() == weights.places()[2:] == [tmp_path / "own"]


def test_a_home_that_is_nobodys_is_one_line() -> None:
    with pytest.raises(huggingface.UnknownName, match="neither a folder nor"):
        huggingface._folder("hf:~nobody-here/net", "~nobody-here/net", False)

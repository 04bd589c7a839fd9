"""Where files go: to a place that is known before the work, and nothing else is lost there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from PIL import Image

from phosphene import files, weights
from phosphene.errors import PhospheneError
from phosphene.networks.sources import huggingface
from phosphene.testing import write_subject

# ---------------------------------------------------------------- a user without a home


def homeless(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder as a user with no HOME and no entry in passwd."""
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


# ---------------------------------------------------------------- what lies at the place


def write(path: Path) -> None:
    files.write_json(path, {"new": 1})


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    far = tmp_path / "far"
    far.mkdir()
    (far / "target.json").write_text("old")
    for name, target in (("a.json", "far/target.json"), ("b.json", "far/none.json")):
        (tmp_path / name).symlink_to(target)
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_text() == '{\n "new": 1\n}\n'
    assert sorted(os.listdir(far)) == ["none.json", "target.json"]


def test_of_two_hard_links_one_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")
    os.link(tmp_path / "a.json", tmp_path / "b.json")
    write(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_files_permissions_stay(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")
    (tmp_path / "a.json").chmod(0o640)
    write(tmp_path / "a.json")
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


def test_what_is_no_regular_file_is_refused_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "folder").mkdir()
    there = {name: os.lstat(tmp_path / name).st_mode for name in os.listdir(tmp_path)}
    said = {"pipe": "a pipe", "link": "a pipe", "circle": "symbolic links", "folder": "a folder"}
    for name, why in said.items():
        with pytest.raises(PhospheneError, match=why):
            write(tmp_path / name)
    with pytest.raises(PhospheneError, match="a device"):
        write(Path("/dev/null"))
    assert {name: os.lstat(tmp_path / name).st_mode for name in os.listdir(tmp_path)} == there


def test_the_longest_name_that_a_folder_takes_can_be_written(tmp_path: Path) -> None:
    write(tmp_path / f"{'n' * 250}.json")
    assert os.listdir(tmp_path) == [f"{'n' * 250}.json"]


@pytest.mark.parametrize("alias", ["p.png", "link.png", "hard.png", "up/../p.png"])
def test_a_photograph_is_not_replaced_by_its_reconstruction(
    phosphene: Run, zoo: Path, tmp_path: Path, alias: str
) -> None:
    photograph = tmp_path / "p.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(photograph)
    before = photograph.read_bytes()
    (tmp_path / "up").mkdir()
    (tmp_path / "link.png").symlink_to("p.png")
    os.link(photograph, tmp_path / "hard.png")
    command = ["reconstruct", photograph, "--prior", zoo / "generator.safetensors"]
    line = phosphene(*command, "--out", tmp_path / alias).refused()
    assert "which is read" in line
    assert photograph.read_bytes() == before


def test_a_format_that_is_not_written_is_said_before_the_work(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    """The photograph does not exist: the name is looked at first."""
    command = ["reconstruct", tmp_path / "none.png", "--prior", zoo / "generator.safetensors"]
    line = phosphene(*command, "--out", tmp_path / "x.xcf").refused()
    assert "no picture is written as .xcf" in line
    assert ".jpg" in line


CLIMB = ("--steps", 1, "--precision", "float32", "--device", "cpu", "--prior", "pixels")


def test_a_climb_does_not_replace_the_picture_that_it_starts_from(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    command = ["synthesize", zoo / "subject.safetensors", "fc8:1", *CLIMB, "--out", tmp_path]
    phosphene(*command).fine()
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 3, "the contact sheet, the picture and what the subject read of it"
    before = [picture.read_bytes() for picture in pictures]
    for start in pictures:
        line = phosphene(*command, "--start", start, "--anew").refused()
        assert "which is read" in line
    assert [picture.read_bytes() for picture in pictures] == before


def test_a_record_that_is_made_again_replaces_no_other_picture(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    command = ["synthesize", zoo / "subject.safetensors", "fc8:1", *CLIMB]
    phosphene(*command, "--out", tmp_path / "a").fine()
    phosphene(*command, "--rate", 0.5, "--out", tmp_path / "b").fine()
    (record,), (other,) = ([*(tmp_path / name).glob("fc8*.json")] for name in ("a", "b"))
    before = other.read_bytes()
    again = ["synthesize", "--record", record, "--out", tmp_path / "b"]
    assert "another climb" in phosphene(*again).refused()
    assert other.read_bytes() == before
    phosphene(*again, "--anew").fine()
    assert other.read_bytes() != before


@pytest.mark.parametrize("inner", ["", "made", "ant"])
def test_what_is_made_does_not_lie_among_the_photographs(
    phosphene: Run, zoo: Path, tmp_path: Path, inner: str
) -> None:
    """Its pictures would be a class of their own the next time."""
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "photos" / name / "0.png")
    subject, photos = zoo / "subject.safetensors", tmp_path / "photos"
    options = ("--images", photos, "--out", photos / inner)
    line = phosphene("exemplars", subject, "fc8:1", *options).refused()
    assert "lies among the photographs" in line
    assert sorted(os.listdir(photos)) == ["ant", "bee"]
    (photos / "train").mkdir()
    (photos / "ant").rename(photos / "train" / "ant")
    if inner == "made":  # beside the splits there is room
        phosphene("exemplars", subject, "fc8:1", *options).fine()


@pytest.mark.parametrize(
    "command",
    [
        ("exemplars", "fc8:1", "--images", "photos", "--out", "file"),
        ("exemplars", "fc8:1", "--images", "photos", "--out", "taken"),
        ("dissect", "conv5", "--images", "photos", "--out", "dissected"),
    ],
)
def test_a_place_that_takes_no_file_is_said_before_the_pass(
    phosphene: Run,
    zoo: Path,
    tmp_path: Path,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There are no photographs: the place is looked at first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for folder, name in (("taken", "exemplars.json"), ("dissected", "dissection.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).symlink_to(tmp_path / "pipe")
    name, unit, *rest = command
    line = phosphene(name, zoo / "subject.safetensors", unit, *rest).refused()
    assert "is no folder" in line or "a pipe" in line


def test_weights_are_written_under_a_name_that_says_so(phosphene: Run, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[recipe]\n")
    options = ("--images", photos, "--run", tmp_path / "run")
    line = phosphene("train", "subject", recipe, *options, "--out", tmp_path / "x.png").refused()
    assert ".safetensors" in line
    begin = write_subject(tmp_path / "begin.safetensors")
    line = phosphene(
        "train", "subject", recipe, *options, "--from", begin, "--out", begin
    ).refused()
    assert "which is read" in line


def test_a_mounted_file_is_written_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "inner").write_text("old")
    (tmp_path / "outer").write_text("")
    code = (
        "from pathlib import Path; from phosphene.files import write_json;"
        "write_json(Path('outer'), {'new': 1})"
    )
    script = f'mount --bind inner outer && {sys.executable} -c "{code}"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("no mounts here")
    done = subprocess.run([*command, script], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "inner").read_text() == '{\n "new": 1\n}\n'
    assert sorted(os.listdir(tmp_path)) == ["inner", "outer"]


# ---------------------------------------------------------------- what a killed process leaves


WRITER = """
import sys, time
from pathlib import Path
from phosphene.files import scratch_folder, atomic_path
with atomic_path(Path("a.json")) as scratch, scratch_folder(Path("."), "site") as folder:
    scratch.write_text("half")
    (folder / "page.html").write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""
NEXT = (
    "from pathlib import Path; from phosphene.files import write_json; "
    "write_json(Path('b.json'), 1)"
)


def test_the_next_run_clears_what_a_killed_one_left_and_nothing_that_lives(tmp_path: Path) -> None:
    others = [".mine.tmp", ".x.json.99.tmp", ".a.phosphene-00000000-99.tmp", "a.phosphene-1-1.tmp"]
    for name in others:
        (tmp_path / name).write_text("somebody's, or of today")
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER], cwd=tmp_path, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        for each in writers:
            assert each.stdout is not None
            each.stdout.readline()
        killed, alive = writers
        assert len(os.listdir(tmp_path)) == len(others) + 4
        killed.kill()
        killed.wait()
        subprocess.run([sys.executable, "-c", NEXT], cwd=tmp_path, check=True)
        left = {*os.listdir(tmp_path)} - {*others, "b.json"}
        assert len(left) == 2
        assert all(f"-{alive.pid}.tmp" in name for name in left)
        assert {*others} <= {*os.listdir(tmp_path)}
    finally:
        for each in writers:
            each.kill()
            each.communicate()


def test_scratch_of_another_machine_goes_after_a_day(tmp_path: Path) -> None:
    old = [".a.json.phosphene-00000000-1.tmp", ".a.json.99.tmp", ".atlas-abcdefgh"]
    kept = [".b.json.phosphene-00000000-1.tmp", ".mine.99.tmp", ".a.json.tmp"]
    for name in (*old, *kept):
        (tmp_path / name).write_text("")
    for name in (*old, *kept[1:]):
        os.utime(tmp_path / name, (0, time.time() - files.FORGOTTEN - 60))
    files.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


@pytest.mark.parametrize("after", [0.0, 0.02, 0.1])
def test_a_killed_pass_of_exemplars_leaves_nothing_behind(
    zoo: Path, tmp_path: Path, after: float
) -> None:
    """Killed while it writes, at several moments; the next run ends as one that nobody killed."""
    for n in range(40):
        pixels = np.random.default_rng(n).integers(0, 256, (14, 14, 3), np.uint8)
        file = tmp_path / "photos" / f"class{n % 2}" / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "phosphene", "exemplars", str(zoo / "subject.safetensors")]
    command += ["conv5:0-99", "--images", str(tmp_path / "photos"), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        while running.poll() is None and not out.exists():
            time.sleep(0.001)
        time.sleep(after)
        running.kill()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    names = [*out.rglob("*"), *out.rglob(".*")]
    assert not [each for each in names if each.name.endswith(".tmp")]
    assert len([*(out / "tiles").iterdir()]) == 100


def test_a_new_file_has_the_permissions_that_new_files_have(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with files.atomic_path(tmp_path / "new") as scratch:
        scratch.touch(0o600)  # as some libraries make theirs
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode

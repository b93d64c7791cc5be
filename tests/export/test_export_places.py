"""Exports as folders: verified, repeatable, refreshed, refused, and never whole by mistake."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from export_rows import HOSTILE, Export

from pipeline.cli import main
from pipeline.dataset import clips
from pipeline.dataset.card import CardFacts, card, shown
from pipeline.dataset.clips import choose_clips, clips_table
from pipeline.dataset.place import BEGUN, MARKER, Place
from pipeline.dataset.write import FORMATS
from pipeline.kernel.clock import iso
from pipeline.kernel.errors import InputError, MachineError
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord, JobState
from pipeline.report.lines import Line

NOON_US = 1_750_000_000_000_000

FORMS = pytest.mark.parametrize("form", FORMATS)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@FORMS
def test_it_is_the_same_bytes_every_time_and_every_checksum_holds(exported: Export, tmp_path: Path, form: str) -> None:
    """In another place, over itself and over another format; `sha256sum` agrees and nothing is left over."""
    first = exported(form)
    there = contents(first.path)
    assert {MARKER, "README.md", "SHA256SUMS"} < there.keys()
    assert json.loads(there[MARKER])["clips"] == first.clips == 4
    exported(form)
    exported("csv" if form == "hf" else "hf", tmp_path / "again")
    exported(form, tmp_path / "again")
    assert contents(first.path) == contents(tmp_path / "again") == there
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=first.path, check=True)
    listed = {line.split("  ")[1] for line in there["SHA256SUMS"].decode().splitlines()}
    assert listed == there.keys() - {"SHA256SUMS", MARKER}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_the_table_names_every_video_beside_it(exported: Export, films: Path, form: str) -> None:
    """Each path leads to the video with that hash; a shared job is one clip, of the first row that asked."""
    done = exported(form)
    path = done.path / f"clips.{form}"
    table = pd.read_csv(path, dtype={"cost_usd": "string"}) if form == "csv" else pd.read_parquet(path)
    assert table["id"].tolist() == ["test-1", "v1.2", "train", "train"]
    for video, digest, size in zip(table["video"], table["sha256"], table["bytes"], strict=True):
        data = (done.path / video).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (digest, size)
    assert table["cost_usd"].tolist() == ["1.75", "3.50", "1.75", "1.75"]
    assert (done.cost_microusd, done.choice.not_stored) == (8_750_000, {"pending": 1})
    assert table["prompt"][0] == (f"'{HOSTILE}" if form == "csv" else HOSTILE)
    assert {"mood", "label", "tags", "variable_video", "start_file_name"} < set(table)


def test_hard_links_take_no_room_and_copies_come_where_there_can_be_none(
    exported: Export, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same inode as the run directory's; on another file system the same bytes."""
    linked = exported("csv")
    assert (linked.linked, linked.copied) == (4, 0)
    for path in (linked.path / "videos").iterdir():
        assert path.stat().st_ino == (films / "videos" / path.name).stat().st_ino

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    copied = exported("csv", tmp_path / "copied")
    assert (copied.linked, copied.copied) == (0, 4)
    assert contents(copied.path) == contents(linked.path)


@FORMS
def test_what_is_not_as_stored_is_named_and_left_out(exported: Export, films: Path, form: str) -> None:
    """Another byte, another length, a link and nothing at all: none of them is exported, also not the old copy."""
    whole = exported(form)
    videos = sorted((films / "videos").iterdir())
    changed = bytearray(videos[0].read_bytes())
    changed[-1] ^= 1
    videos[0].unlink()  # the export's hard link keeps the old bytes
    videos[0].write_bytes(bytes(changed))
    videos[1].unlink()
    videos[2].write_bytes(b"short")
    done = exported(form)
    assert (done.exit_code, done.clips, whole.clips) == (1, 1, 4)
    assert done.cost_microusd == 1_750_000 * round(done.seconds / 5)
    reasons = {each.video: each.reason for each in done.left_out}
    assert "SHA-256" in reasons[f"videos/{videos[0].name}"]
    assert "not there" in reasons[f"videos/{videos[1].name}"]
    assert "5 bytes instead of" in reasons[f"videos/{videos[2].name}"]
    there = contents(done.path)
    assert not any(path.name in name for name in there for path in videos[:3])
    assert changed not in b"".join(there.values())
    assert [each["reason"] for each in json.loads(there[MARKER])["left_out"]] == list(reasons.values())
    assert b"has been changed" in there["README.md"]
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=done.path, check=True)


def test_a_video_that_is_a_link_is_left_out(exported: Export, films: Path, tmp_path: Path) -> None:
    """What lies outside of the run directory is never read, however right its bytes are."""
    video = min((films / "videos").iterdir())
    video.rename(tmp_path / "elsewhere.mp4")
    video.symlink_to(tmp_path / "elsewhere.mp4")
    assert [each.reason for each in exported("hf").left_out] == [f"cannot be read: videos/{video.name} is a link"]


def test_only_an_export_of_ours_is_refreshed(exported: Export, films: Path, tmp_path: Path) -> None:
    """A folder with anything else in it, a file, a link and the run directory itself are refused and left alone."""
    strange, file, link = tmp_path / "strange", tmp_path / "file", tmp_path / "link"
    strange.mkdir()
    (strange / "thesis.txt").write_text("precious")
    (strange / ".draft.part").write_text("precious, too")
    file.write_text("precious")
    link.symlink_to(strange)
    before = contents(films)
    for to in (strange, file, link, films, films / "videos"):
        with pytest.raises(InputError, match="Nothing was exported"):
            exported("csv", to)
    assert (contents(strange), contents(films)) == (
        {"thesis.txt": b"precious", ".draft.part": b"precious, too"},
        before,
    )


def test_a_refresh_deletes_what_is_ours_and_nothing_else(exported: Export, tmp_path: Path) -> None:
    """Whatever a list in the folder says: a file of the user's stays, inside of the folder and outside."""
    done = exported("csv")
    (done.path / "notes.txt").write_text("mine")
    (done.path / "videos" / "mine.mov").write_text("mine")
    (tmp_path / "outside").write_text("mine")
    with (done.path / "SHA256SUMS").open("a") as sums:
        sums.writelines(f"{'0' * 64}  {name}\n" for name in ("../outside", "notes.txt", f"{tmp_path}/outside"))
    again = exported("hf", done.path)
    assert (done.path / "notes.txt").exists()
    assert (tmp_path / "outside").exists()
    assert [path.name for path in (again.path / "videos").iterdir()] == ["mine.mov"]


def test_a_file_whose_name_an_export_could_have_needed_stays(
    exported: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard of one's own beside the one that all clips fit into, also where an export has died before its end."""
    folder = exported("webdataset").path
    with monkeypatch.context() as patch:
        patch.setattr(Place, "commit", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            exported("webdataset")
    mine = folder / "clips-000001.tar"
    mine.write_text("mine")
    exported("webdataset")
    exported("csv", folder)
    assert ([path.name for path in folder.glob("*.tar")], mine.read_text()) == ([mine.name], "mine")


@pytest.mark.parametrize("name", ["clips.csv", "videos/*.mp4"])
def test_a_file_of_somebody_else_is_not_written_over(exported: Export, tmp_path: Path, name: str) -> None:
    """The refusal names it and what to do; the export that is there stays whole, and goes on once it is away."""
    name = next(path for path in contents(exported("csv").path) if Path(path).match(name))
    folder = exported("webdataset").path
    mine = folder / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    before = contents(folder)
    with pytest.raises(InputError, match=rf"{name} is your own.*move it away.*Nothing was exported"):
        exported("csv", folder)
    assert contents(folder) == before
    mine.unlink()
    assert exported("csv", folder).clips == 4


def test_a_shard_that_would_be_written_over_a_file_of_somebody_else_is_refused(
    exported: Export, tmp_path: Path
) -> None:
    """Before the export that is there is touched."""
    folder = exported("webdataset").path
    mine = folder / "clips-000002.tar"
    mine.write_text("mine")
    with pytest.raises(InputError, match=r"clips-000002.tar is your own.*Nothing was exported"):
        exported("webdataset", shard_bytes=1_000)
    assert (mine.read_text(), (folder / MARKER).exists()) == ("mine", True)
    mine.rename(tmp_path / "mine.tar")
    assert exported("webdataset", shard_bytes=1_000).shards == 4


def test_an_export_that_lost_its_list_is_not_called_somebody_elses(exported: Export) -> None:
    """Without the checksums nobody knows which files are its own. Those of `sha256sum --binary` are read as well."""
    folder = exported("csv").path
    sums = folder / "SHA256SUMS"
    whole = sums.read_text()
    sums.unlink()
    with pytest.raises(InputError, match=r"SHA256SUMS does not say which files are the export's: restore it"):
        exported("csv", folder)
    sums.write_text(whole.replace("  ", " *"))
    assert exported("csv", folder).clips == 4
    assert sums.read_text() == whole


def test_a_file_in_the_place_of_the_videos_is_refused(exported: Export) -> None:
    """With what to do, and the export that is there stays whole."""
    folder = exported("webdataset").path
    (folder / "videos").write_text("mine")
    with pytest.raises(InputError, match=r"videos is your own.*move it away.*Nothing was exported"):
        exported("csv", folder)
    assert (folder / MARKER).exists()


@pytest.mark.parametrize("form", ["hf", "webdataset"])
def test_killed_at_any_step_it_has_no_marker_and_the_next_export_is_whole(
    exported: Export, tmp_path: Path, form: str
) -> None:
    """At each file that is opened, linked, renamed, cut or deleted: with the marker every checksum holds."""
    whole = contents(exported(form, tmp_path / "whole").path)
    target, steps, unfinished = tmp_path / "killed", 0, 0
    exported(form, target)
    ended = None
    while ended != 0:
        steps += 1
        ended = _export_and_die(exported, form, target, steps)
        there = contents(target)
        if MARKER in there:
            sums = [line.split("  ") for line in there["SHA256SUMS"].decode().splitlines()]
            assert all(hashlib.sha256(there[name]).hexdigest() == digest for digest, name in sums), steps
        else:
            unfinished += 1
        named = {name for name in there if not name.endswith(".part")} - {BEGUN}
        assert all(there[name] == whole[name] for name in named), steps
    assert contents(target) == whole
    assert unfinished > 10


def _export_and_die(exported: Export, form: str, target: Path, step: int) -> int:
    """Export in a process of its own that dies right before the given step below `target`; 0 if it came to its end."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = step

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in ("open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
            left -= any(str(target) in str(argument) for argument in arguments)
            if not left:
                os._exit(9)

    sys.addaudithook(watch)
    try:
        exported(form, target)
    except BaseException:
        os._exit(8)
    os._exit(0)


def test_the_first_export_can_die_at_once(exported: Export, tmp_path: Path) -> None:
    """Before its first sign stands, the folder has at most a temporary file of ours: it is used all the same."""
    target = tmp_path / "hf"
    target.mkdir()
    (target / ".0123456789ab.part").write_text("half")
    assert exported("hf").clips == 4
    assert not (target / ".0123456789ab.part").exists()


def test_a_full_disk_leaves_no_marker(exported: Export, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's failure, in a sentence; the export that was whole before is so no more."""
    exported("webdataset")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pipeline.dataset.sources.write_all", refuse)
    with pytest.raises(MachineError, match="No space left on device"):
        exported("webdataset")
    assert not (tmp_path / "webdataset" / MARKER).exists()


def test_names_that_are_one_on_some_disks_are_told_apart() -> None:
    """Upper and lower case, a name that no file of ours has, and one that is too long get the job's own."""
    paths = ["videos/A-1.mp4", "videos/a-1.mp4", "videos/-x.mp4", f"videos/{'n' * 200}.mp4"]
    state = State()
    state.jobs.update({f"k{n}": JobRecord(f"k{n}", JobState.STORED, path=path) for n, path in enumerate(paths)})
    lines = [Line(n, "row", 1, f"k{n}", "kling-2", {"prompt": "a lamp"}, {}) for n, _ in enumerate(paths)]
    assert [clip.stem for clip in choose_clips(lines, state, {}).clips] == ["A-1", "k1", "k2", "k3"]


@pytest.mark.parametrize("at_once", [1, 3, 2**14])
def test_what_is_said_of_a_clip_is_its_rows_and_its_records(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing instead of a size that nobody knows, a reason only where there is one, a shared job's first row."""
    monkeypatch.setattr(clips, "LINES_AT_ONCE", at_once)
    monkeypatch.setattr("pipeline.report.lines.LINES_AT_ONCE", at_once)
    stored = {"path": "videos/a.mp4", "poster": "posters/a.jpg", "sha256": "f" * 64, "bytes": 7, "error": "6 s"}
    records = [
        JobRecord("k0", JobState.STORED, cost_microusd=1_750_000, ended_us=NOON_US, width=1280, height=720, **stored),
        JobRecord("k1", JobState.STORED, cost_microusd=3_500_000, error_class="not_as_asked", **stored),
        JobRecord("k2", JobState.FAILED, error_class="input_refused", **stored),
        JobRecord("k3", JobState.STORED, **stored),
    ]
    state = State()
    state.jobs.update({record.job_id: record for record in records})
    image = {"start_image": "https://example.com/a.png"}
    asked = [("k2", {}), ("k3", {"mood": 1}), ("k0", image), ("k1", {}), ("k0", {})]
    lines = [
        Line(n, f"r{n}", n + 1, job, "kling-2", {"prompt": f"p{n}", **own}, own) for n, (job, own) in enumerate(asked)
    ]
    chosen = choose_clips(lines, state, {})
    table = clips_table(chosen.clips, "videos/")
    rows = {row["job_id"]: row for row in table.to_pylist()}
    assert [(row["job_id"], row["id"], row["replicate"], row["prompt"]) for row in rows.values()] == [
        ("k3", "r1", 2, "p1"),
        ("k0", "r2", 3, "p2"),
        ("k1", "r3", 4, "p3"),
    ]
    assert [row["video"] for row in rows.values()] == ["videos/a.mp4", "videos/k0.mp4", "videos/k1.mp4"]
    assert (rows["k0"]["width"], rows["k0"]["height"], rows["k3"]["width"], rows["k3"]["height"]) == (
        1280,
        720,
        None,
        None,
    )
    assert [row["not_as_asked"] for row in rows.values()] == [None, None, "6 s"]
    assert [row["cost_usd"] for row in rows.values()] == ["0.00", "1.75", "3.50"]
    assert [row["finished_at"] for row in rows.values()] == [None, iso(NOON_US), None]
    assert [row["mood"] for row in rows.values()] == [1, None, None]
    assert [(clip.job_id, clip.id, clip.stem, clip.path, clip.poster, clip.bytes) for clip in chosen.clips] == [
        (name, row["id"], row["video"][7:-4], "videos/a.mp4", "posters/a.jpg", 7) for name, row in rows.items()
    ]
    assert chosen.not_stored == {"failed": 1}
    told = card(table, facts := CardFacts("x", "mit", False, "*", "", 0, {}, 0, (), ())).decode()
    assert "unknown (2), 1280x720 (1)" in told
    assert f"{iso(NOON_US)[:10]} to {iso(NOON_US)[:10]}" in told
    assert "image-to-video" not in card(table.slice(0, 1), facts).decode()
    assert "image-to-video" in told


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        (["mood=cozy"], ["test-1", "train", "train"]),
        (["mood=calm"], ["twin"]),
        (["mood=cozy", "mood=bold"], ["test-1", "v1.2", "train", "train"]),
        (["mood=cozy", "replicate=2"], ["train"]),
        (["tags=summer"], ["test-1", "v1.2"]),
        (["tags="], ["train", "train", "twin"]),
        (["duration_s=5"], ["test-1", "train", "train"]),
        (["label=1"], ["test-1"]),
        (["cfg_scale=0.50", "status=stored", "model=kling-2", "id=v1.2"], ["v1.2"]),
    ],
)
def test_where_lets_through_what_the_results_say(exported: Export, where: list[str], ids: list[str]) -> None:
    """Conditions for several columns must all hold, of several for one column one; numbers count by their value."""
    done = exported("csv", where=tuple(where))
    assert pd.read_csv(done.path / "clips.csv")["id"].tolist() == ids


def test_a_video_that_another_row_lets_through_is_not_passed_over(exported: Export) -> None:
    """Two rows share it, and one is calm. Three other stored ones are not."""
    assert exported("csv", where=("mood=calm",)).choice.passed_over == 3


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"where": ("mod=cozy",)}, "no column 'mod'; did you mean 'mood'"),
        ({"where": ("cozy",)}, "'cozy' is no condition"),
        ({"where": ("mood=none",)}, "no stored video for which every --where is true"),
        ({"license": "my own: [x]"}, "short name"),
    ],
)
def test_what_makes_no_sense_is_refused(exported: Export, tmp_path: Path, asked: dict[str, str], said: str) -> None:
    """In a sentence, and no folder is made."""
    with pytest.raises(InputError, match=said.replace("[", r"\[")):
        exported("csv", **asked)
    assert not (tmp_path / "csv").exists()


def test_the_card_says_what_it_is_and_no_text_is_markup(exported: Export) -> None:
    """The front matter is what Hugging Face reads; every value is shown as text, and the licence as unknown."""
    text = (exported("hf").path / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    said = yaml.safe_load(front)
    assert (said["license"], said["license_name"], said["size_categories"]) == ("other", "unknown", ["n<1K"])
    for fact in ("| clips | 4 |", "| cost | $8.75 |", "Licence: unknown", "drawn by the sandbox", "1 of the manifest"):
        assert fact in body
    assert "a&#124;b (2)" in body
    assert "<b>" not in body
    hostile = shown("](x) <img> *a* `b` | c\n# d www.e.f http://g.h a_b _c_")
    assert hostile == (
        "&#93;&#40;x&#41; &#60;img&#62; &#42;a&#42; &#96;b&#96; &#124; c &#35; d &#119;ww.e.f http&#58;//g.h a_b "
        "&#95;c&#95;"
    )
    licensed = (exported("hf", license="cc-by-4.0").path / "README.md").read_text()
    assert "license: cc-by-4.0\npretty_name" in licensed
    assert "as stated by whoever exported it" in licensed


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command, as the shell calls it; its exit code."""
    monkeypatch.setattr(sys, "argv", ["kling-batch", "export", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_tells_people_and_scripts(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short screen or JSON, exit 1 where something was left out, exit 2 where nothing could be exported."""
    to = ("--to", str(tmp_path / "set"))
    assert call(monkeypatch, str(films), *to, "--format", "csv") == 0
    size = sum(path.stat().st_size for path in (films / "videos").iterdir()) / 1_000
    told = (
        f"set: 4 clips, 25.0 s, {size:,.1f} kB, $8.75\n  4 hard links: no room is needed\n  not in it: 1 job pending\n"
    )
    assert capsys.readouterr().out.endswith(told)
    min((films / "videos").iterdir()).unlink()
    assert call(monkeypatch, str(films), *to, "--format", "webdataset", "--shard-size", "1KB", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["clips"], said["shards"], said["exit_code"], len(said["left_out"])) == (3, 3, 1, 1)
    for wrong, why in (
        (["--format", "zip"], "no format 'zip'"),
        (["--format", "webdataset", "--shard-size", "big"], "no size"),
        (["--format", "webdataset", "--shard-size", "2i"], "'2i' is no size; write it like"),
        (["--format", "webdataset", "--shard-size", "1"], "1 bytes is no size from 1KB to 10TB"),
        (["--format", "webdataset", "--shard-size", "11 TB"], "11000000000000 bytes is no size from 1KB to 10TB"),
        (["--format", "csv", "--shard-size", "1GB"], "only --format webdataset"),
        (["--format", "csv", "--to", "ice://bucket/x"], "of a kind that is not known"),
    ):
        assert call(monkeypatch, str(films), *to, *wrong) == 2
        assert why in capsys.readouterr().err

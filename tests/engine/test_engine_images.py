"""Start images that are files: uploaded once per content, before any money is set aside, and never lost in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from nights import AtStart, Night, play
from support import check_bodies, check_books, check_liability, check_videos, durable_state, image_campaign, picture

from pipeline.engine import worker
from pipeline.ledger import segments
from pipeline.ledger.events import Event
from pipeline.ledger.job import JobState
from pipeline.ledger.reading import read_events
from pipeline.manifest import Campaign
from pipeline.provider.client import Client
from pipeline.provider.replies import UploadReply


def uploads(night: Night) -> int:
    """How many uploads the provider has been asked for."""
    return int(night.provider.state()["calls"].get("upload", 0))


def told(night: Night, kind: str) -> list[Event]:
    return [event for event in read_events(night.folder / "ledger") if event.event.value == kind]


def check(night: Night, videos: int) -> None:
    """Covered, explained, byte for byte as recorded, and each prompt billed once."""
    check_liability(night.folder, night.provider.requests())
    check_books(night.folder, night.provider.invoice())
    check_videos(night.folder, night.provider.requests())
    check_bodies(night.folder, night.provider.requests())
    billed = Counter(charge["request"]["prompt"] for charge in night.provider.invoice()["charges"])
    assert (len(billed), billed.total()) == (videos, videos)


@contextlib.contextmanager
def slow_uploads(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Any:
    """Every upload takes so long; tells how many were under way at once, at most."""
    upload, under_way, most = Client.upload, Counter[str](), Counter[str]()

    async def slow(self: Client, data: bytes, media_type: str) -> UploadReply:
        under_way["now"] += 1
        most["at once"] = max(most["at once"], under_way["now"])
        try:
            await asyncio.sleep(seconds)
            return await upload(self, data, media_type)
        finally:
            under_way["now"] -= 1

    monkeypatch.setattr(Client, "upload", slow)
    yield most


def test_each_image_goes_up_once_and_before_its_jobs(tmp_path: Path) -> None:
    """Three rows with two images: two uploads, each in the ledger before anything names its URL."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = image_campaign(tmp_path, 1, 2, 1)
            assert (await night.run(made)).exit_code == 0
            check(night, 3)
            assert uploads(night) == 2
            events = {event.sha256: event for event in told(night, "uploaded")}
            assert {f"sha256:{sha256}" for sha256 in events} == set(made.images)
            assert set(durable_state(night.folder).uploads) == set(made.images)
            sizes = {path.name: path.stat().st_size for path in made.images.values()}
            assert {event.path: event.bytes for event in events.values()} == sizes
            urls = {event.url: event.seq for event in events.values()}
            for reserved in told(night, "reserved"):
                [named] = [seq for url, seq in urls.items() if url and url in (reserved.request or "")]
                assert named < reserved.seq
            results = pd.read_csv(night.folder / "report" / "results.csv")
            assert [str(image) for image in results["start_image"]] == [job.image for job in made.jobs]

    play(main())


def test_a_later_run_uses_what_an_earlier_one_has_uploaded(tmp_path: Path) -> None:
    """New rows with a known image, also under another name, upload nothing; a finished directory asks for nothing."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            await night.run(image_campaign(tmp_path, 1, 2))
            more = image_campaign(tmp_path, 1, 2, 2, 1)
            assert (await night.run(more)).exit_code == 0
            assert uploads(night) == 2
            check(night, 4)
            calls = night.provider.state()["calls"]
            assert (await night.run(more)).exit_code == 0
            assert night.provider.state()["calls"] == calls

    play(main())


@pytest.mark.parametrize("fault", ["upload_429", "upload_500", "upload_drop", "upload_garbage"])
def test_an_upload_that_goes_wrong_is_made_again(tmp_path: Path, fault: str) -> None:
    """A busy, broken or silent storage costs a wait, and nothing is doubted: an upload is free."""

    async def main() -> None:
        async with Night(tmp_path, faults={fault: 1.0}, fault_limit={fault: 2}) as night:
            assert (await night.run(image_campaign(tmp_path, 1, 1))).exit_code == 0
            assert uploads(night) == 3
            assert not told(night, "in_doubt")
            assert {event.error_class for event in told(night, "voided")} <= {"server_error"}
            check(night, 2)

    play(main())


def test_a_storage_that_stays_broken_fails_its_rows_and_no_others(tmp_path: Path) -> None:
    """After the usual attempts the job is given up, unpaid; rows without an image are made."""

    async def main() -> None:
        async with Night(tmp_path, faults={"upload_500": 1.0}) as night:
            result = await night.run(image_campaign(tmp_path, 1, 0))
            assert (result.exit_code, result.summary["failed"], result.summary["stored"]) == (1, 1, 1)
            assert uploads(night) == 4
            check(night, 1)

    play(main())


def test_a_refused_image_fails_its_rows_and_says_why(tmp_path: Path) -> None:
    """One refusal is enough for all rows of the image: no money is set aside alone, and errors.csv tells each."""

    async def main() -> None:
        batches: list[list[str]] = []
        write = segments.write_segment

        def watched(folder: Path, events: Sequence[Event], data: bytes) -> segments.SegmentName:
            batches.append([event.event.value for event in events])
            return write(folder, events, data)

        async with Night(tmp_path, faults={"upload_400": 1.0}) as night:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(segments, "write_segment", watched)
                result = await night.run(image_campaign(tmp_path, 1, 1, 0))
            assert (result.exit_code, result.summary["failed"], result.summary["stored"]) == (1, 2, 1)
            assert uploads(night) == 1
            assert night.posts() == 1
            check(night, 1)
            refusals = [batch for batch in batches if "voided" in batch]
            assert refusals
            assert all(batch.count("reserved") == batch.count("voided") for batch in refusals)
            errors = pd.read_csv(night.folder / "report" / "errors.csv")
            assert [*errors["error_class"]] == ["bad_request"] * 2
            assert [*errors["billed"]] == ["no"] * 2
            assert errors["error"].str.contains("upload of 1.png: HTTP 400").all()

    play(main())


def test_a_key_that_is_refused_for_an_upload_stops_the_run(tmp_path: Path) -> None:
    """No row is burnt: after the cure the same command makes them all."""

    async def main() -> None:
        async with Night(tmp_path, faults={"upload_401": 1.0}, fault_limit={"upload_401": 1}) as night:
            made = image_campaign(tmp_path, 1, 1)
            result = await night.run(made)
            assert (result.exit_code, result.summary["stopped_by"], result.summary["pending"]) == (4, "account", 2)
            assert not told(night, "reserved")
            assert (await night.run(made)).exit_code == 0
            check(night, 2)

    play(main())


@pytest.mark.parametrize("becomes", ["changed", "gone"])
def test_a_file_that_is_not_the_planned_one_any_more_is_not_sent(tmp_path: Path, becomes: str) -> None:
    """The job that was planned fails unpaid and unsent; planned anew, the file is what it is."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = image_campaign(tmp_path, 1, 0)
            pictured = tmp_path / "pics" / "1.png"
            if becomes == "changed":
                picture(pictured, 77)
            else:
                pictured.unlink()
            assert (await night.run(made)).exit_code == 1
            assert uploads(night) == 0
            [failed] = durable_state(night.folder).in_state(JobState.FAILED)
            assert failed.error_class == "bad_image"
            assert "1.png changed since it was planned" in (failed.error or "")
            check(night, 1)
            picture(pictured, 1)
            assert (await night.run(made)).exit_code == 1
            assert (await night.run(made, retry_classes=frozenset())).exit_code == 0
            check(night, 2)

    play(main())


def test_many_rows_of_one_image_wait_for_one_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six rows that come while it is under way start nothing of their own, and then keep their order."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = image_campaign(tmp_path, *[1] * 6)
            starts: list[str] = []
            make = worker.make
            monkeypatch.setattr(worker, "make", lambda run, job: starts.append(job.job_id) or make(run, job))
            with slow_uploads(monkeypatch, 45):
                assert (await night.run(made)).exit_code == 0
            assert uploads(night) == 1
            assert [event.job_id for event in told(night, "reserved")] == [job.job_id for job in made.jobs]
            assert set(Counter(starts).values()) == {2}, "started once to wait and once to be made: nobody spins"
            check(night, 6)

    play(main())


def test_few_images_are_in_the_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six images of up to 10 MiB are not read all together."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            with slow_uploads(monkeypatch, 20) as most:
                assert (await night.run(image_campaign(tmp_path, *range(1, 7)))).exit_code == 0
            assert most["at once"] == 3
            assert uploads(night) == 6
            check(night, 6)

    play(main())


def test_the_last_money_waits_for_the_first_rows_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a cap for one, the row that stands first gets it, though its upload takes a minute."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made: Campaign = image_campaign(tmp_path, 1, 0, 0)
            with slow_uploads(monkeypatch, 60):
                result = await night.run(made, night.config(budget__cap_usd="2.00"))
            assert (result.exit_code, result.summary["stopped_by"]) == (3, "cap")
            assert [event.job_id for event in told(night, "stored")] == [made.jobs[0].job_id]
            check(night, 1)

    play(main())


def test_a_run_that_is_left_in_the_middle_of_an_upload_has_lost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two interrupts end the wait at once; the next run begins that job anew."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = image_campaign(tmp_path, 1)
            with monkeypatch.context() as patch, slow_uploads(patch, 3600):
                loop = asyncio.get_running_loop()

                def leave(live: Any) -> None:
                    for _ in range(2):
                        loop.call_later(30, live.context.stopping.interrupt)

                begun_s = loop.time()
                assert (await night.run(made, watcher=AtStart(leave))).exit_code == 130
                assert loop.time() - begun_s < 60
            assert not told(night, "reserved")
            assert (await night.run(made)).exit_code == 0
            check(night, 1)

    play(main())


@pytest.mark.parametrize(("api", "fault"), [("v2", "submit_drop_after"), ("v1", "submit_504_after"), ("v1", None)])
def test_a_lost_answer_is_found_by_the_url_that_was_sent(tmp_path: Path, api: str, fault: str | None) -> None:
    """Doubt is settled by the recorded body, which names the uploaded image as the history does."""

    async def main() -> None:
        faults = {"faults": {fault: 1.0}, "fault_limit": {fault: 1}} if fault else {}
        async with Night(tmp_path, mean_s=60, **faults) as night:
            made = image_campaign(tmp_path, 1, 2)
            assert (await night.run(made, night.config(provider__api=api))).exit_code == 0
            assert len(told(night, "in_doubt")) == (fault is not None)
            assert night.posts() == 2
            check(night, 2)

    play(main())

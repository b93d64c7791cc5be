"""A provider that remembers, whatever happens to its process."""

import base64
from pathlib import Path
from typing import Any

import pytest
from sandbox_client import HandClock, RawClient

from pipeline.sandbox import Sandbox, SandboxSettings
from pipeline.sandbox.journal import Journal


def settings(folder: Path, clock: HandClock, **more: Any) -> SandboxSettings:
    return SandboxSettings(**{"state_dir": folder, "clock": clock, "clips": "tiny", **more})


async def test_a_restarted_sandbox_knows_its_requests(tmp_path: Path, clock: HandClock) -> None:
    """Generations go on while the process is gone; bill, balance, files, uploads, port and faults are as before."""
    chosen = settings(
        tmp_path, clock, credits_microusd=20_000_000, faults={"gen_failed": 1}, fault_limit={"gen_failed": 1}
    )
    image = "data:image/png;base64," + base64.b64encode(b"picture").decode()
    async with Sandbox(chosen) as sandbox, RawClient(sandbox) as client:
        failed = await client.accepted("one")
        upload = await client.call("POST", "/upload-asset", json={"data_urls": [image]})
        file_url = upload.json["file_urls"][0]
        running = await client.accepted("two", duration=10, start_image=file_url)
        before, url = sandbox.requests(), sandbox.url
    clock.turn(2000)
    async with Sandbox(chosen) as sandbox, RawClient(sandbox) as client:
        assert sandbox.url == url
        assert (await client.status(failed)).json["status"] == "FAILED"
        assert (await client.status(running)).json["status"] == "COMPLETED"
        assert (await client.get((await client.result(running)).json["output"], key=None)).status == 200
        assert (await client.get(file_url, key=None)).body == b"picture"
        after = sandbox.requests()
        same = ("request_id", "ordinal", "body", "cost_microusd", "accepted_at", "faults")
        assert [[item[name] for name in same] for item in after] == [[item[name] for name in same] for item in before]
        bill = sandbox.invoice()
        assert (bill["total_microusd"], bill["accepted"], bill["failed"]) == (3_500_000, 2, 1)
        assert sandbox.state()["credits_microusd"] == 16_500_000
        assert sandbox.state()["faults_fired"] == {"gen_failed": 1}
        third = await client.accepted("three")  # the limit of the fault is used up for good
        clock.turn(2000)
        assert (await client.status(third)).json["status"] == "COMPLETED"
        assert sandbox.requests()[-1]["ordinal"] == 2


async def test_records_expire_while_the_process_is_gone(tmp_path: Path, clock: HandClock) -> None:
    """An hour is an hour, alive or not; the history still leads to the file."""
    chosen = settings(tmp_path, clock)
    async with Sandbox(chosen) as sandbox, RawClient(sandbox) as client:
        request_id = await client.accepted()
    clock.turn(3601)
    async with Sandbox(chosen) as sandbox, RawClient(sandbox) as client:
        assert (await client.status(request_id)).status == 404
        row = (await client.get(f"/inference-request/request-history/{request_id}")).json
        assert (await client.get(row["generation_url"], key=None)).status == 200


async def test_own_clips_are_kept_or_drawn_again(tmp_path: Path, clock: HandClock) -> None:
    """A clip that was drawn before the end keeps its bytes, one that was not is drawn after the restart."""
    chosen = settings(tmp_path, clock, clips="own", mean_s=0)

    async def drawn(sandbox: Sandbox, client: RawClient, request_id: str) -> str:
        await client.completed(request_id)
        return next(str(item["sha256"]) for item in sandbox.requests() if item["request_id"] == request_id)

    async with Sandbox(chosen) as sandbox, RawClient(sandbox) as client:
        kept = await client.accepted("kept")
        first = await drawn(sandbox, client, kept)
        late = await client.accepted("late")
    async with Sandbox(chosen) as sandbox, RawClient(sandbox) as client:
        assert await drawn(sandbox, client, kept) == first
        await drawn(sandbox, client, late)
        assert sandbox.invoice()["total_microusd"] == 3_500_000


async def test_the_rate_window_survives(tmp_path: Path, clock: HandClock) -> None:
    """A restart does not hand out a fresh minute."""
    chosen = settings(tmp_path, clock, rpm=2)
    async with Sandbox(chosen) as sandbox, RawClient(sandbox) as client:
        await client.accepted()
        await client.accepted()
    clock.turn(30)
    async with Sandbox(chosen) as sandbox, RawClient(sandbox) as client:
        assert (await client.submit()).status == 429
        clock.turn(30)
        assert (await client.submit()).status == 200


async def test_an_accepted_job_is_on_disk_before_its_reply(tmp_path: Path, clock: HandClock) -> None:
    """At the instant of acceptance, and before any reply, the journal already holds the request."""
    seen: list[bool] = []

    def hook(name: str, facts: dict[str, Any]) -> None:
        if name == "submit_accepted":
            seen.append(facts["request_id"].encode() in (tmp_path / "journal.jsonl").read_bytes())

    async with Sandbox(settings(tmp_path, clock, on_event=hook)) as sandbox, RawClient(sandbox) as client:
        await client.accepted()
    assert seen == [True]


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    """Whatever byte a kill cut the last record at, the ones before it stand and the next one is readable."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.add("a", n=1)
    journal.add("b", n=2)
    journal.close()
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        journal = Journal(path)
        assert [record["n"] for record in journal.replay()] == [1]
        journal.add("c", n=3)
        journal.close()
        again = Journal(path)
        assert [record["n"] for record in again.replay()] == [1, 3]
        again.close()


def test_one_memory_has_one_owner(tmp_path: Path) -> None:
    """A second sandbox on the same folder is refused while the first lives."""
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(BlockingIOError):
        Journal(tmp_path / "journal.jsonl")
    journal.close()
    Journal(tmp_path / "journal.jsonl").close()


async def test_a_busy_port_is_no_reason_to_fail(tmp_path: Path, clock: HandClock) -> None:
    """When the remembered port is taken, another one is."""
    async with Sandbox(settings(tmp_path / "one", clock)) as first:
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "port").write_text(first.url.rsplit(":", 1)[1])
        async with Sandbox(settings(tmp_path / "two", clock)) as second:
            assert first.url != second.url

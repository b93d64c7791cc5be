"""One file, the environment and the command line become one configuration, or a list of all that is wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config, dump_config, load_config, read_key, read_webhook
from pipeline.kernel.errors import InputError

Load = Callable[..., Config]

GOLDEN = """
provider:
  kind: sandbox
  api: v2
  base_url: https://api.segmind.com
  storage_url: https://workflows-api.segmind.com
  history_url: https://api.spotprod.segmind.com
  api_key_env: SEGMIND_API_KEY
  output_hosts: ["*.segmind.com"]
  time_scale: 1
budget:   {cap_usd: "100.00", stop_below_credits_usd: "0", prices_usd: {"5": "1.75", "10": "3.50"}}
limits:   {requests_per_minute: 50, max_in_flight: 40, adaptive: true, count_polls: true}
polling:  {expected_s: 317, min_interval_s: 2, max_interval_s: 30, give_up_s: 3600}
retry:    {max_attempts: 4, base_delay_s: 2, max_delay_s: 120}
timeouts: {connect_s: 10, submit_s: 60, read_s: 60, blocking_submit_s: 1800, download_s: 600}
stop:     {after: null, until: null, failure_rate: 0.5, failure_window: 20}
canary:   {jobs: 0}
in_doubt: {settle_after_s: 7200, wait_s: 300}
media:    {verify: frames, executor: local, workers: 2, scheduler: null}
output:   {dir: outputs, local_dir: outputs, keep_videos: true}
notify:   {webhook_env: null}
"""
"""The published table of keys and defaults."""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(text, "--set text", …, env={}, **{"section.key": flag})`, away from the machine's own environment."""

    def load_text(text: str | None = None, *settings: str, env: dict[str, str] | None = None, **flags: Any) -> Config:
        path = None
        if text is not None:
            path = tmp_path / "config.yaml"
            path.write_text(text)
        return load_config(path, flags, list(settings), environment=env or {})

    return load_text


@pytest.fixture
def refused(load: Load) -> Callable[..., str]:
    def refuse(*args: Any, **named: Any) -> str:
        with pytest.raises(InputError) as caught:
            load(*args, **named)
        assert caught.value.exit_code == 2
        return str(caught.value)

    return refuse


@pytest.fixture
def zone() -> Iterator[Callable[[str], None]]:
    """Sets the zone of the local clock."""
    before = os.environ.get("TZ")

    def move(name: str) -> None:
        os.environ["TZ"] = name
        time.tzset()

    yield move
    if before is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = before
    time.tzset()


def test_every_default_is_the_published_one(load: Load) -> None:
    """Keys, their order and their defaults are those of the published table, nothing more and nothing less."""
    golden, ours = yaml.safe_load(GOLDEN), yaml.safe_load(dump_config(load()))
    assert {name: list(section) for name, section in ours.items()} == {
        name: list(section) for name, section in golden.items()
    }
    golden["budget"]["stop_below_credits_usd"] = "0.00"
    assert ours == golden


def test_the_table_itself_can_be_loaded(load: Load) -> None:
    """The table as published is a valid file and says what the defaults say."""
    assert load(GOLDEN).model_dump(exclude={"budget"}) == Config().model_dump(exclude={"budget"})


def test_flags_win_over_set_over_environment_over_file_over_default(load: Load) -> None:
    """Each source wins over those before it."""
    env = {"KLING_BATCH_LIMITS__MAX_IN_FLIGHT": "3"}
    text = "limits: {max_in_flight: 7}"
    flag = {"limits.max_in_flight": "5"}
    assert load().limits.max_in_flight == 40
    assert load(text).limits.max_in_flight == 7
    assert load(text, env=env).limits.max_in_flight == 3
    assert load(text, "limits.max_in_flight=4", env=env).limits.max_in_flight == 4
    assert load(text, "limits.max_in_flight=4", env=env, **flag).limits.max_in_flight == 5


def test_the_file_in_the_working_directory_is_used(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a named file, `./kling-batch.yaml` speaks."""
    monkeypatch.chdir(tmp_path)
    Path("kling-batch.yaml").write_text("limits: {max_in_flight: 9}")
    assert load().limits.max_in_flight == 9


def test_every_mistake_is_told_at_once_with_its_place(refused: Callable[..., str], tmp_path: Path) -> None:
    """Unknown keys and bad values are all named, with file and line, and a suggestion where one is near."""
    text = "bugdet: {}\nlimits:\n  max_in_flite: 3\n  requests_per_minute: -1\nprovider:\n  kind: segmentd\nretry: 5\n"
    lines = refused(text, "budget.cap_usd=.inf", "budget.cap=1", env={"KLING_BATCH_X__Y": "1"}).splitlines()
    file = tmp_path / "config.yaml"
    assert set(lines) == {
        f"{file}:1: unknown key `bugdet`; did you mean `budget`?",
        f"{file}:3: unknown key `limits.max_in_flite`; did you mean `max_in_flight`?",
        f"{file}:4: `limits.requests_per_minute`: must be more than 0, not -1",
        f"{file}:6: `provider.kind`: must be sandbox or segmind, not segmentd",
        f"{file}:7: `retry`: is a section: its keys stand below it, indented, not 5",
        "--set budget.cap_usd: .inf is not a finite number; quote it if it is meant as text",
        "--set budget.cap: unknown key `budget.cap`; did you mean `cap_usd`?",
        f"KLING_BATCH_X__Y: there is no section `x`; known: {', '.join(Config.model_fields)}",
    }


@pytest.mark.parametrize(
    ("written", "micro"),
    [("100", 100_000_000), ('"100.00"', 100_000_000), ("0.1", 100_000), ("1.75", 1_750_000), ("010", 10_000_000)],
)
def test_money_is_exact(load: Load, written: str, micro: int) -> None:
    """An amount is taken digit by digit as written, never through a float or an octal."""
    assert load(f"budget: {{cap_usd: {written}}}").cap == micro


@pytest.mark.parametrize(
    "written",
    [".inf", ".nan", "-.inf", "1:30", "1_000", "-5", "0", "0.00", "true", "1e3", '""', "[1]", "1.0000001", '"NaN"'],
)
def test_money_that_is_no_amount_is_refused(refused: Callable[..., str], written: str) -> None:
    """Nothing that YAML could turn into a cap that is none gets through, in any key that holds money."""
    assert ":1: " in refused(f"budget: {{cap_usd: {written}}}")
    assert ":1: " in refused(f'budget: {{prices_usd: {{"5": {written}}}}}')
    if not written.startswith("0"):
        assert ":1: " in refused(f"budget: {{stop_below_credits_usd: {written}}}")


def test_a_float_from_the_python_side_is_no_money(refused: Callable[..., str]) -> None:
    """A float has no exact cents."""
    assert "in quotes" in refused(**{"budget.cap_usd": 1.75})


@pytest.mark.parametrize("key", ["limits.requests_per_minute", "limits.max_in_flight", "timeouts.submit_s"])
@pytest.mark.parametrize("value", ["0", "-1", ".nan", ".inf", "true", "1e3", "1_000", "abc", "null", "", "[]"])
def test_limits_that_are_no_limit_are_refused(refused: Callable[..., str], key: str, value: str) -> None:
    """Zero, negative, not finite, not a number: each is refused, from every source."""
    section, name = key.split(".")
    assert "config.yaml:1: " in refused(f"{section}: {{{name}: {value}}}")
    assert key in refused(None, f"{key}={value}")
    assert section.upper() in refused(env={f"KLING_BATCH_{section.upper()}__{name.upper()}": value})


def test_an_unknown_price_key_is_refused(refused: Callable[..., str]) -> None:
    """A price under a misspelt length would leave the default in force."""
    assert 'there is no length "05"' in refused('budget: {prices_usd: {"05": "9"}}')


@pytest.mark.parametrize(
    ("written", "seconds"), [("90s", 90), ("15m", 900), ("8h", 28_800), ("1.5h", 5_400), ("0.5s", 0.5)]
)
def test_durations(load: Load, written: str, seconds: float) -> None:
    """Seconds, minutes, hours."""
    assert load(f"stop: {{after: {written}}}").stop.after == seconds


@pytest.mark.parametrize("written", ["8", "0s", "-1h", "8 h", "1d", "8h30m", "1e3s", "999999999h", "true", '"٣h"'])
def test_no_durations(refused: Callable[..., str], written: str) -> None:
    """What is no duration is refused with examples of one."""
    assert "90s, 15m or 8h" in refused(f"stop: {{after: {written}}}")


@pytest.mark.parametrize("written", ["6:30", "24:00", "12:60", "630", "noon"])
def test_no_times_of_day(refused: Callable[..., str], written: str) -> None:
    """A time of day has two digits twice."""
    assert "06:30" in refused(f"stop: {{until: {written}}}")


@pytest.mark.parametrize(
    ("zone_name", "now", "until", "hours"),
    [
        ("Europe/Berlin", "2026-06-01T22:00:00+02:00", "06:30", 8.5),
        ("Europe/Berlin", "2026-06-01T06:30:00+02:00", "06:30", 24),
        ("Europe/Berlin", "2026-06-01T00:10:00+02:00", "06:30", 6 + 20 / 60),
        ("Europe/Berlin", "2026-03-28T22:00:00+01:00", "06:30", 7.5),
        ("Europe/Berlin", "2026-10-24T22:00:00+02:00", "06:30", 9.5),
        ("Europe/Berlin", "2026-10-25T02:20:00+02:00", "02:30", 1 / 6),
        ("Europe/Berlin", "2026-10-25T02:40:00+02:00", "02:30", 50 / 60),
        ("Europe/Berlin", "2026-10-25T02:20:00+01:00", "02:30", 1 / 6),
        ("Europe/Berlin", "2026-03-29T01:50:00+01:00", "02:30", 40 / 60),
        ("Asia/Kolkata", "2026-06-01T23:59:00+05:30", "00:00", 1 / 60),
    ],
)
def test_until_is_the_next_such_time(
    load: Load, zone: Callable[[str], None], zone_name: str, now: str, until: str, hours: float
) -> None:
    """The deadline is the next moment at which the local clock shows it, also when the clock is changed that night."""
    zone(zone_name)
    moment = datetime.fromisoformat(now)
    deadline_us = load(f'stop: {{until: "{until}"}}').deadline_us(moment)
    assert deadline_us is not None
    assert deadline_us / 1e6 - moment.timestamp() == pytest.approx(timedelta(hours=hours).total_seconds())


def test_the_earlier_of_two_deadlines_holds(load: Load, zone: Callable[[str], None]) -> None:
    """`after` and `until` together: whichever comes first."""
    zone("UTC")
    now = datetime.fromisoformat("2026-06-01T22:00:00+00:00")
    assert load("stop: {after: 1h, until: '06:30'}").deadline_us(now) == int(now.timestamp() + 3600) * 1_000_000
    assert load().deadline_us(now) is None


def test_a_live_run_must_say_its_cap(load: Load) -> None:
    """The sandbox has a cap without being told; where money moves it must be said."""
    assert load().cap == 100_000_000
    with pytest.raises(InputError, match="a live run needs a cap"):
        _ = load("provider: {kind: segmind}").cap


@pytest.mark.parametrize(
    "url",
    [
        "http://api.segmind.com",
        "https://user:pw@api.segmind.com",
        "https://10.0.0.1",
        "https://169.254.169.254",
        "https://[fd00::1]",
        "https://api.segmind.com/v1",
        "https://api.segmind.com:99999",
        "https://api.segmind.com\\\\@evil.example",
        "ftp://api.segmind.com",
        "api.segmind.com",
        "http://4[]@",
    ],
)
@pytest.mark.parametrize("name", ["base_url", "storage_url", "history_url"])
def test_origins_that_the_key_must_not_travel_to(refused: Callable[..., str], name: str, url: str) -> None:
    """Plain http, private addresses, credentials and paths are refused for each origin, which is named."""
    told = refused(f'provider: {{kind: segmind, {name}: "{url}"}}\nbudget: {{cap_usd: 5}}')
    assert f":1: `provider.{name}`: " in told
    assert "pw" not in told


def test_loopback_is_allowed_only_where_the_base_is_loopback(load: Load, refused: Callable[..., str]) -> None:
    """A double on this machine may be spoken to over plain http, and then only by saying so."""
    local = "http://127.0.0.1:8080"
    assert load(f'provider: {{kind: segmind, base_url: "{local}", storage_url: "{local}"}}').is_live
    assert "storage_url" in refused(f'provider: {{kind: segmind, storage_url: "{local}"}}')


def test_a_key_for_a_double_on_this_machine_goes_nowhere_else_unless_told(load: Load) -> None:
    """History and storage are the double's, too: another account's history would tell nothing true about its jobs."""
    local, told = "http://127.0.0.1:8080/", "https://history.example.com"
    settings = load(f'provider: {{kind: segmind, base_url: "{local}"}}').provider_settings()
    assert {settings.base_url, settings.storage_url, settings.history_url} == {local.rstrip("/")}
    settings = load(f'provider: {{kind: segmind, base_url: "{local}", history_url: "{told}"}}').provider_settings()
    assert (settings.storage_url, settings.history_url) == (local.rstrip("/"), told)
    elsewhere = load('provider: {kind: segmind, base_url: "https://other.example.com"}').provider_settings()
    assert elsewhere.history_url == "https://api.spotprod.segmind.com"


@pytest.mark.parametrize(
    "text",
    [
        'output: {local_dir: "s3://bucket/runs"}',
        'media: {scheduler: "tcp://10.0.0.5:8786"}',
        "polling: {min_interval_s: 31}",
    ],
)
def test_what_cannot_be_done_is_refused_by_name(refused: Callable[..., str], text: str) -> None:
    """A key that would be ignored silently is refused instead: nobody would read it, or it would not work."""
    section, key = text.split(":")[0], text.split("{")[1].split(":")[0]
    assert f":1: `{section}.{key}`: is " in refused(text)


def test_all_that_cannot_be_done_is_told_at_once(refused: Callable[..., str]) -> None:
    """Two such keys are two lines."""
    both = 'output: {local_dir: "s3://bucket/runs"}\nmedia: {scheduler: "tcp://10.0.0.5:8786"}'
    assert len(refused(both).splitlines()) == 2


@pytest.mark.parametrize("address", ["tcp://10.0.0.5:8786", "tls://dask.example.com:8786", "tcp://[::1]:1"])
def test_a_dask_scheduler_has_an_address(load: Load, refused: Callable[..., str], address: str) -> None:
    """With protocol and port; what is none is refused before anything begins."""
    assert load(f'media: {{executor: dask, scheduler: "{address}"}}').media_settings().scheduler == address
    for wrong in (
        address.split("//")[1],
        address.rpartition(":")[0],
        address.replace("t", "ht", 1),
        f"{address}/x",
        "",
    ):
        assert "address of a Dask scheduler" in refused(f'media: {{executor: dask, scheduler: "{wrong}"}}')


def test_an_empty_section_says_nothing(load: Load) -> None:
    """A section whose keys are all commented out is as if it were not there."""
    assert load("limits:\nbudget:\n") == Config()
    assert load("") == Config()


@pytest.mark.parametrize("hosts", ["[]", '["*"]', '["http://x.com"]', "x.com", '[""]'])
def test_output_hosts_are_hosts(refused: Callable[..., str], hosts: str) -> None:
    """Nothing to fetch from would leave every paid video unfetched; everything to fetch from is no list."""
    assert "provider.output_hosts" in refused(f"provider: {{output_hosts: {hosts}}}")


def test_the_key_is_no_name(refused: Callable[..., str]) -> None:
    """The key itself, written where its variable's name belongs, is refused and not shown."""
    assert "SG_1234" not in refused("provider: {api_key_env: SG_1234567890abcdef}")
    assert "SG_1234" not in refused(None, "provider.api_key=SG_1234567890abcdef")


def test_the_key_comes_from_the_environment_or_dotenv(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment first, then `.env` here; without either there is one sentence that says what to do."""
    monkeypatch.chdir(tmp_path)
    config = load("provider: {kind: segmind}\nbudget: {cap_usd: 5}")
    with pytest.raises(InputError, match=r"^no API key: set SEGMIND_API_KEY .* Nothing was sent\.$"):
        read_key(config, {})
    Path(".env").write_text('SEGMIND_API_KEY="SG_from_dotenv_1"\n')
    assert read_key(config, {}) == "SG_from_dotenv_1"
    assert read_key(config, {"SEGMIND_API_KEY": "SG_from_environment"}) == "SG_from_environment"
    with pytest.raises(InputError, match="does not hold an API key"):
        read_key(config, {"SEGMIND_API_KEY": "SG_with a space"})
    assert "SG_" not in dump_config(config)
    Path(".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"\.env cannot be read"):
        read_key(config, {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "stop: {after: 400h, until: '06:30'}",
        "stop: {after: 123456.789s}",
        "provider: {time_scale: 0.00001, output_hosts: [cdn.example.com]}",
        "limits: {requests_per_minute: 33.3333}\nretry: {max_delay_s: 999999999}",
        'budget: {cap_usd: "0.000001", prices_usd: {"5": "1.234567"}, stop_below_credits_usd: "12.30"}',
        "output: {dir: 'a: #b é'}\nprovider: {kind: segmind}\nbudget: {cap_usd: 7}",
    ],
)
def test_what_is_written_down_reads_back(load: Load, text: str) -> None:
    """The copy in the run directory is the configuration: loaded again it says the same, word for word."""
    config = load(text)
    again = load(dump_config(config))
    assert again.model_dump(exclude={"budget"}) == config.model_dump(exclude={"budget"})
    now = datetime.now().astimezone()
    assert again.engine_settings(now) == config.engine_settings(now)
    assert [again.price(key) for key in ("5", "10")] == [config.price(key) for key in ("5", "10")]
    assert dump_config(again) == dump_config(config)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A named file must be there and be a file."""
    for path, reason in ((tmp_path / "no.yaml", "no such file"), (tmp_path, "is a directory")):
        with pytest.raises(InputError, match=reason):
            load_config(path, {}, [], environment={})


def test_a_file_without_an_end_is_refused_unread(tmp_path: Path) -> None:
    """A FIFO that nobody writes to and a device would hold the command for ever, or fill the memory."""
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "large.yaml").write_bytes(b"#" * (2**20 + 1))
    for name, reason in (
        ("fifo", "not a regular file"),
        ("zero", "not a regular file"),
        ("large", "larger than 1 MiB"),
    ):
        with pytest.raises(InputError, match=reason):
            load_config(tmp_path / f"{name}.yaml", {}, [], environment={})


HOOK = "https://hooks.example.com/services/T0/B0/secretpath"
LOCAL_HOOK = "http://127.0.0.1:8080/secretpath"
LOCAL = "provider: {kind: segmind, base_url: 'http://127.0.0.1:1', storage_url: 'http://127.0.0.1:1'}\n"
LIVE = "provider: {kind: segmind}\nbudget: {cap_usd: 5}\n"
TELL = "notify: {webhook_env: MY_HOOK}"


def test_a_webhook_is_read_from_the_environment_or_the_env_file(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody is to be told, nothing is read; plain http is good enough for a double on this machine."""
    monkeypatch.chdir(tmp_path)
    assert read_webhook(load(LIVE), {"MY_HOOK": HOOK}) is None
    assert read_webhook(load(LIVE + TELL), {"MY_HOOK": HOOK}) == HOOK
    assert read_webhook(load(LOCAL + TELL), {"MY_HOOK": LOCAL_HOOK}) == LOCAL_HOOK
    assert read_webhook(load(TELL), {"MY_HOOK": LOCAL_HOOK}) == LOCAL_HOOK
    (tmp_path / ".env").write_text(f"MY_HOOK={HOOK}\n")
    assert read_webhook(load(LIVE + TELL), {}) == HOOK


@pytest.mark.parametrize(
    "url",
    [
        *("", "secretpath", "ftp://hooks.example.com/secretpath", "https:///secretpath", "https://[secretpath"),
        "https://secretpath[]@",
        *("http://hooks.example.com/secretpath", LOCAL_HOOK, f"{HOOK} x", f"{HOOK}\n", f"{HOOK}\u00e9"),
        f"{HOOK}{'x' * 3_000}",
    ],
)
def test_a_webhook_that_may_not_be_told_is_refused_and_not_shown(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Plain http to a public host, another scheme, no host, no address at all: one sentence that names the variable."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"MY_HOOK.*Nothing was sent") as refusal:
        read_webhook(load(LIVE + TELL), {"MY_HOOK": url})
    assert "secretpath" not in str(refusal.value)


def test_plain_http_stays_on_this_machine(load: Load) -> None:
    """A provider on this machine lets nobody post in the clear to another."""
    with pytest.raises(InputError, match="MY_HOOK does not hold"):
        read_webhook(load(LOCAL + TELL), {"MY_HOOK": "http://hooks.example.com/x"})


def test_the_address_of_a_webhook_is_no_name(refused: Callable[..., str]) -> None:
    """The address itself, written where its variable's name belongs, is refused and not shown."""
    told = refused(f"notify: {{webhook_env: '{HOOK}'}}")
    assert "the address stays out of here" in told
    assert "secretpath" not in told

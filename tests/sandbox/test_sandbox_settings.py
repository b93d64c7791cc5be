"""What a sandbox can be told."""

from typing import Any

import pytest

from pipeline.sandbox import FAULTS, SandboxSettings
from pipeline.sandbox.__main__ import main, settings_from


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70_000},
        {"port": True},
        {"time_scale": 0},
        {"time_scale": float("nan")},
        {"time_scale": "fast"},
        {"rpm": 0},
        {"max_in_flight": 1.5},
        {"credits_microusd": -1},
        {"credits_microusd": 1.75},
        {"prices_microusd": {5: 1}},
        {"prices_microusd": {5: 1, 10: 2.5}},
        {"charge_at": "never"},
        {"clips": "none"},
        {"v1_body": "xml"},
        {"mean_s": -1},
        {"record_ttl_s": 0},
        {"history_repeats": 0},
        {"faults": {"poll_404": 1.5}},
        {"faults": {"poll_404": True}},
        {"fault_limit": {"poll_404": -1}},
    ],
    ids=str,
)
def test_a_setting_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    """Every wrong setting is a ValueError that names the setting."""
    with pytest.raises(ValueError) as caught:
        SandboxSettings(**wrong)
    assert next(iter(wrong)).split("_")[0] in str(caught.value) or "poll_404" in str(caught.value)


def test_an_unknown_fault_is_refused_with_a_suggestion() -> None:
    """A misspelt fault is answered with the name that was meant."""
    with pytest.raises(ValueError, match=r"did you mean .*submit_504_after"):
        SandboxSettings(faults={"submit_504_aftr": 0.1})
    with pytest.raises(ValueError, match="unknown fault"):
        SandboxSettings(fault_limit={"zzz": 1})


def test_the_command_line_says_all_that_the_settings_can() -> None:
    """Flags become settings, dollars become exact micro-dollars."""
    flags = (
        "--seed 7 --time-scale 100 --rpm 50 --credits 12.25 --clips shared --fault poll_500=0.5",
        "--fault poll_drop=0.1 --fault-limit poll_500=3 --history-lag-s 60 --mean-s 10 --key SG_x",
        "--state-dir somewhere --charge-at complete",
    )
    settings = settings_from(" ".join(flags).split())
    assert settings is not None
    assert (settings.seed, settings.time_scale, settings.rpm, settings.mean_s) == (7, 100.0, 50, 10.0)
    assert settings.credits_microusd == 12_250_000
    assert settings.faults == {"poll_500": 0.5, "poll_drop": 0.1}
    assert settings.fault_limit == {"poll_500": 3}
    assert settings.keys == ("SG_x",)


@pytest.mark.parametrize("flag", ["--fault=nope=1", "--fault=poll_404", "--credits=lots", "--rpm=0"])
def test_a_wrong_flag_is_a_usage_error(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that makes no sense ends with exit code 2 and words, not with a traceback."""
    with pytest.raises(SystemExit) as caught:
        settings_from([flag])
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_catalogue_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """--list-faults names every fault with its sentence."""
    assert main(["--list-faults"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed and text in printed for name, text in FAULTS.items())

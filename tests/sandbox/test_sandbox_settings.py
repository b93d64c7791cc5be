"""What a sandbox can be told."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli import sandbox as command
from pipeline.sandbox import FAULTS, SandboxSettings


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


def test_the_command_line_gives_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags become settings, dollars become exact micro-dollars."""
    served: list[SandboxSettings] = []

    async def serve(settings: SandboxSettings) -> None:
        served.append(settings)

    monkeypatch.setattr(command, "_serve", serve)
    flags = (
        "--seed 7 --time-scale 100 --rpm 50 --credits 12.25 --clips shared --fault poll_500=0.5",
        "--fault poll_drop=0.1 --history-lag-s 60 --state-dir somewhere --port 8787",
    )
    done = CliRunner().invoke(command.sandbox, " ".join(flags).split())
    assert (done.exit_code, done.output) == (0, "")
    assert served == [
        SandboxSettings(
            seed=7,
            time_scale=100.0,
            rpm=50,
            credits_microusd=12_250_000,
            clips="shared",
            faults={"poll_500": 0.5, "poll_drop": 0.1},
            history_lag_s=60.0,
            state_dir=Path("somewhere"),
            port=8787,
        )
    ]


def test_the_catalogue_can_be_printed() -> None:
    """--list-faults names every fault with its sentence."""
    printed = CliRunner().invoke(command.sandbox, ["--list-faults"]).output
    assert all(name in printed and text in printed for name, text in FAULTS.items())

"""The rules, judged by Prometheus' own tool."""

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RULES = sorted((HERE.parents[1] / "alerts").glob("*.rules.yaml"))


def promtool(*argv: str | Path) -> None:
    done = subprocess.run(["promtool", *argv], check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_valid_and_without_a_warning() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)


@pytest.mark.parametrize(
    "case", sorted(HERE.glob("*.test.yaml")), ids=lambda path: path.name.removesuffix(".test.yaml")
)
def test_rules_fire_and_stay_silent(case: Path) -> None:
    promtool("test", "rules", case)

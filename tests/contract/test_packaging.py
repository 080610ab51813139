"""The systemd unit, the example configuration, the wheel."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"
UNIT = PACKAGING / "mecexporter.service"
EXAMPLE = PACKAGING / "config.example.yaml"
EXPOSURE_TENTHS = 30  # 3.0 of 10

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze"
)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as shipped, but for the program, which is not installed here."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/mecexporter/bin/mecexporter", "/bin/true"))
    return copy


@needs_systemd_analyze
def test_unit_is_valid(unit: Path) -> None:
    done = run("systemd-analyze", "verify", "--man=no", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd_analyze
def test_unit_exposes_little(unit: Path) -> None:
    done = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS}", unit)
    assert done.returncode == 0, done.stdout


def test_unit_user_is_made_by_sysusers() -> None:
    (user,) = re.findall(r"^User=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert (PACKAGING / "mecexporter.sysusers").read_text().startswith(f"u {user} ")


def test_unit_and_example_agree_on_directories() -> None:
    example = yaml.safe_load(EXAMPLE.read_text())
    unit = UNIT.read_text()
    assert "RuntimeDirectory=mecexporter\n" in unit
    assert example["web"]["local_socket"] == "/run/mecexporter/api.sock"
    assert "StateDirectory=mecexporter\n" in unit
    assert example["host"]["state_dir"] == "/var/lib/mecexporter"


def effective(config: Path) -> Any:
    done = run(sys.executable, "-m", "mecexporter", "config", "--config", config)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def keys(section: Any) -> Any:
    return {key: keys(value) for key, value in section.items()} if isinstance(section, dict) else None


def test_example_holds_every_key_with_its_default(tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("{}\n")
    defaults = effective(empty)
    assert keys(yaml.safe_load(EXAMPLE.read_text())) == keys(defaults)
    assert effective(EXAMPLE) == defaults


def test_wheel_holds_types_templates_and_the_command(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(ROOT / "pyproject.toml", source)
    (source / "README.md").write_text("# mecexporter\n")
    shutil.copytree(ROOT / "mecexporter", source / "mecexporter", ignore=shutil.ignore_patterns("__pycache__"))
    done = run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", tmp_path, source),
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        names = set(files.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "mecexporter = mecexporter.cli:main" in files.read(entry_points).decode()
    package = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "py.typed", "*.html")
        for path in (ROOT / "mecexporter").rglob(pattern)
    }
    assert package <= names
    assert not [name for name in names if name.startswith("tests/")]

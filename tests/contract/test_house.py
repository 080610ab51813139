"""Rules of the house that a linter does not know."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("state", "sources", "checks", "metrics", "web")
LOCKS = ("requirements-build.txt", "requirements.txt", "requirements-dev.txt")
# Written so that this file does not hold what it looks for.
REGISTRIES = re.compile(
    "|".join(
        name.replace(" ", r"\.")
        for name in (
            "pypi org",
            "pythonhosted org",
            "registry npmjs",
            "registry yarnpkg",
            "proxy golang",
            "deb debian org",
            "archive ubuntu com",
            "docker io",
            "ghcr io",
            "quay io",
        )
    )
)
WORKPLACE = re.compile(r"(?<![\w.~-])/wor[k]/|/opt/wheel[s]\b|\.\./share[d]\b|\.librar[y]/")
WAITING = "tests/waiting.py"  # the one place that sleeps, with a deadline


def tracked() -> list[Path]:
    """Files of the work tree that are in git or could be added, as they are now."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    return [path for name in names.split("\0") if name and (path := ROOT / name).is_file()]


def lines_matching(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    return found


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    return [Requirement(text) for group in (project["dependencies"], *extras) for text in group]


def locked(name: str) -> dict[str, Version]:
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)
    return {canonical(package): Version(version) for package, version in pins}


def canonical(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def test_layers_point_one_way() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


def test_no_registry_host_is_named() -> None:
    assert lines_matching(REGISTRIES) == []


def test_no_path_of_a_workplace_is_named() -> None:
    assert lines_matching(WORKPLACE) == []


def test_no_test_sleeps() -> None:
    guilty = []
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        if path.suffix != ".py" or not name.startswith("tests/") or name == WAITING:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or ast.unparse(node.func).split(".")[-1] != "sleep":
                continue
            if [ast.unparse(argument) for argument in node.args] != ["0"]:  # sleep(0) only lets the event loop turn
                guilty.append(f"{name}:{node.lineno}")
    assert guilty == []


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_each_dependency_has_a_range(requirement: Requirement) -> None:
    operators = {specifier.operator for specifier in requirement.specifier}
    assert operators & {">=", "~="}, "no oldest release"
    assert operators & {"<", "~=", "<="}, "no end"


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_lock_satisfies_each_range(requirement: Requirement) -> None:
    pins = locked("requirements-dev.txt")
    assert canonical(requirement.name) in pins, "not locked: run `make lock`"
    assert pins[canonical(requirement.name)] in requirement.specifier


def test_locks_agree() -> None:
    everything = locked("requirements-dev.txt")
    for name in ("requirements-build.txt", "requirements.txt"):
        assert locked(name).items() <= everything.items()


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_a_hash_for_each_pin_and_names_no_place(name: str) -> None:
    text = (ROOT / name).read_text()
    for block in re.split(r"\n(?=\S)", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)):
        if "==" in block:
            assert "--hash=sha256:" in block, block
    assert not re.search(r"^\s*(--|-[if] )(?!hash)|://", text, re.MULTILINE)


def test_npm_lock_has_integrity_and_no_address() -> None:
    text = (ROOT / "tests/dashview/frontend/package-lock.json").read_text()
    assert '"resolved"' not in text
    assert text.count('"integrity"') == text.count('\n    "node_modules/')


def test_changelog_has_an_unreleased_section() -> None:
    assert re.search(r"^## \[?Unreleased\]?", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_says_what_it_is(layer: str) -> None:
    assert ast.get_docstring(ast.parse((ROOT / "mecexporter" / layer / "__init__.py").read_text()))

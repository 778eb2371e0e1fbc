import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

_REPOSITORY = Path(__file__).parents[1]
_OURS = {"backends", "kaarel_bet"}


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pyproject() -> dict[str, Any]:
    return tomllib.loads((_REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def imported() -> set[str]:
    """The top-level modules that the shipped packages import, the standard library's left out."""
    found: set[str] = set()
    for file in (path for package in _OURS for path in (_REPOSITORY / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - _OURS - sys.stdlib_module_names


def test_everything_that_is_imported_is_declared() -> None:
    project = pyproject()["project"]
    extras = [r for extra in project.get("optional-dependencies", {}).values() for r in extra]
    declared = {normal(re.split(r"[<>=!~;\[ ]", r)[0]) for r in (*project["dependencies"], *extras)}
    providers = packages_distributions()
    undeclared = {
        module
        for module in imported()
        if not declared & {normal(provider) for provider in providers.get(module, [module])}
    }
    assert undeclared == set()


def test_the_versions_that_were_tested_are_named_without_any_address() -> None:
    lines = (_REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if "/" in line or "@" in line or line.startswith("-")]
    tested: dict[str, list[str]] = {}
    for one in map(Requirement, lines):
        tested.setdefault(normal(one.name), []).extend(s.version for s in one.specifier)
    groups = pyproject()["dependency-groups"]
    declared = [*pyproject()["project"]["dependencies"], *groups["dev"], *groups["model"]]
    for wanted in map(Requirement, declared):
        versions = tested[normal(wanted.name)]
        assert versions
        assert all(wanted.specifier.contains(version) for version in versions), wanted


_UV = """#!/usr/bin/env bash
if [ "$1" = lock ]; then cp "${!#}/pyproject.toml" "${!#}/uv.lock"; else echo "uv $*"; fi
"""


def test_a_fresh_clone_is_installed_in_the_versions_that_were_tested(tmp_path: Path) -> None:
    clone, programs = tmp_path / "clone", tmp_path / "bin"
    for file in ("scripts/uv", "constraints.txt", "pyproject.toml", "README.md", "LICENSE"):
        (clone / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_REPOSITORY / file, clone / file)
    programs.mkdir()
    (programs / "uv").write_text(_UV, encoding="utf-8")
    (programs / "uv").chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [clone / "scripts/uv", "run", "two words"],
        check=True,
        env=os.environ | {"PATH": path},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stdout == "uv run two words\n"
    kept = tomllib.loads((clone / "uv.lock").read_text(encoding="utf-8"))["tool"]["uv"]
    lines = (clone / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert kept["constraint-dependencies"] == lines
    assert kept["override-dependencies"] == pyproject()["tool"]["uv"]["override-dependencies"]

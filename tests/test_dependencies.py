import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

_REPOSITORY = Path(__file__).parents[1]
_OURS = {"backends", "kaarel_bet"}


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


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
    project = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [r for extra in project.get("optional-dependencies", {}).values() for r in extra]
    declared = {normal(re.split(r"[<>=!~;\[ ]", r)[0]) for r in (*project["dependencies"], *extras)}
    providers = packages_distributions()
    undeclared = {
        module
        for module in imported()
        if not declared & {normal(provider) for provider in providers.get(module, [module])}
    }
    assert undeclared == set()

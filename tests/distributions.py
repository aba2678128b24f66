"""Reads what pyproject.toml declares, and the installed distributions that it comes to."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
NAME = 'canon-jax'


@cache
def read_project() -> Mapping[str, Any]:
    """Returns the table [project] of pyproject.toml."""
    return tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def normalise(name: str) -> str:
    """Returns the name of a distribution as indexes compare it: 'Array_record' is 'array-record'."""
    return re.sub(r'[-_.]+', '-', name).lower()


def list_extra(extra: str) -> set[str]:
    """Returns the distributions that an extra states, its own extras (`canon-jax[images]`) included."""
    names = set()
    for requirement in map(Requirement, read_project()['optional-dependencies'][extra]):
        if normalise(requirement.name) == NAME:
            names |= set().union(*map(list_extra, requirement.extras))
        else:
            names.add(normalise(requirement.name))
    return names


@cache
def list_core() -> dict[str, metadata.Distribution]:
    """Returns the installed distributions that `pip install canon-jax` brings: dependencies of dependencies, too."""
    waiting, seen = [Requirement(text) for text in read_project()['dependencies']], set()
    while waiting:
        requirement = waiting.pop()
        for extra in {'', *requirement.extras}:
            key = (normalise(requirement.name), extra)
            if key not in seen:
                seen.add(key)
                required = map(Requirement, metadata.requires(requirement.name) or ())
                waiting += [r for r in required if not r.marker or r.marker.evaluate({'extra': extra})]
    return {name: metadata.distribution(name) for name, _ in seen}


@cache
def find_distributions() -> dict[str, set[str]]:
    """Returns {the name that Python imports: the installed distributions that have it}."""
    return {module: set(map(normalise, names)) for module, names in metadata.packages_distributions().items()}

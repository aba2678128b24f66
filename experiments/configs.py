"""Finds the config files of this checkout and reads them (`canon.configuration`)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from canon import configuration

ROOT = Path(__file__).resolve().parents[1]


def find() -> list[str]:
    """Returns the paths of all config files, relative to the root."""
    # Names with an underscore hold shared parts, which make no config themselves.
    return sorted(str(p.relative_to(ROOT)) for p in ROOT.glob('configs/**/*.py') if not p.name.startswith('_'))


def load(source: str) -> ConfigDict:
    """Returns the config of `FILE` or `FILE:ARG`; raises UsageError that names the file and the fix."""
    return configuration.load_config(source, find())


def load_module(source: str) -> ModuleType:
    """Imports the config file of `FILE` or `FILE:ARG`, also for its `sweep()` and `pictures()`."""
    return configuration.load_module(source, find())

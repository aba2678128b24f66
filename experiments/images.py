"""Settings that experiments on images share."""

from __future__ import annotations

from typing import Annotated, Any

from ml_collections import ConfigDict

from canon import named

SHEET = 64  # images on a contact sheet


def reading(config: ConfigDict) -> dict[str, Any]:
    """Returns config.data.batch_size and config.data.reading (threads, workers, memory_limit) as arguments."""
    options = named.call(reading_options, config.data.get('reading', {}), 'data.reading')
    return {'batch_size': config.data.batch_size, **options}


def reading_options(
    threads: Annotated[int, named.Range(0, 256)] = 2,
    workers: Annotated[int, named.Range(0, 256)] = 0,
    memory_limit: named.NonNegative = 1 << 30,
) -> dict[str, Any]:
    """Returns the arguments of `canon.data.Batches` that config.data.reading sets.

    threads: that prepare batches ahead. workers: processes that do it instead; 0 for none.
    memory_limit: bytes up to which decoded examples are kept.
    """
    return {'threads': threads, 'workers': workers, 'memory_limit': memory_limit}

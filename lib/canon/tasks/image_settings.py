"""Settings that tasks on images share: the splits to train and to evaluate on, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from canon import named


@dataclass(frozen=True)
class TrainImages:
    """config.data.train.

    Attributes:
      split: may be sliced, 'train[:90%]'.
      sampler: 'shuffled', 'in_order' or a sampler's mapping (`canon.data.Batches`).
      transforms: a chain (`canon.data.transforms.make_transforms`), applied before the network's input is made.
    """

    split: str
    sampler: Any = 'shuffled'
    transforms: Mapping[str, Any] | None = None


# By keyword, so that a subclass may add fields that have no default.
@dataclass(frozen=True, kw_only=True)
class HeldOutImages:
    """An entry of config.data.evals; experiments add fields.

    Attributes:
      split: of the data, such as 'test' or 'train[90%:]'.
      transforms: a chain (`canon.data.transforms.make_transforms`).
      trained_on: allows images of the training split, to measure how well they are fitted.
    """

    split: str
    transforms: Mapping[str, Any] | None = None
    trained_on: bool = False


def reading_options(
    threads: Annotated[int, named.Range(0, 256)] = 2,
    workers: Annotated[int, named.Range(0, 256)] = 0,
    memory_limit: named.NonNegative = 1 << 30,  # 1 GiB; a larger set is decoded again in each epoch
) -> dict[str, Any]:
    """Returns the arguments of `canon.data.Batches` that config.data.reading sets.

    threads: that prepare batches ahead. workers: processes that do it instead; 0 for none.
    memory_limit: bytes up to which decoded examples are kept.
    """
    return {'threads': threads, 'workers': workers, 'memory_limit': memory_limit}

"""Transforms of an example's fields: which ones, how called, and whether the labels are sound."""

from collections.abc import Mapping

import numpy as np

from canon import named
from canon.data.chain import Transform
from canon.errors import CanonError, UsageError


def keep_fields(fields: tuple[str, ...]) -> Transform:
    """Only `fields`, in that order. Text and ragged fields must go before a batch can be made of them."""
    fields = (fields,) if isinstance(fields, str) else tuple(fields)

    def apply(example, key):
        return {field: _get(example, field) for field in fields}

    return Transform(apply)


def rename(fields: Mapping[str, str]) -> Transform:
    """`{old: new}`; the other fields stay. Raises UsageError, when applied, for a field that is not there."""
    fields = dict(fields)

    def apply(example, key):
        for old in fields:
            _get(example, old)
        return {fields.get(field, field): value for field, value in example.items()}

    return Transform(apply)


def check_label(num_classes: int, field: str = 'label') -> Transform:
    """Raises CanonError, when applied, naming the example whose label is not in 0 .. num_classes - 1."""

    def apply(example, key):
        label = _get(example, field)
        if not np.all((label >= 0) & (label < num_classes)):
            raise CanonError(
                f'example {key.id}: {field} {label} is not in 0..{num_classes - 1}; num_classes={num_classes}'
            )
        return example

    return Transform(apply)


def one_hot(num_classes: int, field: str = 'label') -> Transform:
    """An integer label -> float32 [num_classes]. Raises CanonError, when applied, for a label out of range."""
    check, eye = check_label(num_classes, field), np.eye(num_classes, dtype=np.float32)

    def apply(example, key):
        return {**example, field: eye[check.apply(example, key)[field]]}

    return Transform(apply)


def _get(example, field):
    if field not in example:
        raise UsageError(f'no field is called {field!r}{named.near(field, example)}')
    return example[field]

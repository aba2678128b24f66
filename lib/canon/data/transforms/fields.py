"""Transforms of an example's fields: selecting, renaming, checking labels, padding boxes."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from canon import named
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.source import Example
from canon.errors import CanonError, UsageError


def keep_fields(fields: tuple[str, ...]) -> Transform:
    """Keeps only `fields`, in that order. Texts and ragged fields must go before examples can be stacked.

    Args:
      fields: names of the fields that stay.
    """
    fields = (fields,) if isinstance(fields, str) else tuple(fields)

    def apply(example, key):
        return {field: _get(example, field) for field in fields}

    return Transform(apply)


def rename(fields: Mapping[str, str]) -> Transform:
    """Renames fields by `{old: new}`; the others stay. Raises UsageError, when applied, for a field that is missing."""
    fields = dict(fields)

    def apply(example, key):
        for old in fields:
            _get(example, old)  # raises for a missing field
        return {fields.get(field, field): value for field, value in example.items()}

    return Transform(apply)


def check_label(num_classes: named.Count, field: str = 'label', soft_labels: bool = False) -> Transform:
    """Raises CanonError, when applied, naming the example whose label is not an integer in 0 .. num_classes - 1.

    soft_labels: also accepts a distribution over the classes, float [num_classes].
    """

    def apply(example, key):
        label = np.asarray(_get(example, field))
        if label.ndim or not np.issubdtype(label.dtype, np.integer):
            _check_distribution(label, num_classes, soft_labels, f'example {key.id}: {field}')
        elif not 0 <= label < num_classes:
            raise CanonError(
                f'example {key.id}: {field} {label} is not in 0..{num_classes - 1}; num_classes={num_classes}'
            )
        return example

    return Transform(apply)


def _check_distribution(label: np.ndarray, num_classes: int, soft_labels: bool, what: str) -> None:
    shown = f'{what} is {label.dtype} {list(label.shape)}' if label.ndim else f'{what} {label} is {label.dtype}'
    if not soft_labels:
        hint = '; say loss.soft_labels=True for distributions' if label.shape == (num_classes,) else ''
        raise CanonError(f'{shown}, not one integer{hint}')
    if label.shape != (num_classes,) or not np.issubdtype(label.dtype, np.floating):
        raise CanonError(f'{shown}, neither one integer nor a distribution, float [{num_classes}]')
    # Sums of float32 or of rounded percentages are not exactly 1.
    if not (label >= 0).all() or abs(float(label.sum()) - 1) > 1e-3:
        raise CanonError(
            f'{what} is not a distribution: the least share is {label.min():.4g}, the sum {label.sum():.4g}'
        )


def one_hot(num_classes: named.Count, field: str = 'label') -> Transform:
    """Encodes an integer label as float32 [num_classes]. Raises CanonError, when applied, for a label out of range."""
    check, eye = check_label(num_classes, field), np.eye(num_classes, dtype=np.float32)  # a row per class

    def apply(example, key):
        return {**example, field: eye[check.apply(example, key)[field]]}

    return Transform(apply)


def pad_boxes(
    count: named.Count,
    boxes: str = 'boxes',
    per_box: tuple[str, ...] = ('labels', 'difficult', 'crowd', 'area'),
    valid: str = 'valid',
    overflow: Literal['error', 'truncate'] = 'error',
    truncated: str = 'truncated',
) -> Transform:
    """Pads boxes [K, 4] and their fields with zeros to `count` rows, so that examples can be stacked.

    Args:
      count: rows of the result.
      boxes: field of the boxes.
      per_box: fields with one row per box; those that an example lacks are skipped.
      valid: field to add, bool [count], true on the K real rows.
      overflow: for more boxes than `count`, 'error' raises CanonError when applied. 'truncate' keeps the `count`
        largest, in their order: the smallest are the least visible.
      truncated: field that 'truncate' adds, int32 [], the number of boxes that were left out.

    Raises UsageError for a count that is not positive.
    """
    names = (boxes, *((per_box,) if isinstance(per_box, str) else per_box))
    if count < 1:
        raise UsageError(f'pad_boxes: count={count} is not positive')
    if overflow not in ('error', 'truncate'):
        raise UsageError(f"pad_boxes: overflow={overflow!r} must be 'error' or 'truncate'")

    def apply(example, key):
        corners, out = np.asarray(_get(example, boxes)), dict(example)
        k, rows = len(corners), slice(None)
        if k > count:
            if overflow == 'error':
                raise CanonError(
                    f'pad_boxes: example {key.id} has {k} boxes, more than count={count}; increase count, or set '
                    "overflow='truncate'"
                )
            # The order of the boxes stays: other fields, and ties in an evaluation, may depend on it.
            areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
            rows = np.sort(np.argsort(-areas, kind='stable')[:count])
        for name in names:
            if name in example:
                # Zeros are boxes without area; `valid`, not their content, tells losses and metrics which rows count.
                values = np.asarray(example[name])[rows]
                out[name] = np.concatenate([values, np.zeros((count - len(values), *values.shape[1:]), values.dtype)])
        if overflow == 'truncate':
            out[truncated] = np.int32(max(k - count, 0))
        return {**out, valid: np.arange(count) < k}

    return Transform(apply)


def pad_proposals(count: named.Count, field: str = 'proposals') -> Transform:
    """Gives the proposals [P, 4] of an example, in order of rank, a fixed length, so that examples can be stacked.

    The first `count` are kept, and fewer are padded with zeros. A field `<field>_valid`, bool [count], is added, true
    on the real rows. It belongs after all transforms that move pixels, as `pad_boxes` does.

    Raises UsageError for a count that is not positive.
    """
    if count < 1:
        raise UsageError(f'pad_proposals: count={count} is not positive')

    def apply(example, key):
        boxes = np.asarray(_get(example, field), np.float32).reshape(-1, 4)[:count]
        padded = np.concatenate([boxes, np.zeros((count - len(boxes), 4), np.float32)])
        return {**example, field: padded, f'{field}_valid': np.arange(count) < len(boxes)}

    return Transform(apply)


def _get(example: Example, field: str):
    if field not in example:
        raise UsageError(f'no field is called {field!r}{named.suggest(field, example)}')
    return example[field]

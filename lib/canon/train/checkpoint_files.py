"""The files in the folder of one checkpoint: its trees, the value that ranks it, and what was added to it later."""

from __future__ import annotations

import contextlib
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.tree_util import tree_flatten_with_path

from canon.errors import CanonError, UsageError
from canon.optim.core import path_name
from canon.train.digests import compare_digest, read_digests, write_digests
from canon.train.shard import host_memory
from canon.train.types import State
from canon.train.workdir import replace_text

_VALUE = 'metrics/metrics'  # where Orbax keeps it
_AMENDMENT = 'evaluated.json'  # has a checksum of its own: it is written after the digests


def make_handlers(processes: int) -> Any:
    """Makes writers that take little of the CPU that training needs.

    Compression costs 40 % more time for weights 8 % smaller. The OCDBT format, which gathers the arrays of many
    processes in few files, takes a third longer to write than a file per array, so one process does not use it. Both
    formats are read, whichever wrote them.
    """
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in ('model', 'opt'):
        handler = ocp.PyTreeCheckpointHandler(use_compression=False, use_ocdbt=processes > 1)
        registry.add(item, ocp.args.PyTreeSave, handler)
        registry.add(item, ocp.args.PyTreeRestore, handler)
    registry.add('progress', ocp.args.JsonSave, ocp.JsonCheckpointHandler())
    registry.add('progress', ocp.args.JsonRestore, ocp.JsonCheckpointHandler())
    return registry


def restore_args(target: Any) -> Any:
    """Returns how Orbax restores an item like `target`, an abstract tree with shardings."""
    return ocp.args.PyTreeRestore(item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target))


def _open_reader() -> ocp.Checkpointer:
    """Opens a reader that waits for no other process: a stage that computes reads weights on the first one alone."""
    own = jax.process_index()
    options = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def read_metadata(path: Path) -> Any:
    """Returns the tree of a saved item, with each array's shape and dtype in its place.

    Raises CanonError for an array whose chunks are larger than the array: no such file is ever written, and trying to
    allocate a chunk would end the process.
    """
    with _open_reader() as reader:
        tree: Any = reader.metadata(path).item_metadata.tree
    for name, array in flatten_names(tree).items():
        chunk = getattr(getattr(array, 'storage', None), 'chunk_shape', None) or ()
        if any(c > max(n, 1) for c, n in zip(chunk, array.shape, strict=False)):
            raise CanonError(f'{path}: the array {name} of shape {array.shape} has chunks of {chunk}')
    return tree


def read_numpy(path: Path) -> Any:
    """Returns a saved tree as numpy, whatever devices its arrays were on."""
    stored = read_metadata(path)
    # A damaged shape may ask for petabytes, and the system ends a process that allocates too much.
    memory = host_memory()
    for name, array in flatten_names(stored).items():
        if math.prod(array.shape) * np.dtype(array.dtype).itemsize > memory:
            raise CanonError(f'{path}: the array {name} of shape {array.shape} is larger than the memory')
    with _open_reader() as reader:
        return reader.restore(
            path, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        )


def refuse_misfit(target: State, folder: Path) -> None:
    """Raises UsageError if stored shapes, known before any array is read, differ from those of `target`."""
    stored = name_model_tree(read_metadata(folder / 'model'))
    opt = flatten_names(read_metadata(folder / 'opt'))
    target_opt = flatten_names({'step': target.step, 'opt': target.opt})
    pairs = (('', stored, name_model(target)), ('its optimizer state does not fit: ', opt, target_opt))
    for title, saved, expected in pairs:
        differ = [n for n in sorted(saved.keys() | expected.keys()) if _shape(saved, n) != _shape(expected, n)]
        if differ:
            name = differ[0]
            more = f' ({len(differ)} such)' if len(differ) > 1 else ''
            fix = 'give the config that trained it, or another --workdir'
            if title:  # another optimizer, or one of an earlier version
                fix += '; a new run takes its parameters alone with run.init_from'
            raise UsageError(
                f'checkpoint {folder} is of another model or optimizer: {title}{name} is '
                f'{_shape(saved, name)} there and {_shape(expected, name)} here{more}; {fix}'
            )


def _shape(leaves: Mapping[str, Any], name: str) -> tuple[int, ...] | str:
    return tuple(leaves[name].shape) if name in leaves else 'absent'


def read_value(folder: Path) -> float | None:
    """Returns the value that ranks a checkpoint; None if it has none, or if its file is damaged."""
    try:
        # The value may be written after the digests of the checkpoint, and then has been added to them.
        digest = (read_digests(folder) or {}).get(_VALUE)
        if digest is not None and compare_digest(folder, _VALUE, digest) is not None:
            return None
        value = json.loads((folder / _VALUE).read_text())['value']
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def write_value(folder: Path, value: float) -> None:
    """Writes the value that ranks a checkpoint, with its digest."""
    path = folder / _VALUE
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({'value': value}))
    with contextlib.suppress(ValueError):  # damaged digests condemn the checkpoint anyway
        if read_digests(folder) is not None:
            write_digests(folder, [_VALUE])


def write_amendment(folder: Path, progress: Mapping[str, Any]) -> None:
    """Adds to a checkpoint what was evaluated after it was saved."""
    # The progress is text within JSON, so that the checksum is of the very characters that are read again.
    text = json.dumps(progress)
    replace_text(folder / _AMENDMENT, json.dumps({'crc': zlib.crc32(text.encode()), 'progress': text}))


def read_amendment(folder: Path) -> dict[str, Any]:
    """Returns what was added to a checkpoint; empty if there is nothing, or if it is damaged."""
    try:
        amendment = json.loads((folder / _AMENDMENT).read_text())
        sound = zlib.crc32(amendment['progress'].encode()) == amendment['crc']
        return dict(json.loads(amendment['progress'])) if sound else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def name_model(state: State) -> dict[str, Any]:
    """Returns {name: leaf} of a state's parameters and mutable: `Conv_0/kernel`, `batch_stats/BatchNorm_0/mean`."""
    return name_model_tree({'params': state.params, 'mutable': state.mutable})


def name_model_tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {name: leaf} of a saved model, a mapping with 'params' and 'mutable'."""
    return {**flatten_names(tree.get('params') or {}), **flatten_names(tree.get('mutable') or {})}


def flatten_names(tree: Any) -> dict[str, Any]:
    """Returns {path: leaf} of a tree."""
    return {path_name(path): leaf for path, leaf in tree_flatten_with_path(tree)[0]}


def shorten_error(error: BaseException) -> str:
    """Returns the type of an error and the first 200 characters of its text, in one line."""
    return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'

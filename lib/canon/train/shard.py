"""The layout of arrays over devices: a mesh with axes ('data', 'model'), batches over 'data', parameters by rules."""

from __future__ import annotations

import math
import os
import pickle
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.tree_util import tree_map_with_path

from canon import optim
from canon.errors import UsageError
from canon.optim.core import path_name
from canon.train.types import State, is_carried


def make_mesh(data: int = -1, model: int = 1) -> Mesh:
    """Makes a mesh of data x model devices; a lone process may use some of its devices only.

    Args:
      data: number of devices along 'data'; -1 takes all that `model` leaves.
      model: number of devices along 'model'.

    Raises:
      UsageError: there are too few devices, or a job of several processes would leave some out.
    """
    devices = jax.devices()
    if data == -1:
        data = max(len(devices) // model, 1)
    count = data * model
    if count > len(devices) or (count < len(devices) and jax.process_count() > 1):
        raise UsageError(f'run.mesh: data={data} x model={model} does not fit the {len(devices)} devices of this job')
    # Auto: XLA derives the layout of everything inside the step from that of its arguments and results.
    return Mesh(np.asarray(devices[:count]).reshape(data, model), ('data', 'model'), axis_types=(AxisType.Auto,) * 2)


def make_local_mesh() -> Mesh:
    """Makes a mesh of one device of this process: of a stage that computes on the first process while others wait."""
    return Mesh(np.asarray(jax.local_devices()[:1]).reshape(1, 1), ('data', 'model'), axis_types=(AxisType.Auto,) * 2)


def local_data(data: Any, where: str) -> Any:
    """Returns the data whose batches hold this process's rows; `data` itself in a job of one process.

    Raises UsageError, naming the data by the key `where`, if they have no method `for_process`.
    """
    count = jax.process_count()
    if count == 1:
        return data
    if not hasattr(data, 'for_process'):
        raise UsageError(
            f'{where}: {type(data).__name__} has no method for_process(index, count), by which each of the {count} '
            'processes of a job reads its own rows; add it, or train in one process'
        )
    return data.for_process(jax.process_index(), count)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the layout of a batch: its rows are divided over 'data'."""
    return NamedSharding(mesh, PartitionSpec('data'))


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the layout of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch_size(batch_size: int, mesh: Mesh, where: str, accumulate: int = 1) -> None:
    """Raises UsageError, naming the key `where`, unless devices and microbatches divide the batch."""
    devices = mesh.shape['data']
    if batch_size % (devices * accumulate):
        microbatches = f' x {accumulate} microbatches' if accumulate > 1 else ''
        raise UsageError(
            f'{where}: batch size {batch_size} is not a multiple of {devices} devices{microbatches}; '
            f'try {-(-batch_size // (devices * accumulate)) * devices * accumulate}'
        )


def put(batch: Any, sharding: NamedSharding) -> Any:
    """Puts a batch on the devices; in a job of several processes, `batch` holds the rows of this one."""
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def hand_over(batch: Any, sharding: NamedSharding) -> Any:
    """Returns what a compiled step takes as the batch: arrays on the devices, or for one device those of the host.

    The step itself then puts them there, in a tenth of the time that `put` takes.
    """
    return batch if sharding.mesh.size == jax.process_count() == 1 else put(batch, sharding)


def abstract_batch(batch: Any) -> Any:
    """Returns the shapes and dtypes of what `put` makes of this process's rows: those of all processes."""
    count = jax.process_count()
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(x) * count, *np.shape(x)[1:]), np.asarray(x).dtype), batch)


def param_shardings(params: Any, mesh: Mesh, rules: Sequence = (), fsdp: int | None = None) -> Any:
    """Returns the layout of each parameter: by the first rule that matches its path, else by size, else replicated.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s.
      mesh: the devices.
      rules: pairs (regex, axes), axes the name of a mesh axis or None for each dimension, as in
        `(('Dense_0/kernel', (None, 'model')),)`.
      fsdp: parameters of at least N elements are divided along their longest dimension that 'data' divides (ZeRO:
        Rajbhandari et al. 2020). Each is gathered when a step first needs it (`gather`).
    """

    def choose(path, leaf):
        name = path_name(path)
        for pattern, axes in rules:
            if re.search(pattern, name):
                return NamedSharding(mesh, _check_axes(tuple(axes), leaf.shape, mesh, name))
        if fsdp is not None and leaf.size >= fsdp:
            return NamedSharding(mesh, _divide_longest(leaf.shape, mesh.shape['data']))
        return replicated_sharding(mesh)

    return tree_map_with_path(choose, params)


def gather(params: Any, layout: Any = None) -> Any:
    """Returns the parameters as a step multiplies by them: each whole, where `layout` divides it over 'data'.

    Without `layout`, it is that of the arrays.

    Rows are divided over 'data', too, and of the two the compiler would gather either: rows of all devices, whose bytes
    grow with the number of devices, or the parameters.
    """

    def make_whole(x, sharding):
        axes = [axis if isinstance(axis, tuple) else (axis,) for axis in getattr(sharding, 'spec', ())]
        if not any('data' in axis for axis in axes):
            return x
        rest = PartitionSpec(*(tuple(name for name in axis if name not in ('data', None)) or None for axis in axes))
        return jax.lax.with_sharding_constraint(x, NamedSharding(sharding.mesh, rest))

    if layout is None:
        return jax.tree.map(lambda x: make_whole(x, getattr(x, 'sharding', None)), params)
    return jax.tree.map(make_whole, params, layout)


def state_shardings(
    tx: optax.GradientTransformation, state: State, mesh: Mesh, rules: Sequence = (), fsdp: int | None = None
) -> State:
    """Returns the layout of an (abstract) state.

    The state of the optimizer is laid out like the parameters that it belongs to, and what a row of the batch carries
    like the batch.

    Args:
      tx: the optimizer.
      state: arrays or `jax.ShapeDtypeStruct`s.
      mesh: the devices.
      rules: see `param_shardings`.
      fsdp: see `param_shardings`.
    """
    everywhere, rows = replicated_sharding(mesh), batch_sharding(mesh)
    params = param_shardings(state.params, mesh, rules, fsdp)
    return State(
        step=everywhere,
        params=params,
        mutable=tree_map_with_path(lambda path, _: rows if is_carried(path_name(path)) else everywhere, state.mutable),
        opt=optim.opt_state_shardings(tx, state.params, params, everywhere),
    )


def to_host(tree: Any) -> Any:
    """Returns each array whole, as numpy, on every process; all processes must call it."""

    def fetch(x):
        if not isinstance(x, jax.Array) or x.is_fully_addressable:
            return np.asarray(x)
        # Other processes hold parts of it; a replicated array has a whole copy here, so nothing is sent.
        if x.is_fully_replicated:
            return np.asarray(x.addressable_data(0))
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(fetch, tree)


def to_local(tree: Any) -> Any:
    """Returns each array whole on one device of this process, for computations that other processes do not share.

    All processes must call it. In a job of one process it returns `tree` itself.
    """
    return tree if jax.process_count() == 1 else jax.device_put(to_host(tree), jax.local_devices()[0])


def gather_objects(value: Any) -> list[Any]:
    """Returns the value of each process, in their order, bit by bit; all processes must call it."""
    from jax.experimental import multihost_utils

    data = np.frombuffer(pickle.dumps(value), np.uint8)  # as bytes: without x64 JAX would round float64
    sizes = np.ravel(multihost_utils.process_allgather(np.int32(len(data))))
    # All processes must send arrays of one shape.
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(data)] = data
    gathered = np.reshape(multihost_utils.process_allgather(padded), (len(sizes), -1))
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(gathered, sizes, strict=True)]


def wait_for_all(why: str) -> None:
    """Waits until every process of the job is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(why)


def _check_axes(axes: tuple, shape: tuple[int, ...], mesh: Mesh, name: str) -> PartitionSpec:
    if len(axes) > len(shape):
        raise UsageError(f'run.shard.rules: {axes} has more axes than {name} {shape} has dimensions')
    for size, axis in zip(shape, axes, strict=False):
        if axis is not None and axis not in mesh.shape:
            raise UsageError(f'run.shard.rules: {axis!r} is not an axis of the mesh; there are {tuple(mesh.shape)}')
        if axis is not None and size % mesh.shape[axis]:
            raise UsageError(
                f'run.shard.rules: {name} {shape} cannot be divided into {mesh.shape[axis]} along {axis!r}'
            )
    return PartitionSpec(*axes)


def _divide_longest(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    # The longest dimension leaves the largest pieces; of equal ones the first.
    fitting = [(size, i) for i, size in enumerate(shape) if size % parts == 0 and size > 0]
    if not fitting:
        return PartitionSpec()
    _, longest = max(fitting, key=lambda item: (item[0], -item[1]))
    return PartitionSpec(*('data' if i == longest else None for i in range(len(shape))))


def host_memory() -> int:
    """Returns the bytes of memory of this machine."""
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def device_memory() -> int:
    """Returns the bytes that a device of this process may hold; of a CPU, its share of the host's memory."""
    # A CPU has no statistics; its devices share the memory of the machine.
    limit = (jax.local_devices()[0].memory_stats() or {}).get('bytes_limit')
    return int(limit or host_memory() // jax.local_device_count())


def check_memory(target: State) -> None:
    """Raises UsageError if the devices cannot hold an abstract state, before the system ends the process."""
    needed = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(target))
    if needed > (memory := device_memory()):
        raise UsageError(
            f'parameters and optimizer state take {needed / 2**30:.3g} GiB per device, which holds '
            f'{memory / 2**30:.3g} GiB; take a smaller model, or divide it with run.shard.fsdp'
        )

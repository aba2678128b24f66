"""Where arrays live: a mesh with axes ('data', 'model'), the batch over 'data', parameters as asked."""

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
from jax.tree_util import keystr, tree_map_with_path

from canon import optim
from canon.errors import UsageError
from canon.train.types import State, is_carried


def make_mesh(data: int = -1, model: int = 1) -> Mesh:
    """A mesh of data x model devices; `data=-1` takes what `model` leaves. A lone process may use some of its devices.

    Raises UsageError where there are too few devices, or where a job of several processes would leave some out.
    """
    devices = jax.devices()
    if data == -1:
        data = max(len(devices) // model, 1)
    wanted = data * model
    if wanted > len(devices) or (wanted < len(devices) and jax.process_count() > 1):
        raise UsageError(f'run.mesh: data={data} x model={model} does not fit the {len(devices)} devices there are')
    return Mesh(np.asarray(devices[:wanted]).reshape(data, model), ('data', 'model'), axis_types=(AxisType.Auto,) * 2)


def process_shard() -> tuple[int, int]:
    """Returns (process_index, process_count): which rows of each batch this process reads."""
    return jax.process_index(), jax.process_count()


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
    return NamedSharding(mesh, PartitionSpec('data'))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def check_batch_size(batch_size: int, mesh: Mesh, where: str, accumulate: int = 1) -> None:
    """Raises UsageError where devices and microbatches do not divide the batch."""
    devices = mesh.shape['data']
    if batch_size % (devices * accumulate):
        microbatches = f' x {accumulate} microbatches' if accumulate > 1 else ''
        raise UsageError(
            f'{where}: batch size {batch_size} is not a multiple of {devices} devices{microbatches}; '
            f'try {-(-batch_size // (devices * accumulate)) * devices * accumulate}'
        )


def put(batch: Any, sharding: NamedSharding) -> Any:
    """This process's rows of a batch, as global arrays over the mesh."""
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def abstract_batch(batch: Any) -> Any:
    """The shapes and types of what `put` makes of this process's rows: those of all processes."""
    rows = jax.process_count()
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(x) * rows, *np.shape(x)[1:]), np.asarray(x).dtype), batch)


def param_shardings(params: Any, mesh: Mesh, rules: Sequence = (), fsdp: int | None = None) -> Any:
    """The sharding of each parameter: by the first rule whose regex finds its path, else by size, else replicated.

    rules: pairs (regex, axes), axes the name of a mesh axis or None for each dimension, as in
    `(('Dense_0/kernel', (None, 'model')),)`.
    fsdp: parameters of at least so many elements are cut along their longest dimension that 'data' divides.
    """

    def one(path, leaf):
        name = path_name(path)
        for pattern, axes in rules:
            if re.search(pattern, name):
                return NamedSharding(mesh, _checked(tuple(axes), leaf.shape, mesh, name))
        if fsdp is not None and leaf.size >= fsdp:
            return NamedSharding(mesh, _by_size(leaf.shape, mesh.shape['data']))
        return replicated(mesh)

    return tree_map_with_path(one, params)


def state_shardings(
    tx: optax.GradientTransformation, state: State, mesh: Mesh, rules: Sequence = (), fsdp: int | None = None
) -> State:
    """Shardings for a whole (abstract) state: the optimizer's is laid out like the parameters it belongs to.

    What each row of the batch carries lies with the row.
    """
    everywhere, rows = replicated(mesh), batch_sharding(mesh)
    params = param_shardings(state.params, mesh, rules, fsdp)
    return State(
        step=everywhere,
        params=params,
        mutable=tree_map_with_path(lambda path, _: rows if is_carried(path_name(path)) else everywhere, state.mutable),
        opt=optim.state_shardings(tx, state.params, params, everywhere),
    )


def to_host(tree: Any) -> Any:
    """The whole of each array as numpy, on every process; all processes must call it."""

    def one(x):
        if not isinstance(x, jax.Array) or x.is_fully_addressable:
            return np.asarray(x)
        if x.is_fully_replicated:
            return np.asarray(x.addressable_data(0))
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(one, tree)


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
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(data)] = data
    gathered = np.reshape(multihost_utils.process_allgather(padded), (len(sizes), -1))
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(gathered, sizes, strict=True)]


def wait_for_all(why: str) -> None:
    """Waits until every process of the job is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(why)


def path_name(path) -> str:
    """`Dense_0/kernel` for a leaf's path: what the regex rules of decay, rate, freezing and sharding see."""
    return keystr(path, simple=True, separator='/')


def _checked(axes: tuple, shape: tuple[int, ...], mesh: Mesh, name: str) -> PartitionSpec:
    if len(axes) > len(shape):
        raise UsageError(f'run.shard.rules: {axes} has more axes than {name} {shape} has dimensions')
    for size, axis in zip(shape, axes, strict=False):
        if axis is not None and axis not in mesh.shape:
            raise UsageError(f'run.shard.rules: {axis!r} is no axis of the mesh; there are {tuple(mesh.shape)}')
        if axis is not None and size % mesh.shape[axis]:
            raise UsageError(f'run.shard.rules: {name} {shape} cannot be cut into {mesh.shape[axis]} along {axis!r}')
    return PartitionSpec(*axes)


def _by_size(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    fitting = [(size, i) for i, size in enumerate(shape) if size % parts == 0 and size > 0]
    if not fitting:
        return PartitionSpec()
    _, longest = max(fitting, key=lambda item: (item[0], -item[1]))
    return PartitionSpec(*('data' if i == longest else None for i in range(len(shape))))


def host_memory() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def device_memory() -> int:
    """Bytes that a device of this process may hold; on a CPU its share of the host's memory."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get('bytes_limit')
    return int(limit or host_memory() // jax.local_device_count())


def check_memory(target: State) -> None:
    """Raises UsageError where the devices cannot hold an abstract state, before the system ends the process."""
    needed = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(target))
    if needed > (memory := device_memory()):
        raise UsageError(
            f'parameters and optimizer state take {needed / 2**30:.3g} GiB per device, which holds '
            f'{memory / 2**30:.3g} GiB; take a smaller model, or divide it with run.shard.fsdp'
        )

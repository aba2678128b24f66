"""Reads an optimizer's state, however nested: its hyperparameters, the states of its links, its sharding."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import (
    DictKey,
    FlattenedIndexKey,
    GetAttrKey,
    SequenceKey,
    tree_flatten_with_path,
    tree_unflatten,
)

from canon.errors import UsageError
from canon.named import suggest
from canon.optim.core import Tree, check_range, path_name


def hyperparams(opt_state) -> dict[str, jax.Array]:
    """Returns the hyperparameters in force, {name: scalar}: `learning_rate` is that of the last update.

    If a name occurs several times, a prefix distinguishes them: the label in a partition, the place in a chain. A value
    that `optax.inject_hyperparams` passes to a transform that records it is returned once.
    """
    leaves = tree_flatten_with_path(opt_state)[0]  # by paths, so that containers of other libraries are transparent
    return {name: leaves[place][1] for place, name in _named_places(opt_state, leaves).items()}


def set_hyperparams(opt_state, **values):
    """Returns the state with hyperparameters replaced. Shapes and types stay, so that nothing is compiled again.

    `learning_rate=0.01` sets every learning rate, `**{'head/learning_rate': 0.01}` one of them, by the names of
    `hyperparams`. The value overrides the transform's argument, a constant or a schedule, until `learning_rate=None`
    restores it. Arrays are allowed, as for a sweep under `vmap`. Raises UsageError for an unknown name.
    """
    leaves, treedef = tree_flatten_with_path(opt_state)
    names = _named_places(opt_state, leaves)
    short = {i: name.rpartition('/')[2] for i, name in names.items()}
    new = [leaf for _, leaf in leaves]
    place_of = {path: i for i, (path, _) in enumerate(leaves)}
    for name, value in values.items():
        chosen = [i for i in names if name in (names[i], short[i])]
        if not chosen:
            raise UsageError(f'the optimizer has no hyperparameter {name!r}{suggest(name, names.values())}')
        for i in chosen:
            # `pinned` is a field of the same state as the hyperparameter.
            pinned = place_of.get((*leaves[i][0][:-1], GetAttrKey('pinned')))
            if value is not None:
                new[i] = _like(new[i], value, name)
            elif pinned is None:
                raise UsageError(f'{name}=None: it is not set by an argument, so there is no value to restore')
            if pinned is not None:
                new[pinned] = jnp.full_like(new[pinned], value is not None)
    return tree_unflatten(treedef, new)


def overrides(opt_state) -> dict[str, jax.Array]:
    """Returns the hyperparameters that `set_hyperparams` has set and that therefore override their arguments."""
    leaves = tree_flatten_with_path(opt_state)[0]
    pinned = {path[:-1] for path, leaf in leaves if path and path[-1] == GetAttrKey('pinned') and jnp.any(leaf)}
    return {name: leaves[i][1] for i, name in _named_places(opt_state, leaves).items() if leaves[i][0][:-1] in pinned}


def find_state(opt_state, kind: type) -> Any:
    """Returns the state of a link by its type, however nested: `find_state(state, AdamState).mu`; None without one.

    Raises UsageError if there are several: `find_states` lists them.
    """
    states = find_states(opt_state, kind)
    if len(states) > 1:
        raise UsageError(f'there are {len(states)} {kind.__name__}; use find_states')
    return states[0] if states else None


def find_states(opt_state, kind: type) -> list:
    """Returns the states of all links of a type, in the order of the chain."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]


def opt_state_shardings(tx, params: Tree, param_shardings: Tree, replicated) -> Tree:
    """Returns the sharding of `tx.init(params)`: that of a parameter for its accumulators, `replicated` for the rest.

    A leaf of the state belongs to the parameter whose path is the longest suffix of its own, if their shapes are equal;
    that holds for every transform here and in optax. Use it as
    `jax.jit(tx.init, out_shardings=opt_state_shardings(...))(params)`: zeros depend on no input, so without it they
    would be placed on one device.

    Args:
      tx: the optimizer.
      params: arrays or `jax.ShapeDtypeStruct`s.
      param_shardings: of the parameters.
      replicated: the sharding of everything else.
    """
    shapes = {_keys(path): jnp.shape(p) for path, p in tree_flatten_with_path(params)[0]}
    shardings = dict(zip(shapes, jax.tree.structure(params).flatten_up_to(param_shardings), strict=True))

    def shard_leaf(path, leaf):
        keys = _keys(path)
        suffixes = (keys[start:] for start in range(len(keys) + 1))  # the longest first
        owner = next((suffix for suffix in suffixes if suffix in shapes), None)
        return shardings[owner] if owner is not None and shapes[owner] == leaf.shape else replicated

    # Only shapes and paths are needed, so nothing is allocated.
    return jax.tree_util.tree_map_with_path(shard_leaf, jax.eval_shape(tx.init, params))


def _keys(path) -> tuple[str, ...]:
    return tuple(path_name((key,)) for key in path)


def _named_places(opt_state, leaves: list) -> dict[int, str]:
    """Returns {place: name} of the hyperparameters among the leaves of a state, given with their paths."""
    declared = _declared_paths(opt_state)
    places = [i for i, (path, _) in enumerate(leaves) if path in declared or _is_injected(path)]
    places = [i for i in places if not _is_recorded(leaves[i][0], declared)]
    return dict(zip(places, _names([leaves[i][0] for i in places]), strict=True))


def _declared_paths(tree, prefix: tuple = ()) -> set[tuple]:
    """Returns the paths of the fields that states declare as `HYPERPARAMETERS`, however nested."""
    paths = {(*prefix, GetAttrKey(field)) for field in getattr(type(tree), 'HYPERPARAMETERS', ())}
    # A state may hold others, as that of `schedule_free` does: each declares its own fields.
    nodes = tree_flatten_with_path(tree, is_leaf=lambda n: n is not tree and hasattr(type(n), 'HYPERPARAMETERS'))[0]
    for path, node in nodes:
        if hasattr(type(node), 'HYPERPARAMETERS'):
            paths |= _declared_paths(node, (*prefix, *path))
    return paths


def _is_injected(path) -> bool:
    """Returns whether a leaf is a hyperparameter of optax.inject_hyperparams."""
    injected = len(path) > 1 and isinstance(path[-2], GetAttrKey) and path[-2].name == 'hyperparams'
    return injected and isinstance(path[-1], DictKey)


def _is_recorded(path, recorded: set) -> bool:
    """Returns whether a value of optax.inject_hyperparams is also in the state of the transform it is passed to."""
    if not isinstance(path[-1], DictKey):
        return False
    inner = (*path[:-2], GetAttrKey('inner_state'))
    return any(p[: len(inner)] == inner and p[-1].name == path[-1].key for p in recorded)


def _names(paths: list) -> list[str]:
    """Returns the shortest names that distinguish the paths: the field, then with labels, then with places too."""
    # Labels of partitions and keys of injections are dict keys; places in chains are indices.
    for kinds in ((), (DictKey,), (DictKey, SequenceKey, FlattenedIndexKey)):
        names = [path_name((*(k for k in path[:-1] if isinstance(k, kinds)), path[-1])) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [path_name(path) for path in paths]


def _like(old, value, name: str):
    if isinstance(value, int | float | np.number):
        check_range(name, value, below=1.0 if name.endswith('momentum') else float('inf'))
        return jnp.full_like(old, value)  # with the sharding of the old one
    return jnp.asarray(value, old.dtype)

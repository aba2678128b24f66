"""Looking into an optimizer's state, whatever it is nested in: its hyperparameters, its parts, its layout."""

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

# The fields of states that are hyperparameters. By name, so that wrappers and other libraries' containers
# are no hindrance.
_FIELDS = ('learning_rate', 'momentum', 'weight_decay', 'rate_factor', 'skipped_updates')


def hyperparams(opt_state) -> dict[str, jax.Array]:
    """{name: scalar} of the hyperparameters in force: `learning_rate` is that of the last update.

    A name that occurs several times is led by what tells them apart: the partition's label, the place in a
    chain. What `optax.inject_hyperparams` hands to a transform that records it itself is given once.
    """
    leaves = tree_flatten_with_path(opt_state)[0]
    return {name: leaves[place][1] for place, name in _named_places(leaves).items()}


def set_hyperparams(opt_state, **values):
    """The state with hyperparameters replaced; shapes and types stay, so nothing is compiled anew.

    `learning_rate=0.01` sets every learning rate, `**{'head/learning_rate': 0.01}` one of them (the names
    are those of `hyperparams`). A value so set overrides the transform's argument, a constant or a schedule, until
    `learning_rate=None` hands it back. Arrays are allowed, as for a sweep under `vmap`. Raises UsageError for a name
    that is not there.
    """
    leaves, treedef = tree_flatten_with_path(opt_state)
    names = _named_places(leaves)
    short = {i: name.rpartition('/')[2] for i, name in names.items()}
    new = [leaf for _, leaf in leaves]
    at = {path: i for i, (path, _) in enumerate(leaves)}
    for name, value in values.items():
        chosen = [i for i in names if name in (names[i], short[i])]
        if not chosen:
            raise UsageError(f'the optimizer has no hyperparameter {name!r}{suggest(name, names.values())}')
        for i in chosen:
            pinned = at.get((*leaves[i][0][:-1], GetAttrKey('pinned')))
            if value is not None:
                new[i] = _like(new[i], value, name)
            elif pinned is None:
                raise UsageError(f'{name}=None: no argument decides it, so there is nothing to go back to')
            if pinned is not None:
                new[pinned] = jnp.full_like(new[pinned], value is not None)
    return tree_unflatten(treedef, new)


def overrides(opt_state) -> dict[str, jax.Array]:
    """Those of `hyperparams` that `set_hyperparams` has set, and the argument therefore does not decide."""
    leaves = tree_flatten_with_path(opt_state)[0]
    pinned = {path[:-1] for path, leaf in leaves if path and path[-1] == GetAttrKey('pinned') and jnp.any(leaf)}
    return {name: leaves[i][1] for i, name in _named_places(leaves).items() if leaves[i][0][:-1] in pinned}


def find(opt_state, kind: type) -> Any:
    """The state of one link by its type (`find(state, AdamState).mean`), through any nesting; None without any.

    Raises UsageError where there are several: `find_all` lists them.
    """
    found = find_all(opt_state, kind)
    if len(found) > 1:
        raise UsageError(f'there are {len(found)} {kind.__name__}; use find_all')
    return found[0] if found else None


def find_all(opt_state, kind: type) -> list:
    """The states of all links of that type, in the order of the chain."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]


def state_shardings(tx, params: Tree, param_shardings: Tree, replicated) -> Tree:
    """The layout of `tx.init(params)`: a leaf that mirrors a parameter lies like it, the rest is `replicated`.

    A state's leaf mirrors the parameter whose path ends its own (the longest such) if their shapes are
    equal, which is true of every transform here and in optax. params: arrays or `jax.ShapeDtypeStruct`s. Use
    it as `jax.jit(tx.init, out_shardings=state_shardings(...))(params)`: zeros depend on nothing, so without
    it they land on one device.
    """
    shapes = {_keys(path): jnp.shape(p) for path, p in tree_flatten_with_path(params)[0]}
    shardings = dict(zip(shapes, jax.tree.structure(params).flatten_up_to(param_shardings), strict=True))

    def one(path, leaf):
        keys = _keys(path)
        suffixes = (keys[start:] for start in range(len(keys) + 1))
        owner = next((suffix for suffix in suffixes if suffix in shapes), None)
        return shardings[owner] if owner is not None and shapes[owner] == leaf.shape else replicated

    return jax.tree_util.tree_map_with_path(one, jax.eval_shape(tx.init, params))


def _keys(path) -> tuple[str, ...]:
    return tuple(path_name((key,)) for key in path)


def _named_places(leaves: list) -> dict[int, str]:
    """{place: name} of the hyperparameters among a state's leaves with their paths."""
    places = [i for i, (path, _) in enumerate(leaves) if _is_hyperparam(path)]
    recorded = {leaves[i][0] for i in places if isinstance(leaves[i][0][-1], GetAttrKey)}
    places = [i for i in places if not _is_recorded(leaves[i][0], recorded)]
    return dict(zip(places, _names([leaves[i][0] for i in places]), strict=True))


def _is_hyperparam(path) -> bool:
    if path and isinstance(path[-1], GetAttrKey) and path[-1].name in _FIELDS:
        return True
    injected = len(path) > 1 and isinstance(path[-2], GetAttrKey) and path[-2].name == 'hyperparams'
    return injected and isinstance(path[-1], DictKey)  # optax.inject_hyperparams


def _is_recorded(path, recorded: set) -> bool:
    """Whether a value of optax.inject_hyperparams stands in the state of the transform it is injected into, too."""
    if not isinstance(path[-1], DictKey):
        return False
    inner = (*path[:-2], GetAttrKey('inner_state'))
    return any(p[: len(inner)] == inner and p[-1].name == path[-1].key for p in recorded)


def _names(paths: list) -> list[str]:
    """The shortest names that tell the paths apart: the field, then with labels, then with places too."""
    for kinds in ((), (DictKey,), (DictKey, SequenceKey, FlattenedIndexKey)):
        names = [path_name((*(k for k in path[:-1] if isinstance(k, kinds)), path[-1])) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [path_name(path) for path in paths]


def _like(old, value, name: str):
    if isinstance(value, int | float | np.number):
        check_range(name, value, below=1.0 if name.endswith('momentum') else float('inf'))
        return jnp.full_like(old, value)  # lies where the old one does
    return jnp.asarray(value, old.dtype)

"""Updates small leaves together, as one vector: fewer and longer loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from optax import GradientTransformation, GradientTransformationExtraArgs, MaskedNode, with_extra_args_support

from canon.errors import UsageError
from canon.optim.average import EmaState, LateAverageState
from canon.optim.core import BUCKETS, Tree, to_integer
from canon.optim.descent import LookaheadState, NesterovState
from canon.optim.schedule_free import ScheduleFreeState
from canon.optim.state import find_states
from canon.optim.valley import ValleyState


def bucket_leaves(tx: GradientTransformation, below: int = 16384) -> GradientTransformationExtraArgs:
    """Applies `tx` with all leaves of fewer than `below` elements joined into one vector per type, bitwise equal to
    `tx`.

    A network has a hundred biases and norms, and a CPU spends more time on starting a loop for each than on computing.
    The state of the small leaves is kept joined. Only for element-wise rules: rules that depend on a leaf's path or
    norm (`where`, partition, lamb, muon) raise UsageError inside, and so do averages and Nesterov's look-ahead, which
    are read leaf by leaf. Put these outside. Transforms of other libraries are not checked.
    """
    tx, below = with_extra_args_support(tx), to_integer('below', below, least=0)

    def init(params):
        state = tx.init(_join(params, params, below))
        for kind in (EmaState, LateAverageState, ValleyState, NesterovState, LookaheadState, ScheduleFreeState):
            if find_states(state, kind):  # they are read with the tree of the parameters
                raise UsageError(f'{kind.__name__} cannot be kept in a bucket; put it outside of bucket_leaves')
        return state

    def update(updates, state, params=None, **extra):
        like = updates if params is None else params
        joined = None if params is None else _join(params, like, below)
        new, state = tx.update(_join(updates, like, below), state, joined, **extra)
        return _split(new, updates, like, below), state

    return GradientTransformationExtraArgs(init, update)


def _groups(like: Tree, below: int) -> dict[str, list[int]]:
    """Returns the places of the small leaves by type."""
    groups: dict[str, list[int]] = {}
    for i, leaf in enumerate(jax.tree.leaves(like)):
        if jnp.size(leaf) < below:
            groups.setdefault(jnp.result_type(leaf).name, []).append(i)
    return groups


def _join(tree: Tree, like: Tree, below: int) -> Tree:
    groups = _groups(like, below)
    leaves, treedef = jax.tree.flatten(tree)
    small = {name: jnp.concatenate([jnp.ravel(leaves[i]) for i in places]) for name, places in groups.items()}
    for i in (i for places in groups.values() for i in places):
        leaves[i] = MaskedNode()  # a node without leaves: `tx` passes it by
    return {BUCKETS: small, 'leaves': treedef.unflatten(leaves)}


def _split(joined: Tree, updates: Tree, like: Tree, below: int) -> Tree:
    shapes = [jnp.shape(x) for x in jax.tree.leaves(updates)]
    treedef = jax.tree.structure(updates)
    leaves = treedef.flatten_up_to(joined['leaves'])
    for name, places in _groups(like, below).items():
        ends = np.cumsum([np.prod(shapes[i], dtype=int) for i in places])  # dtype: an empty shape gives 1.0 otherwise
        for i, part in zip(places, jnp.split(joined[BUCKETS][name], ends[:-1]), strict=True):
            leaves[i] = part.reshape(shapes[i])
    return treedef.unflatten(leaves)

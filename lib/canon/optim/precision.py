"""Trains parameters in a narrow type with the precision of float32."""

from __future__ import annotations

from typing import Any, NamedTuple

from optax import GradientTransformation, GradientTransformationExtraArgs, with_extra_args_support

from canon.optim.core import Tree, check_params, per_leaf, require_params, wide, wide_copy


class MasterState(NamedTuple):
    """Holds the float32 parameters of `master_weights`, and the state of its transform."""

    master: Tree
    inner: Any


def master_weights(tx: GradientTransformation) -> GradientTransformationExtraArgs:
    """Updates a float32 copy of the parameters and moves the parameters onto its rounded values.

    Micikevicius et al. 2018, section 3.1. Without it a bfloat16 parameter of 1 never moves by a step below 2^-9. The
    update is the float32 difference to the rounded master, so that `optax.apply_updates` returns the rounded master.
    The copy takes 4 bytes per parameter; float32 parameters do not benefit. Averages inside `tx` are those of the
    master.
    """
    tx = with_extra_args_support(tx)

    def init(params):
        check_params(params)
        master = wide_copy(params)
        return MasterState(master, tx.init(master))

    def update(updates, state, params=None, **extra):
        params = require_params(params, 'master_weights')
        # `tx` gets the master for the parameters, so that decay and averages do not see their rounding.
        updates, inner = tx.update(updates, state.inner, state.master, **extra)

        def kernel(u, master, p):
            master = master + u.astype(master.dtype)
            # The difference of the rounded master, since the update is added to the rounded parameter.
            return wide(master.astype(p.dtype)) - wide(p), master

        updates, master = per_leaf(kernel, updates, state.master, given=(params,))
        return updates, MasterState(master, inner)

    return GradientTransformationExtraArgs(init, update)

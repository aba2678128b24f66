"""The loss of a soft assignment with a row and a column for what stays unmatched (Sarlin et al. 2020, SuperGlue)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def assignment_nll(
    log_plan: jax.Array, columns: jax.Array, valid_rows: jax.Array, valid_columns: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Computes the negative log-likelihood of the true assignment: Sarlin et al. 2020, eq. 10.

    -sum of log P_ij over the true matches (i, j), of log P_i,M+1 over the unmatched rows, and of log P_N+1,j over the
    unmatched columns.

    Args:
      log_plan: log P, [N + 1, M + 1], of `canon.tracking.sinkhorn_log`.
      columns: int [N], the true column of each row, -1 if it has none.
      valid_rows: bool [N], False for padding.
      valid_columns: bool [M], False for padding.

    Returns:
      (the sum, the number of its terms).
    """
    m = log_plan.shape[1] - 1
    of_rows = jnp.take_along_axis(log_plan[:-1], jnp.where(columns >= 0, columns, m)[:, None], axis=1)[:, 0]
    taken = (valid_rows[:, None] & (columns[:, None] == jnp.arange(m))).any(0)
    free = valid_columns & ~taken
    # `where` before the sum: the logarithms of padding are large, and would otherwise reach the gradient.
    total = jnp.where(valid_rows, of_rows, 0).sum() + jnp.where(free, log_plan[-1, :-1], 0).sum()
    return -total, valid_rows.sum() + free.sum()

"""Association: which detection belongs to which track.

All rules that ask for the best assignment are one problem: the matching of largest total weight, in which pairs whose
weight is not positive are never matched (`assign_max_weight`). Gates and limits of cost are ways to write the weights:

| rule | weight of a pair |
|---|---|
| gated: costs above `max_cost` are set to it, assigned, and such pairs dropped (DeepSORT) | max_cost - cost |
| `cost_limit` of lapjv: half of it for each row and each column that stays unmatched (ByteTrack) | cost_limit - cost |
| assigned first, then pairs below `min_weight` dropped (SORT) | the affinity; `assign_then_gate` |

The first two are therefore the same rule, `assign_min_cost`; the third can drop a pair that displaced an acceptable
one. Each function has two forms: numpy arrays are assigned by scipy, and JAX arrays (also within `jit` and `vmap`) by a
program of fixed shape. Both maximise exactly; among equally good assignments they may choose different ones.

    >>> import numpy as np
    >>> assign_min_cost(np.array([[0.1, 0.2], [0.15, 0.9]]), max_cost=0.5).tolist()
    [1, 0]
    >>> match_mutual_best(1 - np.array([[0.1, 0.2], [0.15, 0.9]]), max_rounds=1).tolist()
    [0, -1]
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.optimize import linear_sum_assignment

from canon.tracking.arrays import Array, array_module

Rule = Literal['exact', 'cost_limit', 'greedy', 'mutual_best', 'cascade', 'sinkhorn']
UNMATCHED = -1  # in place of the index of a column
_NOTHING = -1e9  # the logarithm of no mass: unlike those of -inf, its differences are finite


def assign_max_weight(weights: Array) -> Array:
    """Finds the matching of rows and columns with the largest sum of weights.

    The form for JAX first matches the pairs that no rival can displace (see `_match_dominant_pairs`), in rounds over
    the whole matrix, and augments along shortest paths (Jonker and Volgenant 1987) only for rows that still compete:
    for most frames there are none, and the loop ends at once.

    Args:
      weights: [N, M]; pairs with a weight of 0, less, or NaN are never matched.

    Returns:
      int32 [N]: the column of each row, -1 if unmatched. Not differentiable.
    """
    if array_module(weights) is np:
        return _assign_by_scipy(weights)
    weights = lax.stop_gradient(weights)
    weights = jnp.where(weights > 0, weights, 0)
    if not weights.size:
        return jnp.full(weights.shape[0], UNMATCHED, jnp.int32)
    columns, remaining = _match_dominant_pairs(weights)
    return _augment(remaining, columns)


def assign_min_cost(cost: Array, max_cost: float, allowed: Array | None = None) -> Array:
    """Finds the assignment of least cost in which a pair may cost `max_cost`, and leaving it unmatched costs as much.

    Minimises the sum of matched costs + max_cost / 2 for every unmatched row and column: lapjv's `cost_limit`, and
    DeepSORT's gate.

    Args:
      cost: [N, M].
      max_cost: pairs that cost as much or more are never matched.
      allowed: bool [N, M], False for further pairs that must not be matched. None: all may.

    Returns:
      int32 [N]: the column of each row, -1 if unmatched.
    """
    xp = array_module(cost)
    weights = max_cost - cost
    return assign_max_weight(weights if allowed is None else xp.where(allowed, weights, 0))


def assign_then_gate(affinity: Array, min_affinity: float) -> Array:
    """Assigns rows to columns for the largest sum of affinities, then drops pairs below `min_affinity`: SORT's rule.

    Where the pairs above the gate are no rivals of each other they are taken as they are, as in SORT's published code.

    Args:
      affinity: [N, M]; pairs with an affinity of 0 or less are never matched.
      min_affinity: of a pair.

    Returns:
      int32 [N]: the column of each row, -1 if unmatched.
    """
    return assign_gated(affinity, affinity, min_affinity)


def assign_gated(weights: Array, affinity: Array, min_affinity: float) -> Array:
    """Assigns as `assign_then_gate` does, with weights that are not the affinity of the gate: OC-SORT's.

    Args:
      weights: [N, M], whose sum is maximised.
      affinity: [N, M], of the gate.
      min_affinity: pairs below it are dropped.

    Returns:
      int32 [N]: the column of each row, -1 if unmatched.
    """
    xp = array_module(weights)
    if not affinity.size:
        return xp.full(affinity.shape[0], UNMATCHED, xp.int32)
    if xp is np:
        return _assign_gated_by_scipy(weights, affinity, min_affinity)
    close = affinity > min_affinity
    # One program for both cases: without rivals each pair is matched in the first round.
    clear = (close.sum(1) <= 1).all() & (close.sum(0) <= 1).all()
    columns = assign_max_weight(jnp.where(clear, close.astype(weights.dtype), weights))
    matched = affinity[jnp.arange(len(columns)), jnp.maximum(columns, 0)]
    return jnp.where((columns >= 0) & (matched >= min_affinity), columns, UNMATCHED)


def match_mutual_best(weights: Array, max_rounds: int | None = None) -> Array:
    """Matches pairs that are the best of both their row and their column.

    Args:
      weights: [N, M]; pairs with a weight of 0, less, or NaN are never matched.
      max_rounds: repeats among what is unmatched; 1 matches the mutual best alone. None repeats until nothing is left,
        which is greedy matching: the largest weight first.

    Returns:
      int32 [N]: the column of each row, -1 if unmatched. Of equal weights the lower row, then column is matched.
    """
    xp = array_module(weights)
    weights = xp.where(weights > 0, weights, 0)
    columns = xp.full(weights.shape[0], UNMATCHED, xp.int32)
    if not weights.size:
        return columns
    state = columns, weights, xp.asarray(True), xp.asarray(0)

    def match_round(state):
        columns, weights, _, rounds = state
        row_best, best_row = weights.max(1), weights.argmax(0)
        column = weights.argmax(1)
        mutual = (best_row[column] == xp.arange(len(column))) & (row_best > 0)
        columns = xp.where(mutual, column, columns).astype(xp.int32)
        taken = (mutual[:, None] & (column[:, None] == xp.arange(weights.shape[1]))).any(0)
        return columns, xp.where(mutual[:, None] | taken, 0, weights), mutual.any(), rounds + 1

    def unfinished(state):
        return state[2] if max_rounds is None else state[2] & (state[3] < max_rounds)

    if xp is np:
        while unfinished(state):
            state = match_round(state)
        return state[0]
    return lax.while_loop(unfinished, match_round, state)[0]


def associate(rule: Rule, affinity: Array, min_affinity: float, levels: Array) -> Array:
    """Assigns rows to columns by one of the rules of this module, so that they can be compared in one tracker.

    Args:
      rule: 'exact' is `assign_then_gate`; 'cost_limit' is `assign_min_cost` of 1 - affinity, which prefers an unmatched
        pair to one near the gate; 'greedy' is `match_mutual_best` until nothing is left; 'mutual_best' is one round of
        it; 'cascade' is `assign_cascade`; 'sinkhorn' takes the pairs that dominate their row and column of a soft plan.
      affinity: [N, M]; pairs with an affinity of 0 or less are never matched.
      min_affinity: of a pair.
      levels: int [N], frames since a row was last seen, for the cascade.

    Returns:
      int32 [N], the column of each row or -1.
    """
    if rule == 'exact':
        return assign_then_gate(affinity, min_affinity)
    xp = array_module(affinity)
    gated, allowed = xp.where(affinity >= min_affinity, affinity, 0), affinity > 0
    if rule == 'cost_limit':
        return assign_min_cost(1 - affinity, 1 - min_affinity, allowed)
    if rule == 'cascade':
        return assign_cascade(1 - affinity, 1 - min_affinity, levels, allowed)
    if rule == 'sinkhorn':
        # Two unmatched sides weigh as much as a pair at the gate.
        plan = _compute_plan(jnp.asarray(affinity, jnp.float32), min_affinity / 2)[:-1, :-1]
        gated = xp.where(affinity >= min_affinity, xp.asarray(plan), 0)
    return match_mutual_best(gated, None if rule == 'greedy' else 1)


# `backend.jit` is for programs with convolutions, and looks at the device, which an import must not.
@jax.jit
def _compute_plan(weights: jax.Array, unmatched: jax.Array) -> jax.Array:
    return sinkhorn(weights, temperature=0.05, unmatched=unmatched)


def assign_cascade(cost: Array, max_cost: float, levels: Array, allowed: Array | None = None) -> Array:
    """Assigns rows level by level, so that the columns go to low levels first: Wojke et al. 2017, listing 1.

    Args:
      cost: [N, M].
      max_cost: see `assign_min_cost`, which assigns each level.
      levels: int [N], the frames since a track was last seen.
      allowed: bool [N, M]. None: all pairs.

    Returns:
      int32 [N]: the column of each row, -1 if unmatched.
    """
    xp = array_module(cost)
    weights = max_cost - cost if allowed is None else xp.where(allowed, max_cost - cost, 0)
    weights = xp.where(weights > 0, weights, 0)
    levels = xp.where((weights > 0).any(1), levels, -1)  # rows without a candidate would cost rounds in vain
    columns = xp.full(cost.shape[0], UNMATCHED, xp.int32)
    if not cost.size:
        return columns

    def assign_level(level, columns, weights):
        level_columns = assign_max_weight(xp.where((levels == level)[:, None], weights, 0))
        taken = (level_columns[:, None] == xp.arange(weights.shape[1])).any(0)
        return xp.where(level_columns >= 0, level_columns, columns), xp.where(taken, 0, weights)

    if xp is np:
        for level in np.unique(levels[levels >= 0]):
            columns, weights = assign_level(level, columns, weights)
        return columns
    most = jnp.iinfo(jnp.int32).max

    def next_level(level):
        return jnp.where(levels > level, levels, most).min().astype(jnp.int32)

    def step(state):
        level, columns, weights = state
        columns, weights = assign_level(level, columns, weights)
        return next_level(level), columns, weights

    return lax.while_loop(lambda s: s[0] < most, step, (next_level(jnp.int32(-1)), columns, weights))[1]


def sinkhorn(
    weights: jax.Array,
    temperature: float | jax.Array = 0.1,
    iterations: int = 50,
    rows: jax.Array | None = None,
    columns: jax.Array | None = None,
    unmatched: float | jax.Array = 0.0,
) -> jax.Array:
    """Computes a soft assignment that is differentiable, with a row and a column for what stays unmatched.

    The exponential of `sinkhorn_log`, which documents the arguments.

    Returns:
      P [N + 1, M + 1]: the last column holds the probability that a row is unmatched, the last row that of columns.
      Padding has zeros.
    """
    return jnp.exp(sinkhorn_log(weights, temperature, iterations, rows, columns, unmatched))


def sinkhorn_log(
    weights: jax.Array,
    temperature: float | jax.Array = 0.1,
    iterations: int = 50,
    rows: jax.Array | None = None,
    columns: jax.Array | None = None,
    unmatched: float | jax.Array = 0.0,
) -> jax.Array:
    """Computes the logarithm of a soft assignment, as a loss needs it: that of a small probability stays finite.

    Maximises sum P_ij w_ij + temperature H(P), entropy H, over plans whose rows and columns sum to 1 (Cuturi 2013, in
    the logarithm; the further row and column as in Sarlin et al. 2020, eq. 8 to 10). As the temperature goes to 0 the
    plan becomes the assignment of `assign_max_weight` of weights - unmatched; learnt weights may be of either sign.

    Args:
      weights: [N, M].
      temperature: of the entropy; the smaller, the more iterations are needed.
      iterations: of alternately normalising rows and columns.
      rows: bool [N], False for padding. None: all are valid.
      columns: bool [M], likewise.
      unmatched: weight of a row, and of a column, that stays unmatched; learnt in SuperGlue (eq. 8).

    Returns:
      log P [N + 1, M + 1]; the last column and row are those of what is unmatched. Padding has about -1e9.
    """
    n, m = weights.shape
    rows = jnp.ones(n, bool) if rows is None else rows
    columns = jnp.ones(m, bool) if columns is None else columns
    allowed = jnp.pad(rows, (0, 1), constant_values=True)[:, None] & jnp.pad(columns, (0, 1), constant_values=True)
    padded = jnp.full((n + 1, m + 1), unmatched, weights.dtype).at[:n, :m].set(weights)
    scores = jnp.where(allowed, padded / temperature, _NOTHING)

    def log_mass(valid, others):
        count = others.sum().astype(scores.dtype)
        slack = jnp.where(count > 0, jnp.log(jnp.maximum(count, 1)), _NOTHING)
        return jnp.append(jnp.where(valid, jnp.zeros((), scores.dtype), _NOTHING), slack)

    row_mass, column_mass = log_mass(rows, columns), log_mass(columns, rows)

    def normalise(potentials, _):
        u, v = potentials
        u = row_mass - jax.nn.logsumexp(scores + v, 1)
        v = column_mass - jax.nn.logsumexp(scores + u[:, None], 0)
        return (jnp.maximum(u, _NOTHING), jnp.maximum(v, _NOTHING)), None

    start = jnp.zeros(n + 1, scores.dtype), jnp.zeros(m + 1, scores.dtype)
    (u, v), _ = lax.scan(normalise, start, None, length=iterations)
    return jnp.where(allowed, scores + u[:, None] + v, _NOTHING)


def _assign_by_scipy(weights: np.ndarray) -> np.ndarray:
    return _to_columns(len(weights), *_match_by_scipy(weights))


def _assign_gated_by_scipy(weights: np.ndarray, affinity: np.ndarray, min_affinity: float) -> np.ndarray:
    near = np.flatnonzero(affinity > min_affinity)  # faster than `np.nonzero` of two axes
    rows, columns = np.divmod(near, affinity.shape[1])
    if _has_repeats(rows) or _has_repeats(columns):
        rows, columns = _match_by_scipy(weights)
        kept = affinity[rows, columns] >= min_affinity
        rows, columns = rows[kept], columns[kept]
    return _to_columns(len(weights), rows, columns)


def _match_by_scipy(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (rows, columns) of the matched pairs."""
    rows, columns = linear_sum_assignment(np.fmax(weights, 0), maximize=True)  # of NaN and 0, fmax takes 0
    kept = weights[rows, columns] > 0
    return rows[kept], columns[kept]


def _has_repeats(index: np.ndarray) -> bool:
    return len(set(index.tolist())) < len(index)  # some dozens: a set is faster than calls of numpy


def _to_columns(count: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns int32 [count]: the column of each row, -1 if unmatched."""
    result = np.empty(count, np.int32)
    result.fill(UNMATCHED)  # `np.full` takes three times as long
    result[rows] = columns
    return result


def _match_dominant_pairs(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Matches pairs that belong to an optimal matching whatever the rest does, in rounds.

    A matching without (i, j) may have (i, l) and (k, j); replacing both by (i, j) loses nothing if w_ij is at least the
    largest other weight of row i plus the largest other weight of column j. So such pairs are optimal.

    Returns:
      (columns int32 [N], the weights that remain, with 0 for rows and columns that are matched).
    """
    n, m = weights.shape
    row_index, column_index = jnp.arange(n, dtype=jnp.int32), jnp.arange(m, dtype=jnp.int32)

    def match_round(state):
        columns, weights, _ = state
        row_best = weights.max(1)
        column = jnp.where(weights == row_best[:, None], column_index, m).min(1)  # the first of equal ones
        chosen = column[:, None] == column_index
        row_second = jnp.where(chosen, 0, weights).max(1)
        # Largest two weights of each column: of equal ones the first is the best and the other the second.
        column_best = weights.max(0)
        row = jnp.where(weights == column_best, row_index[:, None], n).min(0)
        best_of_column = row_index[:, None] == row
        column_second = jnp.where(best_of_column, 0, weights).max(0)
        dominant = chosen & best_of_column & (weights > 0) & (weights >= row_second[:, None] + column_second)
        matched_row, matched_column = dominant.any(1), dominant.any(0)
        columns = jnp.where(matched_row, column, columns)
        weights = jnp.where(matched_row[:, None] | matched_column, 0, weights)
        return columns, weights, matched_row.any() & (weights > 0).any()

    start = jnp.full(n, UNMATCHED, jnp.int32), weights, (weights > 0).any()
    columns, weights, _ = lax.while_loop(lambda state: state[2], match_round, start)
    return columns, weights


def _augment(weights: jax.Array, columns: jax.Array) -> jax.Array:
    """Matches the rows that have positive weights, exactly: one shortest augmenting path per row.

    Args:
      weights: [N, M], 0 for pairs that must not be matched, as all of rows and columns matched before.
      columns: int32 [N], the matches so far.

    Returns:
      int32 [N].
    """
    n, m = weights.shape
    cost = jnp.where(weights > 0, -weights, jnp.inf)
    column_index, row_index = jnp.arange(m, dtype=jnp.int32), jnp.arange(n, dtype=jnp.int32)

    def augment_row(state):
        todo, u, v, column_of, row_of = state
        source = jnp.argmax(todo).astype(jnp.int32)

        # Dijkstra over columns. A row may also be left unmatched, at a cost of 0: a column of its own that is always
        # free, so that the path may end at any row that it has reached.
        def scan(state):
            row, lowest, shortest, through, scanned, exit_cost, exit_row, _ = state
            reached = lowest + cost[row] - u[row] - v
            closer = (reached < shortest) & ~scanned
            shortest, through = jnp.where(closer, reached, shortest), jnp.where(closer, row, through)
            leaving = lowest - u[row]
            exit_row = jnp.where(leaving < exit_cost, row, exit_row)
            exit_cost = jnp.minimum(leaving, exit_cost)
            open_ = jnp.where(scanned, jnp.inf, shortest)
            column = jnp.argmin(open_).astype(jnp.int32)
            leaves = exit_cost <= open_[column]
            lowest = jnp.where(leaves, exit_cost, open_[column])
            free = row_of[column] < 0
            scanned = scanned | (~leaves & ~free & (column_index == column))
            sink = jnp.where(leaves, m, jnp.where(free, column, UNMATCHED))
            return (
                jnp.where(sink == UNMATCHED, row_of[column], row),
                lowest,
                shortest,
                through,
                scanned,
                exit_cost,
                (exit_row),
                sink,
            )

        infinite = jnp.full(m, jnp.inf, cost.dtype)
        start = (
            source, jnp.zeros((), cost.dtype), infinite, jnp.full(m, UNMATCHED, jnp.int32), jnp.zeros(m, bool),
            jnp.full((), jnp.inf, cost.dtype), source, jnp.int32(UNMATCHED),
        )  # fmt: skip
        _, lowest, shortest, through, scanned, _, exit_row, sink = lax.while_loop(
            lambda s: s[7] == UNMATCHED, scan, start
        )
        # Dual variables of what was scanned, so that reduced costs stay non-negative.
        gain = jnp.where(scanned, lowest - shortest, 0)
        v = v - gain
        u = u.at[jnp.where(scanned, row_of, n)].add(gain, mode='drop').at[source].add(lowest)

        # Back along the path every row takes the column through which it was reached.
        def swap(state):
            column, row, column_of, row_of, _ = state
            freed = column_of[row]
            column_of = column_of.at[row].set(jnp.where(column == m, UNMATCHED, column))
            row_of = row_of.at[column].set(row, mode='drop')
            return freed, through[freed], column_of, row_of, row == source

        row = jnp.where(sink == m, exit_row, through[jnp.minimum(sink, m - 1)])
        back = sink, row, column_of, row_of, jnp.array(False)
        _, _, column_of, row_of, _ = lax.while_loop(lambda s: ~s[4], swap, back)
        return todo & (row_index != source), u, v, column_of, row_of

    todo = (weights > 0).any(1)
    start = (
        todo, jnp.zeros(n, cost.dtype), jnp.zeros(m, cost.dtype), jnp.full(n, UNMATCHED, jnp.int32),
        jnp.full(m, UNMATCHED, jnp.int32),
    )  # fmt: skip
    column_of = lax.while_loop(lambda s: s[0].any(), augment_row, start)[3]
    return jnp.where(todo, column_of, columns)

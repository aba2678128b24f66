"""L2-SP against its gradient, from the parameters that training starts with."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from canon import optim
from canon.errors import UsageError


def test_parameters_are_pulled_to_their_start_and_new_ones_to_zero():
    params = {'head': {'kernel': jnp.array([4.0])}, 'body': {'kernel': jnp.array([1.0, -2.0])}}
    tx = optim.make_optimizer(
        dict(
            chain=('l2_sp', 'sgd'),
            l2_sp=dict(name='add_starting_point_decay', alpha=0.5, beta=0.25, new='^head/'),
            sgd=dict(learning_rate=0.1),
        )
    )
    state = tx.init(params)
    gradient = {'head': {'kernel': jnp.array([1.0])}, 'body': {'kernel': jnp.array([1.0, 0.0])}}
    start, expected = [np.array([1.0, -2.0]), np.array([4.0])], [np.array([1.0, -2.0]), np.array([4.0])]
    for _ in range(3):
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        expected[0] = expected[0] - 0.1 * (np.array([1.0, 0.0]) + 0.5 * (expected[0] - start[0]))
        expected[1] = expected[1] - 0.1 * (1.0 + 0.25 * expected[1])
    head, body = map(np.asarray, jax.tree.leaves(params)[::-1])
    np.testing.assert_allclose(body, expected[0], rtol=1e-6)
    np.testing.assert_allclose(head, expected[1], rtol=1e-6)
    # Without a gradient, what has not moved stays where it is.
    assert body[1] == -2


def test_a_regex_that_matches_nothing_is_refused():
    with pytest.raises(UsageError, match='matches no parameter'):
        optim.add_starting_point_decay(new='heads').init({'head': jnp.zeros(2)})

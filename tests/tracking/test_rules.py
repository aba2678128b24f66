"""Rules of association side by side: where they agree, and cases on which each differs from the exact one."""

from typing import get_args

import jax.numpy as jnp
import numpy as np
import pytest

from canon.tracking.association import Rule, associate

RULES = get_args(Rule)


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('xp', [np, jnp], ids=['numpy', 'jax'])
def test_all_rules_agree_without_rivals(rule, xp):
    affinity = xp.asarray([[0.9, 0.0, 0.0], [0.0, 0.0, 0.8], [0.0, 0.2, 0.0]])
    assert np.asarray(associate(rule, affinity, 0.3, xp.zeros(3, int))).tolist() == [0, 2, -1]


# Row 0 is best with column 0, but the sum is largest if it leaves that to row 1, which has nothing else.
RIVALS = [[0.7, 0.6], [0.65, 0.0]]


@pytest.mark.parametrize(
    ('rule', 'expected'),
    [('exact', [1, 0]), ('cost_limit', [1, 0]), ('sinkhorn', [1, 0]), ('greedy', [0, -1]), ('mutual_best', [0, -1])],
)
def test_greedy_rules_lose_what_the_exact_one_keeps(rule, expected):
    assert associate(rule, np.array(RIVALS), 0.3, np.zeros(2, int)).tolist() == expected


def test_the_mutual_best_of_one_round_leaves_what_greedy_matching_takes():
    affinity = np.array([[0.9, 0.8], [0.7, 0.5]])
    assert associate('mutual_best', affinity, 0.3, np.zeros(2, int)).tolist() == [0, -1]
    assert associate('greedy', affinity, 0.3, np.zeros(2, int)).tolist() == [0, 1]


def test_the_cascade_serves_rows_that_were_seen_last():
    affinity = np.array([[0.9], [0.5]])
    assert associate('cascade', affinity, 0.3, np.array([2, 0])).tolist() == [-1, 0]
    assert associate('exact', affinity, 0.3, np.array([2, 0])).tolist() == [0, -1]

"""Each update against a ten-line float64 oracle, in an open loop: the gradients are recorded, nothing feeds back."""

import jax
import jax.numpy as jnp
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canon import optim as library
from tests.optim.everything import some_fast
from tests.optim.oracles import CASES, SHAPES, worst_error


@pytest.mark.parametrize('case', CASES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_float32(case, shapes, seed):
    make, oracle = CASES[case]
    assert worst_error(make(library), oracle, shapes, seed, 8, jnp.float32) <= 2e-6


@pytest.mark.parametrize('case', CASES)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3), seed=st.integers(0, 2**32 - 1))
def test_float64(case, shapes, seed):
    make, oracle = CASES[case]
    with jax.enable_x64(True):
        assert worst_error(make(library), oracle, shapes, seed, 8, jnp.float64) <= 1e-13


def trees(leaves):
    """Dicts, lists and tuples in one another, with a hole here and there; a leaf is the place of its shape."""
    branches = lambda t: (  # noqa: E731
        st.lists(t, max_size=3)
        | st.tuples(t, t)
        | st.dictionaries(st.sampled_from(['b', 'a', 'kernel']), t, max_size=3)
    )
    return st.recursive(leaves | st.none(), branches, max_leaves=6).filter(lambda tree: jax.tree.leaves(tree))


@pytest.mark.parametrize('case', some_fast(CASES))
@settings(max_examples=4, deadline=None, derandomize=True)
@given(tree=trees(st.integers(0, len(SHAPES) - 1)), seed=st.integers(0, 2**32 - 1))
def test_trees_of_any_form(case, tree, seed):
    make, oracle = CASES[case]
    places, treedef = jax.tree.flatten(tree)
    shapes = [SHAPES[place] for place in places]
    assert worst_error(make(library), oracle, shapes, seed, 3, jnp.float32, treedef.unflatten) <= 2e-6


@pytest.mark.parametrize('case', some_fast(CASES))
def test_a_large_leaf(case):
    make, oracle = CASES[case]
    tx = make(library)
    compiled = optax.GradientTransformation(tx.init, jax.jit(tx.update))
    assert worst_error(compiled, oracle, [(2**17 + 1,), (257, 255)], 0, 3, jnp.float32) <= 2e-6


@pytest.mark.parametrize('case', CASES)
def test_compiled(case):
    """XLA may fuse, contract and reorder; what runs in training is this."""
    make, oracle = CASES[case]
    tx = make(library)
    compiled = optax.GradientTransformation(tx.init, jax.jit(tx.update))
    assert worst_error(compiled, oracle, [(), (7,), (3, 5), (1000,)], 0, 20, jnp.float32) <= 2e-6

"""Decoding of translations: greedy with a cache, compared with no cache and with torch, and a beam of 4 with greedy.

    python -m benchmarks.decoding [--rounds=5] [--only=greedy,beam_4] [--torch=PYTHON]

8 sources of 32 tokens, 64 tokens decoded for each, 3 + 3 layers of d_model 256, 8 heads, d_ff 1024, a vocabulary of
8,000, float32; no row ends before its 64th token. Without a cache each step evaluates the model at all 64 positions. In
torch it is greedy decoding with a cache that is written in place. benchmarks/beside.py explains how the two take turns.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import beside
from benchmarks.beside import Work
from canon import models
from canon.ops import decoding

BATCH, SOURCE, LENGTH, VOCAB, END = 8, 32, 64, 8000, 0


def make_translator() -> tuple[Any, Any, jax.Array, jax.Array]:
    """Returns (model, variables, source tokens [B, S], source lengths [B])."""
    model = models.make_model('transformer.transformer', vocab=VOCAB, layers=3, d_model=256, d_ff=1024, heads=8)
    source = jnp.asarray(np.random.default_rng(0).integers(1, VOCAB, (BATCH, SOURCE)))
    lengths, target = jnp.full(BATCH, SOURCE), jnp.ones((BATCH, LENGTH), jnp.int32)
    return model, jax.jit(model.init)(jax.random.key(0), source, lengths, target), source, lengths


def compile_search(search: Callable) -> Callable:
    """Returns a compiled call of search(model, variables, source, lengths) -> tokens [B, LENGTH]."""
    model, variables, source, lengths = make_translator()
    run = jax.jit(lambda variables: search(model, variables, source, lengths))
    return lambda: run(variables)


def exclude_end(logits: jax.Array) -> jax.Array:
    """Makes the end of a sentence impossible, so that all rows are decoded to their full length."""
    return logits.at[:, END].set(-1e9)


def start_cached(model, variables, source, lengths) -> tuple[decoding.Step, Any]:
    memory, state = model.apply(variables, source, lengths, LENGTH, method='start')

    def step(state, tokens):
        logits, state = model.apply(variables, memory, state, tokens, method='step')
        return exclude_end(logits), state

    return step, state


def search_cached(*model_and_source) -> jax.Array:
    step, state = start_cached(*model_and_source)
    return decoding.greedy(step, state, jnp.ones(BATCH, jnp.int32), LENGTH, END).tokens


def search_beam(*model_and_source) -> jax.Array:
    step, state = start_cached(*model_and_source)
    return decoding.beam_search(step, state, jnp.ones(BATCH, jnp.int32), LENGTH, END, 4).tokens


def search_uncached(model, variables, source, lengths) -> jax.Array:
    memory, mask = model.apply(variables, source, lengths, method='encode')

    def step(state, tokens):
        prefix, i = state
        prefix = jax.lax.dynamic_update_index_in_dim(prefix, tokens, i, 1)
        logits = model.apply(variables, memory, mask, prefix, method='decode')
        return exclude_end(jax.lax.dynamic_index_in_dim(logits, i, 1, keepdims=False)), (prefix, i + 1)

    first = jnp.ones(BATCH, jnp.int32)
    return decoding.greedy(
        step, (jnp.ones((BATCH, LENGTH), jnp.int32), jnp.zeros((), jnp.int32)), first, LENGTH, END
    ).tokens


def compile_uncached() -> Callable:
    """Returns the search without a cache, after checking that it finds the same tokens as the one with a cache."""
    uncached = compile_search(search_uncached)
    same = np.asarray(uncached()) == np.asarray(compile_search(search_cached)())
    assert same.mean() > 0.9, f'the searches differ: {same.mean():.0%} of the tokens agree'  # rounding decides ties
    return uncached


WORKS = {
    'greedy': Work(
        {'canon': lambda: compile_search(search_cached), 'uncached': compile_uncached},
        1,
        {'uncached': 0.2, 'torch': 0.6},
    ),
    'beam_4': Work(
        {'canon': lambda: compile_search(search_beam), 'greedy': lambda: compile_search(search_cached)},
        1,
        {'greedy': 3.0},
    ),
}


if __name__ == '__main__':
    beside.main(str(__doc__), WORKS, 'benchmarks.decoding', 'decoding_torch.py')

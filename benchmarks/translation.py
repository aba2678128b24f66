"""The Transformer: a train step of the base model, and decoding with a cache, compared with torch; a beam with greedy.

    python -m benchmarks.translation [--rounds=5] [--only=base_train,greedy,beam_4] [--torch=PYTHON]

base_train: the paper's base model (6 + 6 layers of d_model 512, dropout 0.1) with a vocabulary of 8,000, 16 pairs of 32
and 32 tokens, label smoothing of 0.1, Adam. In torch it is `nn.Transformer`, with dropout in the same places.

greedy, beam_4: 8 sources of 32 tokens, 64 tokens decoded for each, 3 + 3 layers of d_model 256, 8 heads, d_ff 1024,
float32; no row ends before its 64th token. Without a cache each step evaluates the model at all 64 positions. In torch
it is greedy decoding with a cache that is written in place. How the sides take turns: benchmarks/comparison.py.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import comparison
from benchmarks.comparison import ALL_FORMS, Benchmark, Peer, Work
from benchmarks.steps import compile_step
from canon import models, optim
from canon.ops import decoding
from canon.tasks.translation import translation_task

BATCH, SOURCE, LENGTH, VOCAB, END = 8, 32, 64, 8000, 0


def make_base_step() -> Callable:
    """Compiles the train step of the base model."""
    rng = np.random.default_rng(0)
    source, target = (rng.integers(1, VOCAB, (16, 32)).astype(np.int32) for _ in range(2))
    batch = {'source': source, 'source_length': np.full(16, 32, np.int32), 'target': target}
    batch['target_length'], batch['mask'] = batch['source_length'], np.ones(16, bool)
    task = translation_task(models.make_model('transformer.base', vocab=VOCAB), 1, label_smoothing=0.1)
    return compile_step(task, optim.adam(1e-4), batch)


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
    'base_train': Work({'canon': make_base_step}, 1, {'torch': 1.0}),
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
BENCHMARK = Benchmark('benchmarks.translation', WORKS, Peer('translation_torch.py', settings=ALL_FORMS))


if __name__ == '__main__':
    comparison.main(__doc__, BENCHMARK)

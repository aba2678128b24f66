"""Translating step by step: greedy decoding with a cache beside that without, beam 4 beside greedy, and torch.

    python -m benchmarks.decoding [--rounds=5] [--torch=PYTHON]

8 sources of 32 tokens, 64 tokens decoded for each, 3 + 3 layers of d_model 256, 8 heads, d_ff 1024, a vocabulary of
8,000, float32; no row ends before its 64th token. Without a cache each step asks the model for all 64 positions anew.
--torch names an interpreter with torch: its side is greedy decoding with a cache that is written in place. All sides
take turns, and a ratio is the median over the rounds, of wall time and of CPU time.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks import beside

if __name__ == '__main__':
    beside.restart('benchmarks.decoding')

import jax
import jax.numpy as jnp
import numpy as np

from canon import models
from canon.ops import decoding

BATCH, SOURCE, LENGTH, VOCAB, END = 8, 32, 64, 8000, 0
AIMS = {('cached', 'uncached'): 0.2, ('beam 4', 'cached'): 3.0, ('cached', 'torch'): 0.6}


def sides() -> dict[str, Callable]:
    model = models.make('transformer.transformer', vocab=VOCAB, layers=3, d_model=256, d_ff=1024, heads=8)
    source = jnp.asarray(np.random.default_rng(0).integers(1, VOCAB, (BATCH, SOURCE)))
    lengths, first = jnp.full(BATCH, SOURCE), jnp.ones(BATCH, jnp.int32)
    said = jnp.ones((BATCH, LENGTH), jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(0), source, lengths, said)

    def start(variables) -> tuple[decoding.Step, Any]:
        memory, state = model.apply(variables, source, lengths, LENGTH, method='start')

        def step(state, tokens):
            logits, state = model.apply(variables, memory, state, tokens, method='step')
            return logits.at[:, END].set(-1e9), state  # so that all are decoded to their length

        return step, state

    def cached(variables):
        step, state = start(variables)
        return decoding.greedy(step, state, first, LENGTH, END).tokens

    def beam(variables):
        step, state = start(variables)
        return decoding.beam_search(step, state, first, LENGTH, END, 4).tokens

    def uncached(variables):
        memory, mask = model.apply(variables, source, lengths, method='encode')

        def step(state, tokens):
            said, i = state
            said = jax.lax.dynamic_update_index_in_dim(said, tokens, i, 1)
            logits = model.apply(variables, memory, mask, said, method='decode')
            logits = jax.lax.dynamic_index_in_dim(logits, i, 1, keepdims=False)
            return logits.at[:, END].set(-1e9), (said, i + 1)

        return decoding.greedy(step, (said, jnp.zeros((), jnp.int32)), first, LENGTH, END).tokens

    compiled = {name: jax.jit(f) for name, f in (('cached', cached), ('uncached', uncached), ('beam 4', beam))}
    same = np.asarray(compiled['cached'](variables)) == np.asarray(compiled['uncached'](variables))
    assert same.mean() > 0.9, f'not the same search: {same.mean():.0%} of the tokens agree'  # ties fall to rounding
    return {name: lambda f=f: f(variables) for name, f in compiled.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--torch', metavar='PYTHON', help='an interpreter that has torch')
    options = parser.parse_args()
    turns: dict[str, Callable] = {name: lambda call=call: beside.seconds(call, 1) for name, call in sides().items()}
    if options.torch:
        torch = beside.Torch(options.torch, 'decoding_torch.py')
        turns['torch'] = lambda: torch('greedy', 1)
    print(f'load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores', flush=True)
    for turn in turns.values():
        turn()  # compiles, and fills the allocator
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    for _ in range(options.rounds):
        for name, turn in turns.items():
            times[name].append(turn())

    print(f'{"":22s}{"ms: wall":>10s}{"CPU":>10s}')
    for name, rows in times.items():
        print(f'{name:22s}' + ''.join(f'{1e3 * statistics.median(r[i] for r in rows):10.1f}' for i in (0, 1)))
    print(f'\n{"":22s}{"ratio: wall":>12s}{"CPU":>8s}{"aim":>6s}')
    for (one, other), aim in AIMS.items():
        if other in times:
            found = (
                statistics.median(a[i] / b[i] for a, b in zip(times[one], times[other], strict=True)) for i in (0, 1)
            )
            print(f'{one + " / " + other:22s}{next(found):12.2f}{next(found):8.2f}{aim:6.1f}')
    print(f'load at the end {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
    main()

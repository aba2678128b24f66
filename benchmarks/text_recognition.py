"""CRNN, CTC and the search of lexica, compared in one run: below 1 is better.

    python -m benchmarks.text_recognition [--rounds=5] [--only=crnn_train,ctc_37] [--torch=PYTHON]

CRNN in deep-text-recognition-benchmark's form on batches of 64 images of 32x100, its loss and a step of SGD with
momentum; the gradient of CTC by logits of 37 classes (batch 64, 26 frames, labels of 8) and of 3,756 (batch 16, 64
frames, labels of 16). `near_words` finds the words within three edits of 32 texts among 20,000; its other side compares
every word. --torch names an interpreter with torch. How the sides take turns: benchmarks/comparison.py.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import comparison
from benchmarks.comparison import ALL_FORMS, Benchmark, Peer, Work
from benchmarks.steps import repeat
from canon import backend, losses, optim
from canon.models import crnn
from canon.tasks.text.lexicons import BKTree, edit_distances, encode_texts

BATCH, SIZE = 64, (32, 100)
CTC = {'ctc_37': (64, 26, 37, 8), 'ctc_3756': (16, 64, 3756, 16)}  # batch, frames, classes, characters


def draw_array(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def draw_labels(batch: int, length: int, classes: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).integers(1, classes, (batch, length)), jnp.int32)


def make_forward() -> Callable:
    x, model = draw_array(BATCH, *SIZE, 1), crnn.dtrb()
    variables = backend.jit(model.init)(jax.random.key(0), x)
    call = backend.jit(model.apply)
    return lambda: call(variables, x)


def make_train_step() -> Callable:
    x, model, tx = draw_array(BATCH, *SIZE, 1), crnn.dtrb(), optim.momentum(0.01)
    labels, lengths = draw_labels(BATCH, 8, 37), jnp.full(BATCH, 8)
    variables = dict(backend.jit(model.init)(jax.random.key(0), x))
    params, mutable = variables.pop('params'), variables

    def step(params, mutable, state):
        def loss(params):
            logits, changed = model.apply({'params': params, **mutable}, x, train=True, mutable=[*mutable])
            return losses.ctc(logits, jnp.full(BATCH, logits.shape[1]), labels, lengths).mean(), changed

        (value, mutable_), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = tx.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), mutable_, state, value

    return repeat(backend.jit(step, donate_argnums=(0, 1, 2)), [params, mutable, tx.init(params)])


def make_ctc(name: str) -> Callable:
    batch, frames, classes, length = CTC[name]
    logits, labels = draw_array(batch, frames, classes), draw_labels(batch, length, classes)
    sizes = jnp.full(batch, frames), jnp.full(batch, length)
    call = backend.jit(jax.grad(lambda x: losses.ctc(x, sizes[0], labels, sizes[1]).sum()))
    return lambda: call(logits)


def draw_words(count: int, seed: int) -> list[str]:
    """Words of 4 to 10 letters, all equally likely: fewer are near each other than in a language."""
    rng = np.random.default_rng(seed)
    return [''.join(rng.choice(list('etaoinshr'), rng.integers(4, 11))) for _ in range(count)]


def make_near_words() -> Callable:
    tree, texts = BKTree(draw_words(20_000, 0)), draw_words(32, 1)
    return lambda: [tree.find(text, 3) for text in texts]


def make_every_word() -> Callable:
    words, texts = encode_texts(list(dict.fromkeys(draw_words(20_000, 0)))), draw_words(32, 1)
    return lambda: [np.flatnonzero(edit_distances(*words, *encode_texts([text])) <= 3) for text in texts]


WORKS = {
    'crnn_forward': Work({'canon': make_forward}, 1, {'torch': 1.0}),
    'crnn_train': Work({'canon': make_train_step}, 1, {'torch': 1.0}),
    'ctc_37': Work({'canon': lambda: make_ctc('ctc_37')}, 20, {'torch': 0.4}),
    'ctc_3756': Work({'canon': lambda: make_ctc('ctc_3756')}, 5, {'torch': 0.2}),
    'near_words': Work({'canon': make_near_words, 'every_word': make_every_word}, 1, {}),
}
BENCHMARK = Benchmark('benchmarks.text_recognition', WORKS, Peer('text_recognition_torch.py', settings=ALL_FORMS))


if __name__ == '__main__':
    comparison.main(__doc__, BENCHMARK)

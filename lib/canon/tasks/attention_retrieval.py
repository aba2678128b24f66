"""Attention retrieval: finding the value whose key matches a query, to measure how attention scores scale with d_k.

Each row shows P distinct symbols, each with a class, and asks for the class of one of them. Queries, keys and values
are rows of embedding tables that start from N(0, 1), so that q.k has mean 0 and variance d_k (Vaswani et al. 2017,
section 3.2.1, footnote 4). A linear map takes the attended value to the classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as init

from canon import losses, named, nn
from canon.data import Generated
from canon.errors import UsageError
from canon.metrics import Mean
from canon.ops import attention
from canon.train import At, Evaluator, Task

CLASSES = 8
SCORES = ('dot_product', 'scaled_dot_product', 'additive')


@dataclass(frozen=True)
class RetrievalSettings:
    """config.data. batch_size: rows per step. test_batches: batches of the evaluator. places: key-value pairs per row.
    symbols: that the keys of a row are drawn from, without repetition.
    """

    batch_size: named.Count = 64
    test_batches: named.Count = 10
    places: named.Count = 8
    symbols: named.Count = 32


def draw_retrieval_batch(rng: np.random.Generator, batch_size: int, places: int, symbols: int) -> dict[str, np.ndarray]:
    """Draws rows of key-value pairs and a query.

    Args:
      rng: of this batch.
      batch_size: B.
      places: P, pairs per row.
      symbols: to draw the keys from, at least P.

    Returns:
      'key' int32 [B, P], distinct symbols; 'value' int32 [B, P], the class of each; 'query' int32 [B], one of the keys;
      'target' int32 [B], its class.
    """
    # Without repetition in a row: a repeated key would have two values.
    keys = rng.permuted(np.tile(np.arange(symbols, dtype=np.int32), (batch_size, 1)), axis=1)[:, :places]
    values = rng.integers(CLASSES, size=(batch_size, places), dtype=np.int32)
    rows, place = np.arange(batch_size), rng.integers(places, size=batch_size)
    return {'key': keys, 'value': values, 'query': keys[rows, place], 'target': values[rows, place]}


class Retriever(linen.Module):
    """Attention of one query to the keys of a row, and a linear map of the attended value to the classes.

    Attributes:
      symbols: rows of the query and key tables.
      form: how queries and keys are compared, one of `SCORES`.
      d_k: width of queries and keys; 'additive' attention has d_k hidden units.
      d_v: width of values.
    """

    symbols: int
    form: str
    d_k: named.Count
    d_v: named.Count = 32

    def setup(self):
        if self.form not in SCORES:
            near = named.suggest(self.form, SCORES)
            raise UsageError(f'model.form={self.form!r} must be one of {", ".join(SCORES)}{near}')
        # Flax would scale embeddings by 1 / sqrt(d_k), which hides the effect that is measured here.
        unit_normal = init.normal(1.0)
        self.queries = linen.Embed(self.symbols, self.d_k, embedding_init=unit_normal)
        self.keys = linen.Embed(self.symbols, self.d_k, embedding_init=unit_normal)
        self.values = linen.Embed(CLASSES, self.d_v, embedding_init=unit_normal)
        if self.form == 'additive':
            # N(0, 1 / d_k), so that scores are of order 1 at every width.
            self.v = self.param('v', init.normal(self.d_k**-0.5), (self.d_k,))
        self.output = nn.Dense(CLASSES)

    def __call__(self, batch) -> jax.Array:
        """Returns logits [B, CLASSES]."""
        query, keys = self.embed(batch)
        return self.classify(self.score(query, keys), batch)

    def embed(self, batch) -> tuple[jax.Array, jax.Array]:
        """Returns the query [B, 1, d_k] and the keys [B, P, d_k]."""
        return self.queries(batch['query'])[:, None], self.keys(batch['key'])

    def score(self, query: jax.Array, keys: jax.Array) -> jax.Array:
        """Returns the attention scores before the softmax, [B, 1, P]."""
        if self.form == 'additive':
            return attention.additive_scores(query, keys, self.v)
        return attention.dot_scores(query, keys, self.d_k**-0.5 if self.form == 'scaled_dot_product' else 1.0)

    def classify(self, scores: jax.Array, batch) -> jax.Array:
        """Returns logits [B, CLASSES] from scores [B, 1, P]."""
        # The query is one position, hence [:, 0].
        return self.output(attention.attend(scores, self.values(batch['value'])))[:, 0]


def retrieval_task(model: Any) -> Task:
    """Makes the task of naming the class of the queried key by a `Retriever`; the loss is the cross entropy per row."""

    def loss(params, mutable, batch, at):
        logits = model.apply({'params': params}, batch)
        correct = Mean.of(logits.argmax(-1) == batch['target'])
        return Mean.of(losses.softmax_cross_entropy(logits, batch['target'])), (mutable, {'accuracy': correct})

    return Task(
        init=lambda key, batch: {'params': model.init(key, batch)['params']},
        loss=loss,
        predict=lambda params, mutable, batch: model.apply({'params': params}, batch),
    )


def retrieval_evaluator(task: Task, model: Any, initial: Any, batches: Generated) -> Evaluator:
    """Evaluates `loss` and `accuracy`, and `measure_scores` of the parameters before training.

    Args:
      task: a `retrieval_task` of `model`.
      model: a `Retriever`.
      initial: its parameters before training.
      batches: finite data.
    """

    def measure(params, mutable, batch):
        loss, (_, metrics) = task.loss(params, mutable, batch, At(None, 0))
        # The initial parameters: training would adapt the tables to the width, and hide what the scale does.
        return {'loss': loss, **metrics, **measure_scores(model, initial, batch)}

    return Evaluator(batches, measure, lambda sums: {name: float(mean.value) for name, mean in sums.items()})


def measure_scores(model: Any, params: Any, batch: Any) -> dict[str, Mean]:
    """Measures the attention scores and what passes back through them.

    Returns:
      variance: the mean square of the scores.
      jacobian: the mean norm of the softmax's Jacobian (`softmax_jacobian`).
      score_gradient: the mean norm of the loss's gradient by the scores of a row, which is all of the gradient that
        reaches queries and keys.
    """

    def apply(method, *arguments):
        return model.apply({'params': params}, *arguments, method=method)

    # Split in two, so that the gradient can be taken at the scores between them.
    scores = apply('score', *apply('embed', batch))

    def loss(scores):
        return losses.softmax_cross_entropy(apply('classify', scores, batch), batch['target']).sum()

    return {
        'variance': Mean.of(jnp.square(scores)),
        'jacobian': Mean.of(softmax_jacobian(scores)),
        'score_gradient': Mean.of(jnp.linalg.norm(jax.grad(loss)(scores), axis=-1)),
    }


def softmax_jacobian(scores: jax.Array) -> jax.Array:
    """Computes |d softmax / d scores| (Frobenius) over the last axis.

    Of diag(p) - p p^T, with s_n the sum of p^n, the square is s_2 - 2 s_3 + s_2^2.
    """
    p = attention.softmax(scores)
    second, third = (p**2).sum(-1), (p**3).sum(-1)
    return jnp.sqrt(jnp.maximum(second - 2 * third + second**2, 0))  # rounding may leave less than 0 of a one-hot p

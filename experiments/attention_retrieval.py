"""Finding the value whose key matches a query, by attention: does its gradient live at every width d_k?

Each row shows `places` symbols, all different, each with a class, and asks for the class of one of them. Queries, keys
and values are rows of tables, of N(0, 1) at first, so that q.k has mean 0 and variance d_k (Vaswani et al. 2017,
footnote 4). What is found goes through a linear map to the classes.
config.data: `batch_size`, `test_batches`, `places`, `symbols`; config.model: `form`, `d_k`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as init
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import losses, named, nn, optim, plots
from canon.data import Generated
from canon.errors import UsageError
from canon.metrics import Mean
from canon.ops import attention
from canon.train import At, Evaluator, Experiment, Task
from canon.train.runs import Run
from canon.train.shard import process_shard
from experiments.claims.classification import done

CLASSES, FORMS = 8, ('dot_product', 'scaled_dot_product', 'additive')
_TEST = 1 << 40  # the first batch of the test stream; no step reaches it


def make(config: ConfigDict) -> Experiment:
    """config.data, config.model and config.tx -> the retrieval task."""
    d = config.data
    for key in ('batch_size', 'test_batches', 'places', 'symbols'):
        named.check(named.plain(d[key]), named.Count, f'data.{key}')
    if d.symbols < d.places:
        raise UsageError(f'data.symbols={d.symbols}: fewer than data.places={d.places}, which all differ')
    model = named.call(Retriever, {'symbols': d.symbols, **named.plain(config.model)}, 'model')

    def batch(number):
        return asked(np.random.default_rng((config.seed, number)), d.batch_size, d.places, d.symbols)

    task = retrieval_task(model)
    start = task.init(jax.random.key(config.seed), batch(0))['params']
    test = Generated(lambda i: batch(_TEST + i), length=d.test_batches, shard=process_shard())
    evals = {'test': retrieval_evaluator(task, model, start, test)}
    train = Generated(batch, batch_size=d.batch_size, shard=process_shard())
    return Experiment(task, optim.make(config.tx), train, evals)


def offline(config: ConfigDict) -> ConfigDict:
    """Its data are made, not downloaded."""
    return config


def asked(rng: np.random.Generator, batch_size: int, places: int, symbols: int) -> dict[str, np.ndarray]:
    """symbol, label [B, places]; wanted [B], one of the symbols; answer [B], its label."""
    symbol = rng.permuted(np.tile(np.arange(symbols, dtype=np.int32), (batch_size, 1)), axis=1)[:, :places]
    label = rng.integers(CLASSES, size=(batch_size, places), dtype=np.int32)
    rows, place = np.arange(batch_size), rng.integers(places, size=batch_size)
    return {'symbol': symbol, 'label': label, 'wanted': symbol[rows, place], 'answer': label[rows, place]}


class Retriever(linen.Module):
    """Attention of one query to the keys of `places` symbols. form: of FORMS; additive has d_k units.

    Additive's v starts from N(0, 1 / d_k), so that its scores are of order 1 at every width.
    """

    symbols: int
    form: str
    d_k: named.Count
    d_v: named.Count = 32

    def setup(self):
        if self.form not in FORMS:
            raise UsageError(f'model.form={self.form!r} is none of {", ".join(FORMS)}{named.near(self.form, FORMS)}')
        unit = init.normal(1.0)
        self.queries = linen.Embed(self.symbols, self.d_k, embedding_init=unit)
        self.keys = linen.Embed(self.symbols, self.d_k, embedding_init=unit)
        self.values = linen.Embed(CLASSES, self.d_v, embedding_init=unit)
        if self.form == 'additive':
            self.v = self.param('v', init.normal(self.d_k**-0.5), (self.d_k,))
        self.output = nn.Dense(CLASSES)

    def __call__(self, batch) -> jax.Array:
        """Logits [B, CLASSES]."""
        query, keys = self.look_up(batch)
        return self.answer(self.scores(query, keys), batch)

    def look_up(self, batch) -> tuple[jax.Array, jax.Array]:
        """The query [B, 1, d_k] and the keys [B, places, d_k]."""
        return self.queries(batch['wanted'])[:, None], self.keys(batch['symbol'])

    def scores(self, query: jax.Array, keys: jax.Array) -> jax.Array:
        """[B, 1, places]"""
        if self.form == 'additive':
            return attention.additive_scores(query, keys, self.v)
        return attention.dot_scores(query, keys, self.d_k**-0.5 if self.form == 'scaled_dot_product' else 1.0)

    def answer(self, scores: jax.Array, batch) -> jax.Array:
        """Logits [B, CLASSES] from scores [B, 1, places]."""
        return self.output(attention.attend(scores, self.values(batch['label'])))[:, 0]


def retrieval_task(model: Any) -> Task:
    def loss(params, mutable, batch, at):
        logits = model.apply({'params': params}, batch)
        right = Mean.of(logits.argmax(-1) == batch['answer'])
        return Mean.of(losses.softmax_cross_entropy(logits, batch['answer'])), (mutable, {'accuracy': right})

    return Task(
        init=lambda key, batch: {'params': model.init(key, batch)['params']},
        loss=loss,
        predict=lambda params, mutable, batch: model.apply({'params': params}, batch),
    )


def retrieval_evaluator(task: Task, model: Any, start, data: Generated) -> Evaluator:
    """loss, accuracy; of the parameters `start`: variance, jacobian, score_gradient (see `at_start`)."""

    def measure(params, mutable, batch):
        found, (_, told) = task.loss(params, mutable, batch, At(None, 0))
        return {'loss': found, **told, **at_start(model, start, batch)}

    return Evaluator(data, measure, lambda sums: {name: float(mean.value) for name, mean in sums.items()})


def at_start(model: Any, params, batch) -> dict[str, Mean]:
    """variance: the mean square of the scores. jacobian: the mean of `softmax_jacobian`. score_gradient: the mean norm
    of the loss's gradient with respect to a row's scores, which all that reaches queries and keys goes through.
    """
    bound = lambda method: lambda *given: model.apply({'params': params}, *given, method=method)  # noqa: E731
    scores = bound('scores')(*bound('look_up')(batch))

    def loss(scores):
        return losses.softmax_cross_entropy(bound('answer')(scores, batch), batch['answer']).sum()

    return {
        'variance': Mean.of(jnp.square(scores)),
        'jacobian': Mean.of(softmax_jacobian(scores)),
        'score_gradient': Mean.of(jnp.linalg.norm(jax.grad(loss)(scores), axis=-1)),
    }


def softmax_jacobian(scores: jax.Array) -> jax.Array:
    """|d softmax / d scores| over the last axis, Frobenius: of diag(p) - p p^T, with s_n the sum of p^n,
    the square is s_2 - 2 s_3 + s_2^2.
    """
    p = attention.softmax(scores)
    second, third = (p**2).sum(-1), (p**3).sum(-1)
    return jnp.sqrt(jnp.maximum(second - 2 * third + second**2, 0))


def picture(found: Sequence[Run]) -> Figure:
    """Against d_k, a line a form: the softmax's Jacobian at the start, and the accuracy at each form's best rate."""
    points: dict[str, dict[int, list]] = {}
    for run, config in done(found):
        model = config['model']
        points.setdefault(model['form'], {}).setdefault(model['d_k'], []).append(run.metrics)
    figure = Figure(figsize=(9.2, 3.8), layout='constrained')
    left, right = figure.subplots(1, 2)
    for i, form in enumerate(form for form in FORMS if form in points):
        widths = sorted(points[form])
        jacobian = [plots.middle([m['test/jacobian'] for m in points[form][width]]) for width in widths]
        left.plot(widths, jacobian, 'o-', color=f'C{i}', label=form.replace('_', ' '))
        best = [max(m['test/accuracy'] for m in points[form][width]) for width in widths]
        right.plot(widths, best, 'o-', color=f'C{i}', label=form.replace('_', ' '))
    left.set(ylabel="norm of the softmax's Jacobian, at the start", yscale='log')
    right.set(ylabel='accuracy at the best rate', ylim=(0, 1.05))
    right.axhline(1 / CLASSES, color='k', linestyle=':', linewidth=1)
    for axes in (left, right):
        axes.set(xlabel='d_k', xscale='log')
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    return figure

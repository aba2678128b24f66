"""Methods of generalisation, of weighted sources and of fine-tuning, against their formulas in double precision."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from canon import nn, optim
from canon.errors import UsageError
from canon.tasks import adaptation
from canon.tasks.adaptation import methods
from canon.train import At, Experiment, fit, init_state, make_step
from tests.quick import quick_jit
from tests.tasks.small_domains import (
    UNITS,
    Domains,
    cross_entropy,
    features,
    head,
    make_input,
    make_network,
    make_task,
    to_double,
)

SEVERAL, PAIR = Domains(('a', 'b', 'c'), ()), Domains()
KEY = jax.random.key(5)


def start(task, data=SEVERAL):
    variables = dict(task.init(jax.random.key(0), data[0]))
    return variables.pop('params'), variables


def compute_loss(task, params, mutable, batch, step=0):
    """Returns (the mean loss, its gradient, metrics)."""

    def mean(params):
        loss, (_, values) = task.loss(params, mutable, batch, At(KEY, jnp.int32(step)))
        return loss.value, values

    (value, values), gradient = quick_jit(jax.value_and_grad(mean, has_aux=True))(params)
    return value, gradient, values


def risk(params, rows):
    return cross_entropy(head(params, 'classifier', features(params, rows)), rows['label'])


def assert_close(tree, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), tree, expected)


# --- generalisation --------------------------------------------------------------------------------------------------


def test_mixup_mixes_neighbours_of_a_circle():
    task = make_task('mixup', alpha=0.7)
    params, mutable = start(task)
    batch = SEVERAL[0]
    rows = {name: (make_input(part), part['label'], part['mask'], None) for name, part in batch.items()}
    mix = adaptation.make_method('mixup', alpha=0.7).mix
    assert mix is not None
    circle, double = [], to_double(params)
    with jax.enable_x64(True):
        risks = []
        for image, labels, mask, _ in mix(KEY, rows).values():
            share = float(labels.share)
            pairs = [(i, j) for i in batch for j in batch if i != j]
            fits = [np.abs(share * batch[i]['image'] + (1 - share) * batch[j]['image'] - image).max() for i, j in pairs]
            i, j = pairs[int(np.argmin(fits))]
            assert min(fits) < 1e-6
            np.testing.assert_array_equal(labels.first, batch[i]['label'])
            np.testing.assert_array_equal(labels.second, batch[j]['label'])
            assert mask.all()
            circle.append((i, j))
            logits = head(double, 'classifier', features(double, {'image': np.asarray(image, np.float64)}))
            own = [cross_entropy(logits, batch[name]['label']) for name in (i, j)]
            risks.append(share * own[0] + (1 - share) * own[1])
    # Every domain is once the first and once the second of a pair.
    assert sorted(i for i, _ in circle) == sorted(j for _, j in circle) == sorted(batch)
    shares = [float(labels.share) for _, labels, _, _ in mix(KEY, rows).values()]
    assert len(set(shares)) == 3
    # The task folds a number of its own into the key of the step.
    _, _, values = compute_loss(task, params, mutable, batch)
    assert np.isfinite(values['risk'].value)
    mixed = mix(jax.random.fold_in(KEY, 0xFFFF), rows)
    expected = []
    for image, labels, _, _ in mixed.values():
        logits = head(double, 'classifier', features(double, {'image': np.asarray(image, np.float64)}))
        own = [cross_entropy(logits, labels.first), cross_entropy(logits, labels.second)]
        expected.append(float(labels.share) * own[0] + (1 - float(labels.share)) * own[1])
    np.testing.assert_allclose(values['risk'].value, np.mean(expected), rtol=1e-5)
    with pytest.raises(UsageError, match='needs at least two domains'):
        task.init(KEY, {'a': batch['a']})


@pytest.mark.parametrize(
    ('inner', 'second_order'),
    [
        ('sgd', True),
        pytest.param('sgd', False, marks=pytest.mark.slow),
        pytest.param('adam', False, marks=pytest.mark.slow),
    ],
)
def test_mldg_against_its_gradient_written_out(inner, second_order):
    rate, beta = 0.3, 0.7
    task = make_task('mldg', beta=beta, meta_test=1, inner_rate=rate, inner=inner, second_order=second_order)
    params, mutable = start(task)
    batch = SEVERAL[0]
    parts = [batch[name] for name in sorted(batch)]
    order = np.asarray(jax.random.permutation(KEY, 3))
    value, gradient, _ = compute_loss(task, params, mutable, batch)
    with jax.enable_x64(True):
        double = to_double(params)

        def move(params, rows):
            g = jax.grad(risk)(params, rows)
            step = {'sgd': lambda g: g, 'adam': lambda g: g / (jnp.abs(g) + 1e-8)}[inner]
            return jax.tree.map(lambda p, g: p - rate * step(g), params, g)

        test = parts[order[2]]
        expected, total = jax.tree.map(np.zeros_like, double), 0.0
        for i in order[:2]:
            moved = move(double, parts[i])
            after = jax.grad(risk)(moved, test)
            if second_order:
                after = jax.grad(lambda p, rows=parts[i]: risk(move(p, rows), test))(double)
            own = jax.grad(risk)(double, parts[i])
            expected = jax.tree.map(lambda e, a, b: e + (a + beta * b) / 3, expected, own, after)
            total += (risk(double, parts[i]) + beta * risk(moved, test)) / 3
    np.testing.assert_allclose(value, total, rtol=1e-5)
    assert_close(gradient, expected)
    with pytest.raises(UsageError, match='meta_test=3 leaves no meta-train domain of 3'):
        start_and_lose(make_task('mldg', meta_test=3))


def start_and_lose(task):
    params, mutable = start(task)
    return task.loss(params, mutable, SEVERAL[0], At(KEY, 0))


def test_irm_of_the_authors_is_divided_by_its_weight():
    task = make_task('irm', weight=50.0, anneal_steps=3, l2=0.01, rescale=True)
    params, mutable = start(task)
    batch, double = SEVERAL[0], to_double(params)
    with jax.enable_x64(True):

        def penalty(rows):
            logits = head(double, 'classifier', features(double, rows))
            return jax.grad(lambda w: cross_entropy(w * logits, rows['label']))(1.0) ** 2

        risks, penalties = (np.mean([f(part) for part in batch.values()]) for f in (lambda x: risk(double, x), penalty))
    norm = 0.01 * sum((leaf**2).sum() for leaf in jax.tree.leaves(double))
    for step, weight in ((2, 1.0), (3, 50.0)):
        value, _, values = compute_loss(task, params, mutable, batch, step)
        np.testing.assert_allclose(value, (risks + norm + weight * penalties) / weight, rtol=1e-5)
        np.testing.assert_allclose(values['penalty'].value, penalties, rtol=1e-4)


@pytest.mark.parametrize(
    'kernels', ['domainbed', *(pytest.param(name, marks=pytest.mark.slow) for name in ('tllib', 'dan'))]
)
def test_the_kernels_of_mmd(kernels):
    method = adaptation.make_method('mmd', weight=1.0, unbiased=False, kernels=kernels)
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(5, 3)), 0.5 * rng.normal(size=(4, 3)) + 1
    none: Any = dict(logits=None, second_logits=None, mask=None)
    outputs = [methods.DomainOutputs(jnp.asarray(x), labels=y, **none) for x, y in zip(rows, (0, None), strict=True)]
    evaluation = methods.Evaluation(dict(zip('ab', outputs, strict=True)), *[None] * 6)  # ty: ignore[invalid-argument-type]
    assert method.align is not None
    value, _ = method.align(evaluation)
    everything = np.concatenate(rows)
    squares = ((everything[:, None] - everything) ** 2).sum(-1)
    if kernels == 'domainbed':
        kernel = sum(np.exp(-(10.0**power) * squares) for power in range(-3, 4))
    else:
        widths = range(-3, 2) if kernels == 'tllib' else range(-8, 9)
        kernel = np.mean([np.exp(-squares / (2 * 2.0**power * squares.mean())) for power in widths], 0)
    expected = kernel[:5, :5].mean() + kernel[5:, 5:].mean() - 2 * kernel[:5, 5:].mean()
    np.testing.assert_allclose(value, expected, rtol=1e-4)


# --- instances -------------------------------------------------------------------------------------------------------


def test_weights_of_rows_are_multiplied_into_the_risk():
    task = make_task('source_only')
    params, mutable = start(task, PAIR)
    batch = PAIR[0]
    weights = np.array([0.0, 0.5, 2.0, 1.0, 3.0, 0.2], np.float32)
    batch['source']['weight'], batch['source']['mask'] = weights, np.arange(6) < 5
    value, _, _ = compute_loss(task, params, mutable, batch)
    double = to_double(params)
    with jax.enable_x64(True):
        logits = head(double, 'classifier', features(double, batch['source']))
        rows = [cross_entropy(logits[i : i + 1], batch['source']['label'][i : i + 1]) for i in range(5)]
    # Divided by the number of real rows, not by the sum of the weights.
    np.testing.assert_allclose(value, np.dot(weights[:5], rows) / 5, rtol=1e-5)


# --- parameters ------------------------------------------------------------------------------------------------------


def test_lora_trains_its_adapters_alone_and_merges_exactly(tmp_path):
    where, rank = '^(extractor/dense|classifier)/kernel$', 2
    network = make_network()
    method = adaptation.make_method('lora', rank=rank, where=where)
    task = adaptation.adaptation_task(network, make_input, method)
    source = Experiment(make_task('source_only'), optim.sgd(0.1), PAIR)
    settings = dict(steps=2, log_every=2, log=())
    trained = fit(source, dict(run=settings), tmp_path / 'source', quiet=True).state.params
    init = dict(path=str(tmp_path / 'source'), rules=(('^frozen/params/', ''),), new='^adapters/')
    stage = Experiment(task, optim.sgd(0.5), PAIR)
    state = fit(stage, dict(run={**settings, 'init_from': init}), tmp_path / 'lora', quiet=True).state
    # Rank times (fan-in + outputs) per kernel: 5 to 4, and 4 to 3.
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == rank * (5 + UNITS) + rank * (UNITS + 3)
    assert set(state.params) == {'adapters'}
    jax.tree.map(np.testing.assert_array_equal, state.mutable['frozen']['params'], trained)
    merged = jax.tree.map(np.asarray, trained)
    for path in (('extractor', 'dense'), ('classifier',)):
        node, adapter = merged, state.params['adapters']
        for key in path:
            node, adapter = node[key], adapter[key]
        assert np.abs(adapter['kernel']['b']).max() > 0
        node['kernel'] = node['kernel'] + np.asarray(adapter['kernel']['a'] @ adapter['kernel']['b'])
    rows = PAIR[3]['source']
    ours = quick_jit(task.predict)(state.params, state.mutable, rows)
    plain = quick_jit(lambda params: network.apply({'params': params}, make_input(rows)))(merged)
    np.testing.assert_allclose(ours, plain, rtol=1e-6, atol=1e-6)
    rules = adaptation.make_encoder(network, make_input, method)(state.params, state.mutable, rows)
    np.testing.assert_allclose(rules[1], plain, rtol=1e-6, atol=1e-6)


def test_lora_starts_from_the_given_network():
    task, plain = make_task('lora', rank=1), make_task('source_only')
    params, mutable = start(task, PAIR)
    rows = PAIR[0]['source']
    expected = plain.predict(start(plain, PAIR)[0], {}, rows)
    np.testing.assert_array_equal(task.predict(params, mutable, rows), expected)
    assert nn.count_adapters({'all': {'a': params, 'b': {}}}) == 5 + UNITS + UNITS + 3


@pytest.mark.parametrize(('name', 'arguments'), [('lwf', {'temperature': 3.0}), ('bss', {'count': 2})])
def test_losses_of_fine_tuning(name, arguments):
    task = make_task(name, weight=0.5, **arguments)
    params, mutable = start(task, PAIR)
    batch = PAIR[0]
    moved = jax.tree.map(lambda x: 1.3 * x + 0.05, params)
    value, _, _ = compute_loss(task, moved, mutable, batch)
    double, old = to_double(moved), to_double(params)
    with jax.enable_x64(True):
        x = features(double, batch['source'])
        if name == 'bss':
            added = (np.linalg.svd(np.asarray(x))[1][-2:] ** 2).sum()
        else:
            teacher, own = (np.asarray(head(p, 'classifier', features(p, batch['source']))) / 3 for p in (old, double))
            p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (teacher, own))
            added = -(p * np.log(q)).sum(1).mean()
        np.testing.assert_allclose(value, risk(double, batch['source']) + 0.5 * added, rtol=1e-5)


# --- batch statistics ------------------------------------------------------------------------------------------------


def project(params, batch):
    return features(params, batch)  # before the normalisation


def test_adabn_is_source_only_with_the_statistics_of_the_target():
    network = make_network(norm=True)
    states = {}
    for name in ('source_only', 'ada_bn'):
        task, tx = make_task(name, network), optax.sgd(0.1)
        step, state = quick_jit(make_step(task, tx, 0)), init_state(task, tx, 0, PAIR[0])
        for number in range(3):
            before = state
            state, _ = step(state, PAIR[number])
        states[name] = state
    jax.tree.map(np.testing.assert_array_equal, states['source_only'].params, states['ada_bn'].params)
    plain, adapted = (states[name].mutable for name in ('source_only', 'ada_bn'))
    assert set(plain) == {'batch_stats'}
    jax.tree.map(np.testing.assert_array_equal, plain['batch_stats'], adapted['source_batch_stats'])
    # The last batch of the target, and none of the source, has a tenth of the running statistics.
    batches = [PAIR[number]['target'] for number in range(3)]
    old, new = (s.mutable['batch_stats']['extractor']['bn'] for s in (before, states['ada_bn']))
    x = project(to_double(before.params), batches[2])
    np.testing.assert_allclose(new['mean'], 0.9 * old['mean'] + 0.1 * x.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(new['var'], 0.9 * old['var'] + 0.1 * x.var(0, ddof=1), rtol=1e-4)
    # After training all batches count alike, under the last weights.
    params, mutable = states['ada_bn'].params, states['ada_bn'].mutable
    adapted = adaptation.adapt_statistics(network, make_input, params, mutable, batches)['batch_stats']['extractor'][
        'bn'
    ]
    final = to_double(params)
    rows = np.stack([project(final, batch) for batch in batches])
    np.testing.assert_allclose(adapted['mean'], rows.mean((0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(adapted['var'], rows.var(1, ddof=1).mean(0), rtol=1e-4)
    # Rows of the source may be read with their own statistics.
    rows, method = PAIR[5]['source'], adaptation.make_method('ada_bn')
    of_source = adaptation.make_predict(network, make_input, method, of_source=True)(params, mutable, rows)
    plain_task = make_task('source_only', network)
    np.testing.assert_array_equal(of_source, plain_task.predict(params, plain, rows))
    assert np.abs(of_source - plain_task.predict(params, {'batch_stats': mutable['batch_stats']}, rows)).max() > 1e-3
    with pytest.raises(UsageError, match=r"needs batch normalisation; set model.norm='batch'"):
        make_task('ada_bn').init(KEY, PAIR[0])
    with pytest.raises(UsageError, match='AdaBN needs a network with batch normalisation'):
        adaptation.adapt_statistics(make_network(), make_input, params, {}, batches)

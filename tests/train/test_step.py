"""The step against what it claims to be: a gradient of a mean, cut up or not, on one device or eight."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from canon import optim
from canon.data import Generated
from canon.errors import UsageError
from canon.metrics import Mean
from canon.train import Evaluator, Experiment, Task, fit, init_state, make_step, shard, step_key
from canon.train.evaluation import evaluate
from canon.train.setup import make_setup
from canon.train.types import CARRY
from tests.quick import XLA_FLAGS
from tests.train import toy


def test_runs_that_differ_in_a_rate_share_a_program():
    """A sweep of rates finds its step in the compilation cache."""

    def program(rate, decay):
        setup = make_setup(toy.experiment(toy.Net(width=1), optim.adamw(rate, weight_decay=decay)), toy.config())
        step = setup.compiled_step()
        return step.func.lower(*step.args, setup.target, setup.first).as_text()

    assert program(0.5, 0.25) == program(0.125, 2.0)


def linear_task():
    """Weighted least squares, whose gradient is known in closed form."""

    def init(key, batch):
        return {'params': {'w': jax.random.normal(key, (3,))}}

    def loss(params, mutable, batch, at):
        residual = batch['x'] @ params['w'] - batch['y']
        return Mean.of(residual**2, batch['mask']), (mutable, {})

    return Task(init, loss, lambda params, mutable, batch: batch['x'] @ params['w'])


def linear_batch(rows=8):
    rng = np.random.default_rng(0)
    return {
        'x': rng.normal(size=(rows, 3)).astype(np.float32),
        'y': rng.normal(size=rows).astype(np.float32),
        'mask': rng.random(rows) < 0.6,
    }


def start_state(task, tx, batch):
    return jax.jit(lambda batch: init_state(task, tx, 0, batch))(batch)


def step_of(task, accumulate=1, rate=0.1):
    tx = optim.sgd(rate)
    batch = linear_batch()
    state = start_state(task, tx, batch)
    return state, jax.jit(make_step(task, tx, 0, accumulate))


@pytest.mark.parametrize('accumulate', [1, 2, 4])
def test_one_step_is_the_closed_form(accumulate):
    state, step = step_of(linear_task(), accumulate)
    batch = linear_batch()
    new, metrics = step(state, batch)
    x, y, m = (np.asarray(batch[k], np.float64) for k in ('x', 'y', 'mask'))
    w = np.asarray(state.params['w'], np.float64)
    residual = (x @ w - y) * m
    gradient = 2 * x.T @ residual / m.sum()
    np.testing.assert_allclose(new.params['w'], w - 0.1 * gradient, rtol=2e-6)
    np.testing.assert_allclose(metrics['loss'].value, (residual**2).sum() / m.sum(), rtol=1e-6)
    np.testing.assert_allclose(metrics['grad_norm'].value, np.linalg.norm(gradient), rtol=1e-6)
    assert float(metrics['learning_rate'].value) == np.float32(0.1)
    assert int(new.step) == 1


def test_a_batch_that_is_masked_whole_changes_nothing():
    state, step = step_of(linear_task())
    new, metrics = step(state, linear_batch() | {'mask': np.zeros(8, bool)})
    np.testing.assert_array_equal(new.params['w'], state.params['w'])
    assert float(metrics['loss'].weight) == 0


def test_nan_in_masked_rows_does_not_count():
    state, step = step_of(linear_task())
    batch = linear_batch()
    poisoned = batch | {'y': np.where(batch['mask'], batch['y'], np.nan).astype(np.float32)}
    assert float(step(state, poisoned)[1]['loss'].value) == float(step(state, batch)[1]['loss'].value)


@pytest.mark.parametrize('stored', ['theta', 'lookahead'])
def test_the_gradient_is_taken_at_the_lookahead(stored):
    """Two steps of Sutskever's Nesterov by hand; a gradient at theta would differ in the second."""
    task, tx, batch = linear_task(), optim.nesterov(0.1, momentum=0.9, stored=stored), linear_batch()
    state = start_state(task, tx, batch)
    step = jax.jit(make_step(task, tx, 0))
    x, y, m = (np.asarray(batch[k], np.float64) for k in ('x', 'y', 'mask'))
    theta, v = np.asarray(state.params['w'], np.float64), np.zeros(3)
    for _ in range(2):
        point = theta + 0.9 * v
        v = 0.9 * v - 0.1 * 2 * x.T @ ((x @ point - y) * m) / m.sum()
        theta = theta + v
        state, _ = step(state, batch)
    np.testing.assert_allclose(optim.eval_params(state.params, state.opt)['w'], theta, rtol=3e-6)


def test_keys_differ_by_step_and_seed_and_from_the_initialisation():
    keys = [step_key(seed, step) for seed in (0, 1) for step in (0, 1, 0xFFFFFFFF)]
    assert len({tuple(np.asarray(jax.random.key_data(k))) for k in keys}) == 6


def test_accumulation_equals_one_batch_without_batchnorm_and_dropout():
    experiment = toy.experiment(toy.Net(batch_norm=False, dropout=0.0))
    task = experiment.task._replace(loss=_without_augmentation(experiment.task))
    batch = experiment.train[0]
    state = start_state(task, experiment.tx, batch)
    whole, _ = jax.jit(make_step(task, experiment.tx, 0))(state, batch)
    parts, metrics = jax.jit(make_step(task, experiment.tx, 0, 4))(state, batch)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    assert float(metrics['accuracy'].weight) == batch['mask'].sum()


def _without_augmentation(task):
    def loss(params, mutable, batch, at):
        logits = task.predict(params, mutable, batch)
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), batch['label'][:, None], 1)[:, 0]
        right = Mean.of(logits.argmax(-1) == batch['label'], batch['mask'])
        return Mean.of(nll, batch['mask']), (mutable, {'accuracy': right})

    return loss


def test_accumulation_carries_mutable_from_part_to_part():
    """A mutable that counts rows sees all microbatches, in order."""

    def loss(params, mutable, batch, at):
        return Mean.of(params['w'] * batch['x'], None), ({'last': batch['x'][-1], 'n': mutable['n'] + 1}, {})

    task = Task(
        lambda key, batch: {'params': {'w': jnp.ones(())}, 'n': jnp.zeros(()), 'last': jnp.zeros(())}, loss, None
    )
    batch = {'x': jnp.arange(8.0)}
    state = start_state(task, optax.sgd(0.1), batch)
    new, _ = jax.jit(make_step(task, optax.sgd(0.1), 0, 4))(state, batch)
    assert float(new.mutable['n']) == 4
    assert float(new.mutable['last']) == 7


def carrying_task():
    """A leaky sum of what each row has seen; the loss reads it, and a count flows through the microbatches."""

    def init(key, batch):
        rows = batch['x'].shape[0]
        return {'params': {'w': jnp.ones(2)}, 'count': jnp.zeros(()), CARRY: {'sum': jnp.zeros((rows, 2))}}

    def loss(params, mutable, batch, at):
        total = 0.5 * mutable[CARRY]['sum'] + params['w'] * batch['x']
        return Mean.of((total**2).sum(-1)), ({'count': mutable['count'] + 1, CARRY: {'sum': total}}, {})

    return Task(init, loss, lambda params, mutable, batch: mutable[CARRY])


@pytest.mark.parametrize('accumulate', [2, 4, 8])
def test_a_row_keeps_what_it_carries_through_microbatches(accumulate):
    task, rng = carrying_task(), np.random.default_rng(0)
    tx = optax.sgd(0.01)
    batches = rng.normal(size=(3, 8, 2)).astype(np.float32)
    states = [init_state(task, tx, 0, {'x': batches[0]}) for _ in range(2)]
    for x in batches:
        states = [make_step(task, tx, 0, n)(s, {'x': x})[0] for n, s in zip((1, accumulate), states, strict=True)]
    at_once, in_microbatches = states
    np.testing.assert_allclose(in_microbatches.mutable[CARRY]['sum'], at_once.mutable[CARRY]['sum'], rtol=1e-6)
    np.testing.assert_allclose(in_microbatches.params['w'], at_once.params['w'], rtol=1e-6)
    assert (float(at_once.mutable['count']), float(in_microbatches.mutable['count'])) == (3, 3 * accumulate)


def test_what_a_row_carries_is_laid_out_like_the_row():
    mesh = shard.make_mesh(1)
    state = jax.eval_shape(lambda x: init_state(carrying_task(), optax.sgd(0.1), 0, {'x': x}), jnp.zeros((4, 2)))
    layout = shard.state_shardings(optax.sgd(0.1), state, mesh)
    assert layout.mutable[CARRY]['sum'] == shard.batch_sharding(mesh)
    assert layout.mutable['count'] == shard.replicated_sharding(mesh)


def test_an_evaluation_carries_its_own_rows_from_batch_to_batch():
    """Of another number than training's, from `start` on."""
    x = np.arange(12.0, dtype=np.float32).reshape(3, 2, 2)

    def measure(params, mutable, batch):
        total = 0.5 * mutable[CARRY]['sum'] + params['w'] * batch['x']
        return Mean.of(total[:, 0]), {'sum': total}

    data = Generated(lambda step: {'x': x[step]}, 2, length=3)
    evaluator = Evaluator(data, measure, lambda s: {'mean': s.value}, start=lambda params, b: {'sum': 0 * b['x']})
    state = init_state(carrying_task(), optax.sgd(0.1), 0, {'x': np.ones((8, 2), np.float32)})
    mean = evaluate(evaluator, state.params, state.mutable, shard.make_mesh(1)).metrics['mean']
    sums, total = [], np.zeros((2, 2))
    for batch in x:
        total = 0.5 * total + batch
        sums += list(total[:, 0])
    assert mean == pytest.approx(np.mean(sums), rel=1e-6)


def test_a_run_begins_from_parameters_and_not_from_what_rows_carried(tmp_path):
    experiment = Experiment(carrying_task(), optax.sgd(0.01), Generated(lambda step: {'x': np.ones((8, 2))}, 8))
    first = fit(experiment, dict(seed=0, run=dict(steps=2)), tmp_path / 'first', quiet=True)
    narrow = experiment._replace(train=Generated(lambda step: {'x': np.ones((4, 2))}, 4))
    start = dict(seed=0, run=dict(steps=2, init_from=dict(path=str(tmp_path / 'first'))))
    state = make_setup(narrow, start).starting_state()
    np.testing.assert_array_equal(state.params['w'], first.state.params['w'])
    np.testing.assert_array_equal(state.mutable[CARRY]['sum'], np.zeros((4, 2)))
    assert float(state.mutable['count']) == 2


def test_parameters_are_gathered_over_data_alone():
    mesh = shard.make_mesh(1)
    specs = {
        'divided': (P('data'), P(None)),
        'both': (P(None, ('data', 'model')), P(None, ('model',))),
        'model': (P('model', None), P('model', None)),
        'whole': (P(), P()),
    }
    params = {name: jnp.ones((4, 4)) for name in specs}
    layout = {name: NamedSharding(mesh, spec) for name, (spec, _) in specs.items()}
    laid_out = jax.device_put(params, layout)
    for gathered in (jax.jit(lambda tree: shard.gather(tree, layout))(laid_out), shard.gather(laid_out)):
        for name, (_, expected) in specs.items():
            assert gathered[name].sharding.is_equivalent_to(NamedSharding(mesh, expected), 2)
            np.testing.assert_array_equal(gathered[name], params[name])
    numbers = {'x': np.ones(3)}
    assert shard.gather(numbers)['x'] is numbers['x']


@pytest.mark.slow
def test_what_devices_exchange_does_not_grow_with_their_number(root):
    """Without `shard.gather` a step of 64 devices took 117 GB each: XLA gathered the rows of all."""
    rows = {}
    for devices in (8, 64):
        env = os.environ | {'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}', 'JAX_PLATFORMS': 'cpu'}
        command = [sys.executable, '-m', 'benchmarks.scale', '--call', 'compile_for_devices', 'transformer_big', 'fsdp']
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=env)
        assert done.returncode == 0, done.stderr[-3000:]
        rows[devices] = json.loads(done.stdout.splitlines()[-1])
    assert rows[64]['state'] < rows[8]['state'] / 7
    assert rows[64]['step'] < 1.1 * rows[8]['step']
    assert rows[64]['exchanged'] < 1.1 * rows[8]['exchanged']


EIGHT = """
import json, sys, tempfile
import jax, numpy as np
from canon.train import fit
from canon.train.init_from import read_model
from tests.train import toy

def run(name, steps=6, folder=None, **more):
    folder = folder or tempfile.mkdtemp()
    fitted = fit(toy.experiment(), toy.config(steps=steps, **more), folder, quiet=True)
    sharded = [tuple(x.sharding.spec) for x in jax.tree.leaves(fitted.state.params)]
    opt = [tuple(x.sharding.spec) for x in jax.tree.leaves(fitted.state.opt) if x.ndim]
    flat = {k: np.asarray(v).tolist() for k, v in read_model(folder).items()}
    return dict(params=flat, metrics=fitted.metrics, sharded=sum(any(s) for s in sharded), opt=sum(any(s) for s in opt),
                folder=folder)

assert len(jax.devices()) == 8
rules = (('Dense_0/kernel', ('model', None)),)
out = dict(one=run('one', mesh=dict(data=1)), fsdp=run('fsdp', shard=dict(fsdp=8)))
if 'all' in sys.argv:
    out['data'] = run('data')
    out['model'] = run('model', mesh=dict(data=4, model=2), shard=dict(rules=rules))
    out['accumulated'] = run('accumulated', accumulate=2)
    half = tempfile.mkdtemp()
    run('half', folder=half, stop_after=3, shard=dict(fsdp=8))
    out['resumed_on_two'] = run('resumed', folder=half, mesh=dict(data=2))
print(json.dumps(out))
"""


def train_on_eight(root, *words):
    """Runs of the toy experiment on eight fake devices, in a process of their own."""
    env = os.environ | {'XLA_FLAGS': f'--xla_force_host_platform_device_count=8 {XLA_FLAGS}'}
    done = subprocess.run([sys.executable, '-c', EIGHT, *words], capture_output=True, text=True, cwd=root, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope='module')
def eight(root):
    return train_on_eight(root, 'all')


def test_a_sharded_run_learns_the_same(root):
    runs = train_on_eight(root)
    check_equal_learning(runs, 'fsdp')
    check_fsdp_layout(runs['fsdp'])


@pytest.mark.slow
@pytest.mark.parametrize('other', ['data', 'fsdp', 'model', 'resumed_on_two'])
def test_any_layout_learns_the_same(eight, other):
    check_equal_learning(eight, other)


def check_equal_learning(eight, other):
    """BatchNorm, dropout, augmentation, masks, clipping and EMA included."""
    assert eight['one']['params'].keys() == eight[other]['params'].keys()
    for name, value in eight['one']['params'].items():
        np.testing.assert_allclose(eight[other]['params'][name], value, rtol=2e-5, atol=2e-5, err_msg=name)
    assert eight[other]['metrics'] == pytest.approx(eight['one']['metrics'], abs=1e-6)


@pytest.mark.slow
def test_layouts_are_what_was_asked(eight):
    assert eight['data']['sharded'] == eight['data']['opt'] == 0
    check_fsdp_layout(eight['fsdp'])
    assert eight['model']['sharded'] == 1


def check_fsdp_layout(run):
    assert run['sharded'] >= 4
    # Adam's two moments and the average are cut like the parameters they belong to.
    assert run['opt'] == 3 * run['sharded']


def test_a_skipped_step_leaves_mutable_as_it_was():
    experiment = toy.experiment(tx=optim.skip_nonfinite(optim.sgd(0.1)))
    batch = experiment.train[0]
    state = start_state(experiment.task, experiment.tx, batch)
    step = jax.jit(make_step(experiment.task, experiment.tx, 0))
    skipped, metrics = step(state, {**batch, 'image': np.full_like(batch['image'], np.nan)})
    assert metrics['skipped_updates'].total == 1
    jax.tree.map(np.testing.assert_array_equal, (skipped.params, skipped.mutable), (state.params, state.mutable))
    after, _ = step(skipped, batch)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (after.mutable, state.mutable)), strict=True))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.mutable))


def test_microbatch_gradients_in_bfloat16_are_added_in_float32():
    """1,024 equal gradients: a sum in bfloat16 stands still at 256 of them."""

    def loss(params, mutable, batch, at):
        return Mean.of(params['a'] * batch['x']), (mutable, {})

    task = Task(lambda key, batch: {'params': {'a': jnp.zeros((), jnp.bfloat16)}}, loss, lambda *_: None)
    batch = {'x': jnp.ones(1024, jnp.bfloat16)}
    state = init_state(task, optim.sgd(1.0), 0, batch)
    state, _ = jax.jit(make_step(task, optim.sgd(1.0), 0, accumulate=1024))(state, batch)
    assert state.params['a'].dtype == jnp.bfloat16
    assert float(state.params['a']) == -1


def test_sums_of_an_evaluation_in_bfloat16_lose_nothing():
    class Batches:
        def __len__(self):
            return 320

        def iterate(self, start=0):
            return iter([{'x': np.full(10, 1, np.float32)}] * 320)

    one = Evaluator(Batches(), lambda p, m, b: b['x'].astype(jnp.bfloat16).sum(), lambda total: {'sum': float(total)})
    mesh = make_setup(toy.experiment(), toy.config()).mesh
    assert evaluate(one, {}, {}, mesh).metrics['sum'] == 3200


def test_no_name_of_the_package_is_hidden_by_a_module():
    """Names load on first use, and importing a submodule binds its own name in the package."""
    import canon.train

    for module in pkgutil.iter_modules(canon.train.__path__):
        importlib.import_module(f'canon.train.{module.name}')
    hidden = [name for name in canon.train.__all__ if isinstance(getattr(canon.train, name), types.ModuleType)]
    assert not hidden
    assert canon.train.evaluate is evaluate


def test_a_state_larger_than_the_memory_is_one_line():
    """Found from shapes: building it would make the system end the process."""
    with pytest.raises(UsageError, match=r'optimizer state take .* GiB per device, which holds .* run\.shard\.fsdp'):
        make_setup(toy.experiment(toy.Net(width=10**9), optim.sgd(0.1)), toy.config())

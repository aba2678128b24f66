"""The state lies where the parameters lie, from the first jit(init) on: eight devices, in a process of their own."""

import os
import subprocess
import sys

import pytest

from tests.quick import XLA_FLAGS

PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from canon import optim
from tests.optim.everything import ALL

assert len(jax.devices()) == 8
mesh = jax.make_mesh((4, 2), ('data', 'model'), axis_types=(AxisType.Auto,) * 2)
everywhere = NamedSharding(mesh, P())
shapes = {'Conv_0': {'kernel': (3, 3, 8, 16), 'bias': (16,)}, 'Dense_0': {'kernel': (16, 8), 'bias': (8,)}}
is_shape = lambda x: isinstance(x, tuple)
rng = np.random.default_rng(0)
host = jax.tree.map(lambda s: np.asarray(rng.normal(size=s), np.float32), shapes, is_leaf=is_shape)
specs = {
    'Conv_0': {'kernel': P(None, None, 'data', 'model'), 'bias': P()},
    'Dense_0': {'kernel': P('data'), 'bias': P('model')},
}
shardings = jax.tree.map(lambda s: NamedSharding(mesh, s), specs)
params = jax.device_put(host, shardings)
grads = jax.device_put(jax.tree.map(np.cos, host), shardings)
abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), host)
others = {
    'optax.adam': lambda o: optax.adam(0.1),
    'optax.adamw, chained': lambda o: optax.chain(optax.clip(1.0), optax.adamw(0.1)),
    'optax.partition': lambda o: optax.partition(
        {'a': optax.adam(0.1), 'b': optax.sgd(0.1, 0.9)},
        {'Conv_0': {'kernel': 'a', 'bias': 'b'}, 'Dense_0': {'kernel': 'a', 'bias': 'b'}}),
}

def lies(x, sharding):
    return x.sharding.is_equivalent_to(sharding, x.ndim)

for name in sys.argv[1:]:
    make = ALL.get(name) or others[name]
    tx = make(optim)
    layout = optim.opt_state_shardings(tx, abstract, shardings, everywhere)
    again = optim.opt_state_shardings(tx, params, shardings, everywhere)
    assert jax.tree.all(jax.tree.map(lambda a, b: a == b, layout, again))
    state = jax.jit(tx.init, out_shardings=layout)(params)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    p, s = params, state
    for k in range(3):
        p, s = step(p, s)
        s = optim.observe(s, {'loss': 1.0})
        rates = [n for n in optim.hyperparams(s) if n.endswith('learning_rate')]
        if k == 1 and rates:
            s = optim.set_hyperparams(s, **dict.fromkeys(rates, 0.05))
    assert jax.tree.all(jax.tree.map(lies, state, layout)), name
    if name not in ('bucket_leaves', 'muon', 'soap'):  # joined or multiplied: XLA chooses, unless out_shardings pin it
        assert jax.tree.all(jax.tree.map(lies, p, shardings)), name
        assert jax.tree.all(jax.tree.map(lies, s, layout)), name
        assert step._cache_size() == 1, (name, step._cache_size())
    # the same numbers as on one device
    one, t = host, jax.jit(tx.init)(host)
    lone = jax.jit(lambda p, t: tx.update(jax.tree.map(np.cos, host), t, p))
    for k in range(3):
        u, t = lone(one, t)
        one = optax.apply_updates(one, u)
        t = optim.observe(t, {'loss': 1.0})
        rates = [n for n in optim.hyperparams(t) if n.endswith('learning_rate')]
        if k == 1 and rates:
            t = optim.set_hyperparams(t, **dict.fromkeys(rates, 0.05))
    if name != 'soap':
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-5, atol=1e-5, err_msg=name), p, one)
    mirrored = [leaf for leaf in jax.tree.leaves(layout) if leaf.spec != P()]
    print(name, len(mirrored))

# which leaves are laid out like a parameter
adam = optim.opt_state_shardings(optim.adam(0.1), abstract, shardings, everywhere)
assert optim.find_state(adam, optim.AdamState).mu == shardings
assert optim.find_state(adam, optim.AdamState).count == everywhere
# a path that ends like a shorter parameter's belongs to the longer one
nested = {'a': jax.ShapeDtypeStruct((8,), 'float32'), 'b': {'a': jax.ShapeDtypeStruct((8,), 'float32')}}
two = {'a': NamedSharding(mesh, P('data')), 'b': {'a': NamedSharding(mesh, P('model'))}}
nested = optim.opt_state_shardings(optim.adam(0.1), nested, two, everywhere)
assert optim.find_state(nested, optim.AdamState).mu == two
# one bare array
bare = optim.opt_state_shardings(optim.adam(0.1), jax.ShapeDtypeStruct((8,), 'float32'), two['a'], everywhere)
assert optim.find_state(bare, optim.AdamState).mu == two['a']
assert optim.find_state(bare, optim.AdamState).count == everywhere
"""


FAST = ('momentum', 'adam', 'optax.adam', 'clip, ema', 'muon')
OTHERS = ('lamb', 'plateau', 'partition', 'master', 'skip', 'bucket_leaves', 'soap')
OTHERS += ('optax.adamw, chained', 'optax.partition')


def run_on_eight(names):
    flags = f'--xla_force_host_platform_device_count=8 {XLA_FLAGS}'
    environment = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run([sys.executable, '-c', PROGRAM, *names], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(line.rsplit(' ', 1) for line in done.stdout.splitlines())


@pytest.mark.slow
def test_eight_devices_with_more_optimizers():
    assert run_on_eight(OTHERS).keys() == set(OTHERS)


def test_eight_devices():
    laid = run_on_eight(FAST)
    assert laid['adam'] == laid['optax.adam'] == '6'  # mean and mean square of three parameters each
    assert laid['momentum'] == '3'

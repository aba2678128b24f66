"""Reads tests/models/golden/*.npz as tools/golden/inception_torch.py writes them, and computes our side of each."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from canon import weights
from tests.models.drawn import digest, distance, draw_parameter, images
from tests.quick import quick_jit


class Golden:
    """One network's golden: {part: {name: values}}, and the keys and shapes of its state."""

    def __init__(self, name: str):
        flat = dict(np.load(Path(__file__).parent / f'golden/{name}.npz'))
        texts = (tuple(map(int, s.split(','))) for s in flat.pop('shapes'))
        self.shapes = dict(zip(map(str, flat.pop('keys')), texts, strict=True))
        self.parts: dict[str, dict[str, np.ndarray]] = {}
        for key, value in flat.items():
            part, _, row = key.partition('/')
            self.parts.setdefault(part, {})[row] = value

    def variables(self, like, names, without: str = '\0'):
        """Our variables with the drawn weights; `without`: a prefix of keys that are left out."""
        tensors = {k: draw_parameter(k, s) for k, s in self.shapes.items() if not k.startswith(without)}
        return weights.from_torch(tensors, like, names)


def shapes_of(model, size):
    """What `model.init` would give for images [B, H, W, C] of that size."""
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(size, np.float32))


def count(tree) -> int:
    """The number of parameters."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def draw_variables(model, size=(1, 32, 32, 3)):
    """Variables of a network without a golden, drawn by the names and shapes of its leaves."""
    like = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var', 'bias': 'bias'}

    def draw(path, leaf):
        path = [k.key for k in path]
        return draw_parameter('/'.join(path) + '.' + like[path[-1]], leaf.shape[::-1]).transpose()

    return jax.tree_util.tree_map_with_path(draw, shapes_of(model, size))


def check_bfloat16(model, size):
    """A network of dtype 'bfloat16' keeps float32 parameters and answers in bfloat16, its stages too."""
    x = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
    assert jax.eval_shape(model.apply, variables, x).dtype == jnp.bfloat16
    stages = jax.eval_shape(lambda v, x: model.apply(v, x, method='features'), variables, x)
    assert {s.dtype for s in stages.values()} == {np.dtype(jnp.bfloat16)}


def check_evaluation(model, variables, size, golden, tolerance=1e-5):
    """Logits, and every stage that the golden names, within `tolerance` of their largest value."""

    @quick_jit
    def both(variables, x):
        return model.apply(variables, x), model.apply(variables, x, method='features')

    logits, stages = both(variables, images(*size))
    assert stages.keys() >= golden.keys() - {'logits'}
    far = {k: distance(stages[k], v) for k, v in golden.items() if k != 'logits'}
    far['logits'] = np.abs(logits - golden['logits']).max() / np.abs(golden['logits']).max()
    assert max(far.values()) < tolerance, far


def check_training_pass(model, variables, size, golden, names, keys, double: bool):
    """One training pass against torch's in float64: logits, auxiliary logits, each running statistic of torch's `keys`.

    double: ours in float64 too, and equal to what the golden stores of it. Otherwise in float32: statistics within
    1e-5, logits at most twice as far as torch's own in float32, since normalising by a small batch magnifies rounding.
    """

    @quick_jit
    def step(variables, x):
        return model.apply(variables, x, True, mutable=['batch_stats', 'auxiliary'])

    kind = np.float64 if double else np.float32
    with jax.enable_x64(double):
        logits, changed = jax.tree.map(np.asarray, step(jax.tree.map(kind, variables), kind(images(*size))))
    outputs = {'logits': logits} | {k: v for k, (v,) in changed.get('auxiliary', {}).items()}
    rows = [k for k in golden if k not in ('own_errors', 'statistics')]
    assert outputs.keys() == set(rows)
    for name, own in zip(rows, golden['own_errors'], strict=True):
        error = np.abs(outputs[name] - golden[name]).max() / np.abs(golden[name]).max()
        assert error < (1e-6 if double else 2 * own), (name, error, own)
    ours = weights.to_torch({**variables, 'batch_stats': changed['batch_stats']}, names)
    running = [k for k in keys if '.running_' in k]
    assert set(running) == {key for key in ours if '.running_' in key}
    far = {
        key: np.abs(digest(ours[key], 8) - row).max() / row[-1]
        for key, row in zip(running, golden['statistics'], strict=True)
    }
    tolerance = 1e-6 if double else 1e-5
    assert max(far.values()) < tolerance, {k: v for k, v in far.items() if v >= tolerance}

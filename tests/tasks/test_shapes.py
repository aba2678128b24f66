"""Methods of learning shapes: their losses against the equations of the papers, their batches and their evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from canon.data.scenes import meshes, shapes
from canon.errors import UsageError
from canon.metrics.shapes import iou
from canon.models.deepsdf import deepsdf
from canon.models.igr import igr
from canon.models.occupancy import point_cloud
from canon.tasks.shapes import (
    SYSTEMS,
    ShapeEvaluation,
    fit_codes,
    igr_system,
    occupancy_system,
    shape_evaluator,
)
from canon.train import At, shard
from canon.train.evaluation import evaluate

MODELS = {
    'auto_decoder': deepsdf(layers=2, width=16, skip=None, code=4, dropout=0.0),
    'eikonal': igr(layers=2, width=16, skip=None),
    'occupancy': point_cloud(code=6, hidden=6, width=8, blocks=1),
}
SETTINGS = {
    'auto_decoder': dict(samples=40, pool=500, observed=60, steps=30, rate=0.05, warmup=4, squared=False, prior=0.01),
    'eikonal': dict(points=300, neighbour=5),
    'occupancy': dict(samples=40, pool=300, cloud=20, threshold=0.3),
}
SPACES = {'auto_decoder': 'sphere', 'eikonal': 'sphere', 'occupancy': 'cube'}


def make(name, batch_size=4):
    """The system, its training shapes and its batches."""
    count = 1 if name == 'eikonal' else 6
    known = shapes.load_shapes(space=SPACES[name], count=count)
    system = SYSTEMS[name](MODELS[name], count, batch_size, **SETTINGS[name])
    return system, known, system.batches(known, 0)


def start(system, batch):
    variables = dict(jax.jit(system.task.init)(jax.random.key(0), batch))
    return variables.pop('params'), variables


def test_an_auto_decoder_minimises_its_equation():
    """Eq. 9 with the authors' norm: mean clamped error, and the prior that grows with the epochs."""
    system, known, batches = make('auto_decoder')
    batch = batches[3]  # rows 12 .. 15: the third epoch of six shapes
    params, _ = start(system, batch)
    assert batch['points'].shape == (4, 40, 3)
    assert ((batch['distance'] < 0).sum(1) == 20).all()
    for shape, points, distance in zip(batch['shape'], batch['points'], batch['distance'], strict=True):
        np.testing.assert_allclose(known[shape].signed_distance(points), distance, atol=1e-5)
    values = np.asarray(system.task.predict(params, {}, batch), np.float64)
    codes = np.asarray(params['codes'], np.float64)[batch['shape']]
    errors = np.abs(np.clip(values, -0.1, 0.1) - np.clip(batch['distance'], -0.1, 0.1))
    loss = jax.jit(lambda step: system.task.loss(params, {}, batch, At(jax.random.key(0), step))[0])
    for step, epoch in ((3, 3), (0, 1), (1, 1), (5, 4), (10**6, 4), (2**31 - 1, 4)):
        total, weight = loss(step)
        prior = 0.01 * epoch / 4
        expected = errors.mean() + (prior * np.linalg.norm(codes, axis=-1)).mean()
        np.testing.assert_allclose(total / weight, expected, rtol=1e-5)


def test_each_code_is_fitted_as_if_it_were_alone():
    goals = jnp.asarray([[0.3, -0.2], [0.1, 0.4], [0.0, 0.0]])
    codes = fit_codes(lambda codes: jnp.square(codes - goals).sum(), goals.shape, 300, 0.02)
    np.testing.assert_allclose(codes, goals, atol=1e-3)
    scaled = fit_codes(lambda codes: 9 * jnp.square(codes - goals).sum(), goals.shape, 300, 0.02)
    np.testing.assert_allclose(scaled, codes, atol=1e-4)  # Adam does not see the scale of a loss


def test_a_new_shape_is_fitted_by_its_code():
    """The error of samples falls while the decoder stays as it is."""
    system, _, batches = make('auto_decoder')
    params, _ = start(system, batches.example)
    body = shapes.load_shapes(split='test', space='sphere', count=1)[0]
    observed = {name: x[None] for name, x in system.observe(body, np.random.default_rng(0)).items()}
    codes = system.encode(params, {}, observed)

    def error(codes):
        values = np.clip(system.field(params, {}, codes, observed['points']), -0.1, 0.1)
        return np.abs(values - np.clip(observed['distance'], -0.1, 0.1)).mean()

    assert error(codes) < 0.95 * error(jnp.zeros_like(codes))


def test_igr_minimises_its_equation():
    """Eq. 2 from gradients by finite differences of the network, at the points that the key draws."""
    system, _, batches = make('eikonal', batch_size=8)
    batch, key = batches[0], jax.random.key(3)
    params, _ = start(system, batch)
    loss, (_, reported) = jax.jit(system.task.loss)(params, {}, batch, At(key, 0))
    near, far = jax.random.split(key)
    off = np.concatenate((
        batch['points'] + batch['sigma'][:, None] * np.asarray(jax.random.normal(near, (8, 3))),
        jax.random.uniform(far, (1, 3), minval=-1.8, maxval=1.8),
    ))  # fmt: skip
    with jax.enable_x64(True):
        params = jax.tree.map(np.float64, params)
        predict = jax.jit(system.task.predict)
        value = lambda points: np.asarray(predict(params, {}, {'points': np.float64(points)}))  # noqa: E731
        step = 1e-6 * np.eye(3)
        slope = lambda points: np.stack([value(points + s) - value(points - s) for s in step], -1) / 2e-6  # noqa: E731
        on = np.abs(value(batch['points'])) + np.linalg.norm(slope(batch['points']) - batch['normals'], axis=-1)
        length = (np.linalg.norm(slope(off), axis=-1) - 1) ** 2
    np.testing.assert_allclose(loss.total / loss.weight, on.mean() + 0.1 * length.mean(), rtol=1e-4)
    np.testing.assert_allclose(reported['eikonal'].total / reported['eikonal'].weight, length.mean(), rtol=1e-3)
    with pytest.raises(UsageError, match='one network for one shape, and there are 2'):
        igr_system(MODELS['eikonal'], 2, 8)


def test_occupancy_minimises_its_equation():
    """Eq. 3: summed over points, averaged over shapes."""
    system, _, batches = make('occupancy')
    batch = batches[0]
    params, mutable = start(system, batch)
    assert {name: x.shape for name, x in batch.items()} == {
        'cloud': (4, 20, 3), 'points': (4, 40, 3), 'inside': (4, 40)
    }  # fmt: skip
    loss, (updates, reported) = jax.jit(system.task.loss)(params, mutable, batch, At(jax.random.key(0), 0))
    variables = {'params': params, **mutable}
    network = MODELS['occupancy']
    apply = jax.jit(lambda v, batch: network.apply(v, batch['points'], batch['cloud'], True, mutable=['batch_stats']))
    logits, _ = apply(variables, batch)
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    expected = -np.where(batch['inside'], np.log(p), np.log1p(-p)).sum() / 4
    np.testing.assert_allclose(loss.total / loss.weight, expected, rtol=1e-5)
    assert not np.allclose(*(jax.tree.leaves(m)[0] for m in (updates, mutable)))
    np.testing.assert_allclose(reported['iou'].total / 4, np.mean(iou(p > 0.3, batch['inside'])), rtol=1e-5)


def test_points_of_a_mesh_file_are_its_own(tmp_path):
    for i in range(4):
        meshes.write_mesh(trimesh.creation.icosphere(2, 1 + i), tmp_path / f'{i}.ply')
    system = occupancy_system(MODELS['occupancy'], 3, 4, **SETTINGS['occupancy'])
    batch = system.batches(shapes.load_shapes(str(tmp_path)), 0)[0]
    radius = np.linalg.norm(batch['points'], axis=-1)
    clear = np.abs(radius - 0.5) > 0.03  # an icosphere lies a little within its sphere
    np.testing.assert_array_equal(batch['inside'][clear], radius[clear] < 0.5)
    assert np.abs(batch['points']).max() <= 0.55
    assert np.linalg.norm(batch['cloud'], axis=-1).mean() == pytest.approx(0.49, abs=0.02)


@pytest.mark.parametrize('name', SYSTEMS)
def test_batches_do_not_depend_on_the_processes(name):
    """Each of two processes draws one half of what one process draws, and the example has their layout."""
    _, _, batches = make(name, batch_size=8)
    global_batch = batches[2]
    halves = [batches.for_process(i, 2) for i in range(2)]
    joined = {key: np.concatenate([half[2][key] for half in halves]) for key in global_batch}
    for key, values in global_batch.items():
        np.testing.assert_array_equal(joined[key], values)
        assert (values.shape, values.dtype) == (batches.example[key].shape, batches.example[key].dtype)
        assert halves[0].example[key].shape == halves[0][2][key].shape
    assert not np.array_equal(*(half[2]['points'] for half in halves))
    np.testing.assert_array_equal(halves[1].for_process(0, 2)[2]['points'], halves[0][2]['points'])


def test_what_a_system_observes():
    points, normals = shapes.make_bodies(('sphere',), 1, space='sphere')[0].sample_surface(
        500, np.random.default_rng(0)
    )
    system, known, _ = make('auto_decoder')
    observed = system.observe_points(points, 3 * normals, np.random.default_rng(0))  # labels are distances all the same
    np.testing.assert_allclose(known[0].signed_distance(observed['points']), observed['distance'], atol=1e-6)
    with pytest.raises(UsageError, match='give points with normals'):
        system.observe_points(points, None, np.random.default_rng(0))
    single = igr_system(MODELS['eikonal'], 1, 8, known[0].name)
    assert single.observe(known[0], np.random.default_rng(0)) == {}
    with pytest.raises(UsageError, match='this run knows train-0-sphere alone'):
        single.observe(known[1], np.random.default_rng(0))


# --- evaluation ---------------------------------------------------------------------------------------------------


class Smaller:
    """A system whose field is that of the sphere itself, with a radius that is `less` smaller."""

    def __init__(self, less):
        self.half = 0.55
        self.observe = lambda shape, rng: {'radius': np.float32(shape.parts[0].sizes[0])}
        self.encode = lambda params, mutable, observed: observed['radius'] - less
        self.evaluate_field = lambda params, mutable, codes, points: jnp.linalg.norm(points, axis=-1) - codes[:, None]


def test_distances_to_an_open_shape():
    """A sphere against a hemisphere of another radius: one side is met everywhere, the other by half."""
    points = trimesh.creation.icosphere(3, 0.4)
    points.update_faces(points.triangles_center[:, 2] < 0)

    class Bowl:
        name, watertight = 'bowl', False
        mesh = meshes.clean_mesh(points.vertices, points.faces)
        parts = (shapes.Primitive('sphere', (0.4,)),)

        def sample_surface(self, count, rng):
            return meshes.sample_mesh(self.mesh, count, rng)

    evaluator = shape_evaluator(Smaller(0.05), [Bowl()], ShapeEvaluation(resolution=40, surface=6000))
    scores = evaluate(evaluator, {}, {}, shard.make_mesh(1)).metrics
    assert scores['completeness'] == pytest.approx(0.05, rel=0.05)
    cosine = np.linspace(-1, 1, 200_001)  # of the polar angle, uniform over a sphere
    rim = np.sqrt((0.4 - 0.35 * np.sqrt(1 - cosine**2)) ** 2 + (0.35 * cosine) ** 2)
    assert scores['accuracy'] == pytest.approx(np.where(cosine < 0, 0.05, rim).mean(), rel=0.03)


def test_what_is_measured():
    """Spheres that are too small by 0.05: all in closed form. Of three, two per batch, none is padding."""
    bodies = shapes.make_bodies(('sphere',), 3, 'test')
    settings = ShapeEvaluation(batch_size=2, points=40_000, resolution=40, surface=8000, threshold=0.04)
    evaluator = shape_evaluator(Smaller(0.05), bodies, settings)
    result = evaluate(evaluator, {}, {}, shard.make_mesh(1))
    radii = np.array([body.parts[0].sizes[0] for body in bodies])
    assert result.metrics['iou'] == pytest.approx(np.mean(((radii - 0.05) / radii) ** 3), abs=0.02)
    assert result.metrics['chamfer_l1'] == pytest.approx(0.05, rel=0.05)
    assert result.metrics['chamfer_l2'] == pytest.approx(2 * 0.05**2, rel=0.1)
    assert result.metrics['normal_consistency'] > 0.99
    assert result.metrics['f_score'] == 0
    assert result.metrics['empty'] == 0
    figures = evaluator.draw({}, {}, result.sums)
    assert set(figures) == {'meshes', 'slices'}
    assert len(figures['slices'].axes) == 6


def test_batches_that_the_devices_do_not_divide_are_filled_and_masked(monkeypatch):
    bodies = shapes.make_bodies(('sphere',), 2, 'test')
    settings = ShapeEvaluation(batch_size=1, points=2000, resolution=12, surface=500)
    expected = evaluate(shape_evaluator(Smaller(0.05), bodies, settings), {}, {}, shard.make_mesh(1))
    monkeypatch.setattr(jax, 'device_count', lambda: 3)
    evaluator = shape_evaluator(Smaller(0.05), bodies, settings)
    assert len(evaluator.data) == 1
    assert evaluator.data[0]['mask'].tolist() == [True, True, False]
    measured = evaluator.finish(jax.device_get(evaluator.measure({}, {}, evaluator.data[0])))
    assert measured == pytest.approx(expected.metrics, rel=1e-5)


def test_a_missing_surface_is_counted_and_costs():
    bodies = shapes.make_bodies(('sphere',), 2, 'test')
    evaluator = shape_evaluator(Smaller(1.0), bodies, ShapeEvaluation(points=50, resolution=6, surface=50))
    result = evaluate(evaluator, {}, {}, shard.make_mesh(1))
    assert result.metrics['empty'] == 1
    assert result.metrics['chamfer_l1'] == pytest.approx(1.1 * 3**0.5)
    evaluator.draw({}, {}, result.sums)

"""Shapes as an experiment: what each system learns from, what it minimises, how it is measured, what it writes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from ml_collections import ConfigDict

from canon.data.scenes import meshes, shapes
from canon.errors import CanonError, UsageError
from canon.metrics.shapes import iou
from canon.train import At, shard
from canon.train.evaluation import evaluate
from canon.train.setup import prepare
from experiments import shapes as experiment
from experiments.shapes import systems

MODELS = {
    'auto_decoder': dict(name='deepsdf.deepsdf', layers=2, width=16, skip=None, code=4, dropout=0.0),
    'eikonal': dict(name='igr.igr', layers=2, width=16, skip=None),
    'occupancy': dict(name='occupancy.point_cloud', code=6, hidden=6, width=8, blocks=1),
}
SYSTEMS = {
    'auto_decoder': dict(samples=40, pool=500, observed=60, steps=30, rate=0.05, warmup=4, squared=False, prior=0.01),
    'eikonal': dict(points=300, neighbour=5),
    'occupancy': dict(samples=40, pool=300, cloud=20, threshold=0.3),
}


def config(system, path=None, **changes):
    single = system == 'eikonal'
    made = ConfigDict(
        dict(
            seed=0,
            data=dict(
                path=path,
                space='cube' if system == 'occupancy' else 'sphere',
                family=dict(count=1 if single else 6),
                batch_size=8 if single else 4,
                train=dict(split='train'),
                evals=dict(
                    test=dict(
                        split='train' if single else 'test',
                        count=3,
                        batch_size=2,
                        points=300,
                        resolution=12,
                        surface=200,
                    )
                ),
            ),
            model=MODELS[system],
            system=dict(name=system, **SYSTEMS[system]),
            tx=dict(name='adam', learning_rate=1e-3),
            run=dict(steps=2),
            extract=dict(resolution=8, upsamplings=1),
        )
    )
    made.update_from_flattened_dict(changes)
    return made


def begun(made):
    found = experiment.make(made)
    return found, prepare(found, made).starting_state()


def test_an_auto_decoder_minimises_its_equation(tmp_path):
    """Eq. 9 with the authors' norm: mean clamped error, and the prior that grows with the epochs."""
    made = config('auto_decoder')
    found, state = begun(made)
    batch = found.train[3]  # rows 12 .. 15: the third epoch of six shapes
    assert batch['points'].shape == (4, 40, 3)
    assert ((batch['distance'] < 0).sum(1) == 20).all()
    known = shapes.load(space='sphere', count=6)
    for shape, points, distance in zip(batch['shape'], batch['points'], batch['distance'], strict=True):
        np.testing.assert_allclose(known[shape].signed(points), distance, atol=1e-5)
    np.testing.assert_allclose(batch['prior'], 0.01 * 3 / 4, rtol=1e-6)
    loss, _ = found.task.loss(state.params, {}, batch, At(jax.random.key(0), 0))
    values = np.asarray(found.task.predict(state.params, {}, batch), np.float64)
    codes = np.asarray(state.params['codes'], np.float64)[batch['shape']]
    errors = np.abs(np.clip(values, -0.1, 0.1) - np.clip(batch['distance'], -0.1, 0.1))
    wanted = errors.mean() + (batch['prior'] * np.linalg.norm(codes, axis=-1)).mean()
    np.testing.assert_allclose(loss.total / loss.weight, wanted, rtol=1e-5)


def test_each_code_is_found_as_if_it_were_alone():
    goals = jnp.asarray([[0.3, -0.2], [0.1, 0.4], [0.0, 0.0]])
    error = lambda goals: lambda codes: jnp.square(codes - goals).sum()  # noqa: E731
    found = systems.descended(error(goals), goals.shape, 300, 0.02)
    np.testing.assert_allclose(found, goals, atol=1e-3)
    scaled = systems.descended(lambda c: 9 * jnp.square(c - goals).sum(), goals.shape, 300, 0.02)
    np.testing.assert_allclose(scaled, found, atol=1e-4)  # Adam does not see the size of a loss


def test_a_new_shape_is_fitted_by_its_code():
    """The error of held-out samples falls while the decoder stays as it is."""
    made = config('auto_decoder')
    _, state = begun(made)
    system = experiment._system(made, shapes.load(space='sphere', count=6))
    seen = system.observe(shapes.load(split='test', space='sphere', count=1)[0], np.random.default_rng(0))
    seen = {name: x[None] for name, x in seen.items()}
    code = system.encode(state.params, {}, seen)

    def error(code):
        values = np.clip(system.field(state.params, {}, code, seen['points']), -0.1, 0.1)
        return np.abs(values - np.clip(seen['distance'], -0.1, 0.1)).mean()

    assert error(code) < 0.95 * error(jnp.zeros_like(code))


def test_igr_minimises_its_equation():
    """Eq. 2 from gradients by finite differences of the network, at the points that the key draws."""
    made = config('eikonal')
    found, state = begun(made)
    batch, key = found.train[0], jax.random.key(3)
    loss, (_, told) = found.task.loss(state.params, {}, batch, At(key, 0))
    close, far = jax.random.split(key)
    off = np.concatenate((
        batch['points'] + batch['sigma'][:, None] * np.asarray(jax.random.normal(close, (8, 3))),
        jax.random.uniform(far, (1, 3), minval=-1.8, maxval=1.8),
    ))  # fmt: skip
    with jax.enable_x64(True):
        params = jax.tree.map(np.float64, state.params)
        value = lambda points: np.asarray(found.task.predict(params, {}, {'points': np.float64(points)}))  # noqa: E731
        step = 1e-6 * np.eye(3)
        slope = lambda points: np.stack([value(points + s) - value(points - s) for s in step], -1) / 2e-6  # noqa: E731
        on = np.abs(value(batch['points'])) + np.linalg.norm(slope(batch['points']) - batch['normals'], axis=-1)
        length = (np.linalg.norm(slope(off), axis=-1) - 1) ** 2
    np.testing.assert_allclose(loss.total / loss.weight, on.mean() + 0.1 * length.mean(), rtol=1e-4)
    np.testing.assert_allclose(told['eikonal'].total / told['eikonal'].weight, length.mean(), rtol=1e-3)
    with pytest.raises(UsageError, match='one network for one shape, and there are 2'):
        experiment.make(config('eikonal', **{'data.family.count': 2}))


def test_occupancy_minimises_its_equation():
    """Eq. 3: summed over places, averaged over shapes."""
    made = config('occupancy')
    found, state = begun(made)
    batch = found.train[0]
    assert {name: x.shape for name, x in batch.items()} == {
        'cloud': (4, 20, 3), 'points': (4, 40, 3), 'inside': (4, 40)
    }  # fmt: skip
    loss, (mutable, told) = found.task.loss(state.params, state.mutable, batch, At(jax.random.key(0), 0))
    network = experiment.models.make(**made.model)
    variables = {'params': state.params, **state.mutable}
    logits, _ = network.apply(variables, batch['points'], batch['cloud'], True, mutable=['batch_stats'])
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    wanted = -np.where(batch['inside'], np.log(p), np.log1p(-p)).sum() / 4
    np.testing.assert_allclose(loss.total / loss.weight, wanted, rtol=1e-5)
    assert not np.allclose(*(jax.tree.leaves(m)[0] for m in (mutable, state.mutable)))
    np.testing.assert_allclose(told['iou'].total / 4, np.mean(iou(p > 0.3, batch['inside'])), rtol=1e-5)


def test_places_of_a_mesh_are_its_own(tmp_path):
    for i in range(4):
        meshes.write(trimesh.creation.icosphere(2, 1 + i), tmp_path / f'{i}.ply')
    made = config('occupancy', str(tmp_path))
    batch = experiment.make(made).train[0]
    radius = np.linalg.norm(batch['points'], axis=-1)
    clear = np.abs(radius - 0.5) > 0.03  # an icosphere is a little within its sphere
    np.testing.assert_array_equal(batch['inside'][clear], radius[clear] < 0.5)
    assert np.abs(batch['points']).max() <= 0.55
    assert np.linalg.norm(batch['cloud'], axis=-1).mean() == pytest.approx(0.49, abs=0.02)


@pytest.mark.parametrize('name', SYSTEMS)
def test_batches_do_not_depend_on_the_processes(name):
    """Two processes draw one half each of what one draws (IGR, whose rows have no number, draws others)."""
    made = config(name)
    known = shapes.load(space=made.data.space, count=made.data.family.count)
    build = lambda rows: systems.SYSTEMS[name](experiment.models.make(**made.model), known, rows, **SYSTEMS[name])  # noqa: E731
    whole = build(systems.Rows(0, 8)).batch(2)
    halves = [build(systems.Rows(0, 8, i, 2)).batch(2) for i in range(2)]
    joined = {key: np.concatenate([half[key] for half in halves]) for key in whole}
    for key, values in whole.items():
        assert joined[key].shape == values.shape
        if name != 'eikonal':
            np.testing.assert_array_equal(joined[key], values)
    assert not np.array_equal(*(half['points'] for half in halves))


def bowl():
    """The lower half of a sphere, open at its rim."""
    ball = trimesh.creation.icosphere(2, 3.0)
    ball.update_faces(ball.triangles_center[:, 2] < 0)
    return ball


def test_open_meshes_are_refused_before_the_first_step_where_sides_are_learnt(tmp_path):
    for split in ('train', 'test'):
        meshes.write(trimesh.creation.icosphere(1), tmp_path / split / 'ball.ply')
    for system in ('auto_decoder', 'occupancy'):
        experiment.make(config(system, str(tmp_path)))
        for split, told in (('test', 'data.evals.test'), ('train', f'{system} learns from insides')):
            bowl().export(tmp_path / split / 'bowl.ply')
            with pytest.raises(UsageError, match=rf'{told}.* 1 of 2 meshes are not watertight.*bowl\.ply, has 24 bad'):
                experiment.make(config(system, str(tmp_path)))
        for split in ('train', 'test'):
            (tmp_path / split / 'bowl.ply').unlink()


def test_igr_takes_an_open_mesh_and_is_measured_by_distances(tmp_path):
    bowl().export(tmp_path / 'bowl.ply')
    made = config('eikonal', str(tmp_path / 'bowl.ply'), **{'model.radius': 0.9})
    found, state = begun(made)
    assert found.train[0]['points'].shape == (8, 3)
    told = evaluate(found.evals['test'], state.params, {}, shard.make_mesh(1))
    assert set(told.metrics) == {'chamfer_l1', 'chamfer_l2', 'normals', 'f_score', 'accuracy', 'completeness', 'empty'}
    assert set(found.evals['test'].draw(state.params, {}, told.sums)) == {'meshes', 'slices'}
    text = experiment.predict(made, found, state.params, {}, 'train:0', tmp_path)
    assert 'vertices' in text
    assert 'IoU' not in text


def test_distances_to_an_open_shape():
    """A sphere against a hemisphere of another radius: one side is met everywhere, the other by half."""
    points = trimesh.creation.icosphere(3, 0.4)
    points.update_faces(points.triangles_center[:, 2] < 0)

    class Bowl:
        name, closed = 'bowl', False
        mesh = meshes.joined(points.vertices, points.faces)
        parts = (shapes.Part('sphere', (0.4,)),)

        def surface(self, count, rng):
            return meshes.points_of_mesh(self.mesh, count, rng)

    evaluator = experiment.shape_evaluator(Known(0.05), [Bowl()], experiment.Spec(resolution=40, surface=6000))
    told = evaluate(evaluator, {}, {}, shard.make_mesh(1)).metrics
    assert told['completeness'] == pytest.approx(0.05, rel=0.05)
    cosine = np.linspace(-1, 1, 200_001)  # of the polar angle, even over a sphere
    rim = np.sqrt((0.4 - 0.35 * np.sqrt(1 - cosine**2)) ** 2 + (0.35 * cosine) ** 2)
    assert told['accuracy'] == pytest.approx(np.where(cosine < 0, 0.05, rim).mean(), rel=0.03)


class Known:
    """A system whose field is that of the shape itself, made `less` smaller."""

    def __init__(self, less):
        self.half = 0.55
        self.observe = lambda shape, rng: {'radius': np.float32(shape.parts[0].sizes[0])}
        self.encode = lambda params, mutable, seen: seen['radius'] - less
        self.field = lambda params, mutable, code, points: jnp.linalg.norm(points, axis=-1) - code[:, None]


def test_what_is_measured():
    """Spheres that are found too small by 0.05: all in closed form. Of three, two a batch, one is no padding."""
    held = shapes.family(('sphere',), 3, 'test')
    spec = experiment.Spec(batch_size=2, points=40_000, resolution=40, surface=8000, threshold=0.04)
    evaluator = experiment.shape_evaluator(Known(0.05), held, spec)
    found = evaluate(evaluator, {}, {}, shard.make_mesh(1))
    radii = np.array([body.parts[0].sizes[0] for body in held])
    assert found.metrics['iou'] == pytest.approx(np.mean(((radii - 0.05) / radii) ** 3), abs=0.02)
    assert found.metrics['chamfer_l1'] == pytest.approx(0.05, rel=0.05)
    assert found.metrics['chamfer_l2'] == pytest.approx(2 * 0.05**2, rel=0.1)
    assert found.metrics['normals'] > 0.99
    assert found.metrics['f_score'] == 0
    assert found.metrics['empty'] == 0
    drawn = evaluator.draw({}, {}, found.sums)
    assert set(drawn) == {'meshes', 'slices'}
    assert len(drawn['slices'].axes) == 6


def test_no_surface_is_counted_and_costs():
    held = shapes.family(('sphere',), 2, 'test')
    evaluator = experiment.shape_evaluator(Known(1.0), held, experiment.Spec(points=50, resolution=6, surface=50))
    found = evaluate(evaluator, {}, {}, shard.make_mesh(1))
    assert found.metrics['empty'] == 1
    assert found.metrics['chamfer_l1'] == pytest.approx(1.1 * 3**0.5)
    evaluator.draw({}, {}, found.sums)


@pytest.mark.slow
def test_predicting_from_all_that_can_be_read(tmp_path):
    """A network that says inside everywhere: its surface is the border of the box, in the units of what it is given."""
    made = config('occupancy')
    found, state = begun(made)
    network = {'params': state.params, 'mutable': state.mutable}
    biased = jax.tree.map(jnp.copy, network['params'])
    biased['decoder']['logit']['bias'] = jnp.full(1, 5.0)
    body = trimesh.creation.icosphere(2, 3.0)
    body.vertices += [10, 0, 0]
    meshes.write(body, tmp_path / 'ball.obj')
    np.save(tmp_path / 'cloud.npy', body.vertices)
    for source, told in ((tmp_path / 'ball.obj', 'IoU 0.'), (tmp_path / 'cloud.npy', ''), ('test:1', 'IoU 0.')):
        text = experiment.predict(made, found, biased, network['mutable'], str(source), tmp_path / 'out')
        assert told in text
        assert 'vertices' in text
    written = meshes.read(tmp_path / 'out' / 'ball.glb')
    np.testing.assert_allclose(written.bounds, [[6.7, -3.3, -3.3], [13.3, 3.3, 3.3]], atol=1e-4)
    assert sorted(p.suffix for p in (tmp_path / 'out').glob('cloud.*')) == ['.glb', '.obj', '.ply']
    biased['decoder']['logit']['bias'] = jnp.full(1, -5.0)
    with pytest.raises(CanonError, match='there is no surface'):
        experiment.predict(made, found, biased, network['mutable'], 'test:0', tmp_path)
    for source, told in (('test:9', 'has 6 shapes'), ('none.ply', 'neither a file of triangles or points')):
        with pytest.raises(UsageError, match=told):
            experiment.predict(made, found, biased, network['mutable'], source, tmp_path)


def test_what_a_system_wants_to_see(tmp_path):
    points, normals = shapes.family(('sphere',), 1, space='sphere')[0].surface(500, np.random.default_rng(0))
    known = shapes.load(space='sphere', count=6)
    system = experiment._system(config('auto_decoder'), known)
    seen = system.observe_cloud(points, 3 * normals, np.random.default_rng(0))  # labels are distances all the same
    np.testing.assert_allclose(known[0].signed(seen['points']), seen['distance'], atol=1e-6)
    with pytest.raises(UsageError, match='give points with normals'):
        experiment._system(config('auto_decoder'), known).observe_cloud(points, None, np.random.default_rng(0))
    with pytest.raises(UsageError, match='this run knows train-0-sphere alone'):
        experiment._system(config('eikonal'), known[:1]).observe(known[1], np.random.default_rng(0))


@pytest.mark.parametrize(
    ('system', 'changes', 'told'),
    [
        ('occupancy', {'extract.resolution': 0}, 'extract.resolution=0 must be a whole number at least 1'),
        ('occupancy', {'extract.resolution': -8}, 'extract.resolution=-8 must be'),
        ('occupancy', {'extract.upsamplings': 8}, 'extract.resolution=8 and upsamplings=8 are 2048 cells a side'),
        ('occupancy', {'data.evals.test.resolution': 0}, 'data.evals.test.resolution=0 must be'),
        ('occupancy', {'data.evals.test.points': 0}, 'data.evals.test.points=0 must be'),
        ('occupancy', {'data.batch_size': 0}, 'data.batch_size=0 must be'),
        ('occupancy', {'data.family.count': -1}, 'data.family.count=-1 must be'),
        ('occupancy', {'system.threshold': 1.0}, 'system.threshold=1.0 must be a number above 0 and below 1'),
        ('occupancy', {'system.noise': float('nan')}, 'system.noise=nan must be'),
        ('auto_decoder', {'system.delta': 0.0}, 'system.delta=0.0 must be'),
        ('auto_decoder', {'model.dropout': 1.0}, 'model.dropout=1.0 must be'),
        ('eikonal', {'system.points': -1}, 'system.points=-1 must be'),
    ],
)
def test_settings_out_of_range(system, changes, told):
    with pytest.raises(UsageError, match=told):
        experiment.make(config(system, **changes))


def test_keys_that_do_not_exist():
    with pytest.raises(UsageError, match=r"system.name='ocupancy' is no way to learn shapes; did you mean 'occupancy'"):
        experiment.make(config('occupancy', **{'system.name': 'ocupancy'}))
    made = config('occupancy')
    made.system.clouds = 3
    with pytest.raises(UsageError, match=r"system.clouds: occupancy takes no such key; did you mean 'cloud'"):
        experiment.make(made)
    with pytest.raises(UsageError, match=r'data.path=none: there is no such file or folder'):
        experiment.make(config('occupancy', 'none'))

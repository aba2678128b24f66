"""Shapes as an experiment: what a config binds, what is read, what is predicted and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from ml_collections import ConfigDict

from canon.data.scenes import meshes
from canon.errors import CanonError, UsageError
from canon.tasks import predictions
from canon.train import shard
from canon.train.evaluation import evaluate
from canon.train.setup import make_setup
from experiments import configs, overrides
from experiments import shapes as experiment

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
    values = ConfigDict(
        dict(
            experiment='shapes',
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
    values.update_from_flattened_dict(changes)
    return values


def start(made):
    bound = experiment.make(made)
    return bound, make_setup(bound, made).starting_state()


def bowl():
    """The lower half of a sphere, open at its rim."""
    ball = trimesh.creation.icosphere(2, 3.0)
    ball.update_faces(ball.triangles_center[:, 2] < 0)
    return ball


def test_open_meshes_are_refused_before_the_first_step_where_insides_are_learned(tmp_path):
    for split in ('train', 'test'):
        meshes.write_mesh(trimesh.creation.icosphere(1), tmp_path / split / 'ball.ply')
    for system in ('auto_decoder', 'occupancy'):
        next(experiment.make(config(system, str(tmp_path))).train.iterate())
        for split, message in (('test', 'data.evals.test'), ('train', f'{system} learns from insides')):
            bowl().export(tmp_path / split / 'bowl.ply')
            with pytest.raises(UsageError, match=rf'{message}.* 1 of 2 meshes are not watertight.*bowl\.ply, has 24 b'):
                next(experiment.make(config(system, str(tmp_path))).train.iterate())
        for split in ('train', 'test'):
            (tmp_path / split / 'bowl.ply').unlink()


def test_training_meshes_are_read_only_to_train(tmp_path):
    """Evaluating and predicting work where the training meshes cannot be read."""
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / 'broken.ply').write_text('nothing')
    meshes.write_mesh(trimesh.creation.icosphere(1), tmp_path / 'test' / 'ball.ply')
    occupancy_config = config('occupancy', str(tmp_path))
    bound, state = start(occupancy_config)
    assert 'iou' in evaluate(bound.evals['test'], state.params, state.mutable, shard.make_mesh(1)).metrics
    with pytest.raises(CanonError, match=r'broken\.ply cannot be read'):
        next(bound.train.iterate())
    occupancy_config.data.path = str(tmp_path / 'moved')
    without = experiment.without_data(occupancy_config, bound.about)
    target = make_setup(without, occupancy_config).target
    assert jax.tree.map(jnp.shape, target.params) == jax.tree.map(jnp.shape, state.params)


def test_igr_takes_an_open_mesh_and_is_measured_by_distances(tmp_path):
    bowl().export(tmp_path / 'bowl.ply')
    igr_config = config('eikonal', str(tmp_path / 'bowl.ply'), **{'model.radius': 0.9})
    bound, state = start(igr_config)
    assert bound.train[0]['points'].shape == (8, 3)
    result = evaluate(bound.evals['test'], state.params, {}, shard.make_mesh(1))
    assert set(result.metrics) == {
        'chamfer_l1', 'chamfer_l2', 'normal_consistency', 'f_score', 'accuracy', 'completeness', 'empty'
    }  # fmt: skip
    assert set(bound.evals['test'].draw(state.params, {}, result.sums)) == {'meshes', 'slices'}
    (prediction,) = experiment.predict(igr_config, bound, state.params, {}, 'train:0')
    assert 'vertices' in prediction.text
    assert 'IoU' not in prediction.text


@pytest.mark.slow
def test_predicting_from_all_that_can_be_read(tmp_path, capsys):
    """A network that says inside everywhere: its surface is the border of the box, in the units of what it is given."""
    occupancy_config = config('occupancy')
    bound, state = start(occupancy_config)
    biased = jax.tree.map(jnp.copy, state.params)
    biased['decoder']['logit']['bias'] = jnp.full(1, 5.0)
    body = trimesh.creation.icosphere(2, 3.0)
    body.vertices += [10, 0, 0]
    meshes.write_mesh(body, tmp_path / 'ball.obj')
    np.save(tmp_path / 'cloud.npy', body.vertices)
    for source, text in ((tmp_path / 'ball.obj', 'IoU 0.'), (tmp_path / 'cloud.npy', ''), ('test:1', 'IoU 0.')):
        written = experiment.predict(occupancy_config, bound, biased, state.mutable, str(source))
        predictions.write_predictions(written, tmp_path / 'out')
        printed = capsys.readouterr().out
        assert text in printed
        assert 'vertices' in printed
    mesh = meshes.read_mesh(tmp_path / 'out' / 'ball.glb')
    np.testing.assert_allclose(mesh.bounds, [[6.7, -3.3, -3.3], [13.3, 3.3, 3.3]], atol=1e-4)
    assert sorted(p.suffix for p in (tmp_path / 'out').glob('cloud.*')) == ['.glb', '.obj', '.ply']
    biased['decoder']['logit']['bias'] = jnp.full(1, -5.0)
    with pytest.raises(CanonError, match='there is no surface'):
        list(experiment.predict(occupancy_config, bound, biased, state.mutable, 'test:0'))
    for source, message in (('test:9', 'has 6 shapes'), ('none.ply', 'neither a file of triangles or points')):
        with pytest.raises(UsageError, match=message):
            list(experiment.predict(occupancy_config, bound, biased, state.mutable, source))


@pytest.mark.parametrize(
    ('system', 'changes', 'message'),
    [
        ('occupancy', {'extract.resolution': 0}, 'extract.resolution=0 must be a whole number at least 1'),
        ('occupancy', {'extract.resolution': -8}, 'extract.resolution=-8 must be'),
        ('occupancy', {'extract.upsamplings': 8}, 'extract.resolution=8 and upsamplings=8 are 2048 cells per side'),
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
def test_settings_out_of_range(system, changes, message):
    with pytest.raises(UsageError, match=message):
        experiment.make(config(system, **changes))


def test_keys_that_do_not_exist():
    with pytest.raises(UsageError, match=r"called system.name='ocupancy'; did you mean 'occupancy'"):
        experiment.make(config('occupancy', **{'system.name': 'ocupancy'}))
    occupancy_config = config('occupancy')
    occupancy_config.system.clouds = 3
    with pytest.raises(UsageError, match=r"system.clouds: occupancy_system takes no such key; did you mean 'cloud'"):
        experiment.make(occupancy_config)
    occupancy_config = config('occupancy')
    occupancy_config.system.num_shapes = 3
    with pytest.raises(UsageError, match=r'system.num_shapes follows from other keys of the config; remove it'):
        experiment.make(occupancy_config)
    with pytest.raises(UsageError, match=r'data.path=none: there is no such file or folder'):
        experiment.make(config('occupancy', 'none'))


def test_keys_left_to_their_defaults_can_be_overridden(root):
    """Every key of the task's own sections, also those that the config does not state."""
    deepsdf_config = configs.load(f'{root}/configs/shapes/deepsdf.py:smoke')
    keys = {
        'system.code_std': ('0.5', 0.5),
        'system.variances': ('0.01,0.001', (0.01, 0.001)),
        'data.evals.test.surface': ('500', 500),
        'data.evals.test.threshold': ('0.02', 0.02),
        'data.family.seed': ('3', 3),
    }
    values = overrides.apply(deepsdf_config, [(key, text) for key, (text, _) in keys.items()])
    assert values == {key: value for key, (_, value) in keys.items()}
    assert deepsdf_config.system.code_std == 0.5
    with pytest.raises(UsageError, match='no key'):
        overrides.apply(deepsdf_config, [('system.code_sdt', '0.5')])

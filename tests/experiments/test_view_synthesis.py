"""A field learns a scene from pictures; batches, levels and microbatches against what they shall equal."""

import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from canon import models
from canon.data import Generated
from canon.data.scenes import framing
from canon.data.scenes import views as sources
from canon.data.scenes.traced import Box, scene
from canon.errors import UsageError
from canon.ops import rays
from canon.train import At, NonFinite, fit, make_step
from canon.train.step import init_state
from experiments import configs, view_synthesis
from experiments.claims import view_synthesis as claims
from experiments.view_synthesis import rendering
from experiments.view_synthesis.rendering import Rays, Rendering


@pytest.fixture(scope='module')
def views():
    return sources.load('traced', 'train', size=16, views=4)


def small(root, **changes) -> ConfigDict:
    config = configs.load(f'{root}/configs/nerf/traced.py:smoke')
    config.update_from_flattened_dict({'data.source.size': 16, 'data.batch_size': 64, **changes})
    return config


def test_a_batch_is_a_function_of_seed_and_step_and_shows_the_views_pixels(views):
    a, b, other = (view_synthesis.random_rays(views, 0, step, 50) for step in (3, 3, 4))
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name])
    assert (a['at'] != other['at']).any()
    for pose, at, colour in zip(a['pose'], a['at'], a['colour'], strict=True):
        view = next(i for i, known in enumerate(views.poses) if (known[:3] == pose).all())
        np.testing.assert_array_equal(colour, views.images[view, int(at[1] - 0.5), int(at[0] - 0.5)])
    middle = view_synthesis.random_rays(views, 0, 0, 200, crop=1)['at']
    assert (middle > 4).all()
    assert (middle < 12).all()
    poses = view_synthesis.random_rays(views, 0, 0, 200, single=True)['pose']
    assert (poses == poses[0]).all()
    poses = [view_synthesis.random_rays(views, 0, i, 2, single=True)['pose'][0] for i in range(30)]
    assert len(np.unique(poses, axis=0)) == 4


def test_rays_of_pixels_meet_the_scene_where_its_depth_says(views):
    """The traced depths are distances along rays; t is along the camera's axis: points of both must agree."""
    camera = views.camera
    batch = view_synthesis.picture_rays(views, 1)
    cone = rendering.cast(camera, Rendering(), views.near, views.far, jax.tree.map(jnp.asarray, batch))
    if views.depths is None:
        pytest.skip('these views come without depths')
    depth = views.depths[1].ravel()
    hit = np.isfinite(depth)
    world = np.asarray(cone.origins + rays.normalise(cone.ways) * np.where(hit, depth, 1)[:, None])[hit]
    floor = scene()[0]
    assert isinstance(floor, Box)
    half, top = floor.half[0], floor.centre[2] + floor.half[2]
    below = world[world[:, 2] < top + 1e-3]
    assert len(below) > 20
    on_a_wall = np.abs(np.stack((below[:, 2] - top, np.abs(below[:, 0]) - half, np.abs(below[:, 1]) - half)))
    np.testing.assert_allclose(on_a_wall.min(0), 0, atol=2e-3)


class Ball:
    """A field: a ball of radius 1 about the origin, thick, of one colour."""

    @staticmethod
    def density(raw):
        return raw

    @staticmethod
    def apply(variables, at):
        inside = jnp.linalg.norm(at.points, axis=-1) < 1
        return jnp.where(inside, 200.0, 0.0), jnp.broadcast_to(jnp.array([0.2, 0.5, 0.9]), at.points.shape)


class Field:
    """A field without parameters, as a task takes it."""

    def __init__(self, kind):
        self.apply, self.density = kind.apply, kind.density


@pytest.mark.parametrize('casting', ['points', 'intervals', 'cones'])
@pytest.mark.parametrize('key', [None, *(jax.random.key(i) for i in range(3))])
def test_the_fine_level_finds_a_surface_that_the_coarse_one_only_nears(casting, key):
    """From distance 4 straight at a ball of radius 1: the surface is at 3, the first sample inside is what is seen."""
    apart = casting == 'points'
    way = jnp.array([[0.0, 0.0, -1.0], [0.0, 1.0, -1.0]])
    cone = Rays(jnp.array([[0.0, 0.0, 4.0]] * 2), way, jnp.full(2, 2.0), jnp.full(2, 6.0), jnp.full((2, 1), 1e-3))
    how = Rendering(coarse=16, fine=64, casting=casting, shared=True)
    coarse, fine = rendering.render(Ball, {'coarse': {}}, cone, how, key)
    np.testing.assert_allclose(fine.colour, [[0.2, 0.5, 0.9], [0, 0, 0]], atol=1e-4)
    gap = 4 / 15 if apart else 4 / 16  # between the coarse ones; of neighbouring draws at most twice that
    late = coarse.distance[0] - 3
    assert -1e-3 <= late <= (gap if key is None else 2 * gap)
    # Points: the fine ones are drawn from half-way to the coarse one before, so they begin at most half as late. 64
    # independent draws leave a hole of 0.15 of their range in 3 of 100,000 cases, even ones none above a 64th.
    # Intervals: blurred weights give the bin before a quarter of the draws, which are even: two of its 15 parts.
    if apart:
        bound = gap / 64 if key is None else late / 2 + 0.15 * 2 * gap
    else:
        bound = gap / 15 if key is None else 2 * gap * 2 / 15
    seen = 3 / 200  # how deep one sees into the ball
    assert -1e-3 <= fine.distance[0] - 3 <= bound + seen
    assert len(fine.weights[0]) == (80 if apart else 64)


def test_microbatches_have_the_gradient_of_the_whole(views):
    """Without draws; the sums too. Their size does not matter, and 16 rays are taken by default on a CPU."""
    how = Rendering(coarse=8, fine=8, jitter=False)
    field = models.make('nerf.nerf', layers=2, width=16, levels=3)
    batch = view_synthesis.random_rays(views, 0, 0, 64)
    found = []
    for rows in (0, 32, None):
        task = view_synthesis.view_task(field, views, how, view_synthesis.Learning(microbatch=rows))
        params = task.init(jax.random.key(0), batch)['params']

        def total(params, task=task):
            loss, (_, sums) = task.loss(params, {}, batch, At(jax.random.key(1), 0))
            return loss.total, (loss.weight, sums['mse'])

        found.append(jax.jit(jax.value_and_grad(total, has_aux=True))(params))
    for other in found[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), found[0], other)
    task = view_synthesis.view_task(field, views, how, view_synthesis.Learning(microbatch=24))
    with pytest.raises(UsageError, match='microbatches of 24 rays do not fill a batch of 64'):
        task.loss(params, {}, batch, At(jax.random.key(1), 0))


def test_microbatches_are_as_large_as_a_cache_holds_and_divide_the_batch():
    published, narrow = models.make('nerf.nerf'), models.make('nerf.nerf', width=64)
    rows = view_synthesis._cached_rays
    assert rows(published, Rendering(64, 128), 1024) == rows(published, Rendering(64, 64), 64) == 16
    assert rows(narrow, Rendering(32, 32), 256) == 128
    assert rows(narrow, Rendering(32, 32), 250) == 0


def test_the_fine_samples_places_carry_no_gradient_to_the_coarse_network(views):
    how = Rendering(coarse=8, fine=8)
    field = models.make('nerf.nerf', layers=2, width=16, levels=3)
    batch = view_synthesis.random_rays(views, 0, 0, 16)
    task = view_synthesis.view_task(field, views, how, view_synthesis.Learning(coarse=0.0, microbatch=0))
    params = task.init(jax.random.key(0), batch)['params']
    assert set(params) == {'coarse', 'fine'}
    grads = jax.jit(jax.grad(lambda p: task.loss(p, {}, batch, At(jax.random.key(1), 0))[0].total))(params)
    assert all((g == 0).all() for g in jax.tree.leaves(grads['coarse']))
    assert any((g != 0).any() for g in jax.tree.leaves(grads['fine']))


def test_a_picture_in_chunks_is_the_picture(views):
    field = models.make('instant_ngp.voxels', vertices=4)
    task = view_synthesis.view_task(field, views, Rendering(coarse=8, fine=8, shared=True, casting='intervals'))
    batch = view_synthesis.picture_rays(views, 0)
    params = task.init(jax.random.key(0), batch)['params']
    whole = jax.jit(task.predict)(params, {}, batch)
    for chunk in (100, 1000):
        got = jax.jit(view_synthesis.renderer(task, chunk))(params, {}, batch)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, whole)


def test_where_all_is_occupied_packed_samples_are_all_samples(views):
    """With room for all of them and an occupancy grid that leaves nothing out; gradients too."""
    box = dict(casting='intervals', coarse=8, fine=0, shared=True, box=(-1.5, 1.5), jitter=False)
    plain, packed = Rendering(**box), Rendering(**box, cells=4, budget=8)
    field = models.make('nerf.nerf', layers=2, width=16, levels=3)
    batch = jax.tree.map(jnp.asarray, view_synthesis.picture_rays(views, 0))
    cone = rendering.cast(views.camera, plain, views.near, views.far, batch)
    params = view_synthesis.view_task(field, views, plain).init(jax.random.key(0), batch)['params']

    def colours(params, how, key, grid):
        seen = rendering.render(field, params, cone, how, key, grid)[0]
        return (seen.colour * jnp.arange(1, 4)).sum(), seen

    value = jax.jit(jax.value_and_grad(colours, has_aux=True), static_argnums=1)
    wanted = value(params, plain, jax.random.key(1), None)
    found = value(params, packed, jax.random.key(1), rendering.new_grid(packed))
    assert found[0][1].whole.all()
    found = (found[0][0], found[0][1]._replace(whole=None)), found[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4), wanted, found)
    # For pictures, in rounds: the smallest budget gives the same picture.
    small = Rendering(**box, cells=4, budget=1)
    picture = jax.jit(lambda: rendering.render(field, params, cone, small, None, rendering.new_grid(small))[0].colour)()
    np.testing.assert_allclose(picture, wanted[0][1].colour, atol=1e-5)


def test_samples_in_empty_cells_are_not_asked_and_rays_without_room_do_not_count(views):
    """A field that is dense everywhere, and a grid that says that only the half z < 0 is: rays end there."""
    how = Rendering(
        casting='intervals', coarse=32, fine=0, shared=True, box=(-1.5, 1.5), jitter=False, cells=4, budget=32,
        background='white',
    )  # fmt: skip
    batch = jax.tree.map(jnp.asarray, view_synthesis.picture_rays(views, 0))
    cone = rendering.cast(views.camera, how, views.near, views.far, batch)
    grid = jnp.ones((4, 4, 4)).at[:, :, 2:].set(0)

    class Full:
        density = staticmethod(lambda raw: raw)
        apply = staticmethod(lambda _, at: (jnp.full(at.points.shape[:-1], 50.0), jnp.ones(at.points.shape)))

    for key in (None, jax.random.key(0)):
        seen = jax.jit(lambda key=key: rendering.render(Full, {'coarse': {}}, cone, how, key, grid)[0])()
        height = cone.origins[:, 2] + seen.distance * cone.ways[:, 2]
        assert (height[seen.opacity > 0.9] < 0).all()
        assert (seen.opacity > 0.9).sum() > 20
        assert (seen.density[seen.opacity == 0] == 0).all()
    tight = Rendering(**{**vars(how), 'budget': 2})
    task = view_synthesis.view_task(Field(Full), views, tight)
    mutable, key = {'occupancy': grid}, jax.random.key(0)
    loss, (_, sums) = jax.jit(lambda: task.loss({'coarse': {}}, mutable, batch, At(key, 0)))()
    first = int(loss.weight)
    assert 0 < first < len(cone.near)
    assert sums['asked'].total == first
    some = jax.tree.map(lambda x: x[:first], batch)
    roomy = view_synthesis.view_task(Field(Full), views, how)
    alone = jax.jit(lambda: roomy.loss({'coarse': {}}, mutable, some, At(key, 0))[0])()
    np.testing.assert_allclose(loss.total, alone.total, rtol=1e-5)


def test_the_grid_of_a_task_learns_what_is_empty(views):
    how = Rendering(casting='intervals', coarse=8, fine=0, shared=True, box=(-1.5, 1.5), cells=8, budget=8, decay=0.5)
    task = view_synthesis.view_task(Field(Ball), views, how)
    batch = view_synthesis.random_rays(views, 0, 0, 16)
    mutable = {'occupancy': rendering.new_grid(how)}
    step = jax.jit(lambda mutable, key: task.loss({'coarse': {}}, mutable, batch, At(key, 0))[1][0])
    for i in range(300):
        mutable = step(mutable, jax.random.key(i))
    middles = (np.stack(np.indices((8, 8, 8)), -1) + 0.5) / 8 * 3 - 1.5
    far = np.linalg.norm(middles, axis=-1)
    reach = 1.5 / 8 * 3**0.5
    grid = np.asarray(mutable['occupancy'])
    assert (grid[far < 1 - reach] == 200).all()
    assert (grid[far > 1 + reach] < 0.01).all()


def test_freenerfs_penalty():
    density = np.random.default_rng(0).uniform(size=(3, 20))
    wanted = [sum(ray[k] * (k < 5) for k in range(20)) / 20 for ray in density]
    np.testing.assert_allclose(view_synthesis.occlusion(jnp.asarray(density), 5), wanted, rtol=1e-6)


def test_the_penalty_is_added_with_its_weight(views):
    field = models.make('nerf.nerf', layers=2, width=16, levels=3)
    batch = view_synthesis.random_rays(views, 0, 0, 32)
    how = Rendering(coarse=8, fine=8, jitter=False)
    plain, with_it = (
        view_synthesis.view_task(field, views, how, view_synthesis.Learning(occlusion=w, occlusion_range=4))
        for w in (0.0, 0.5)
    )
    params = plain.init(jax.random.key(0), batch)['params']
    key = jax.random.key(1)
    (a, _), (b, (_, sums)) = jax.jit(
        lambda: (plain.loss(params, {}, batch, At(key, 0)), with_it.loss(params, {}, batch, At(key, 0)))
    )()
    assert sums['occlusion'].total > 0
    np.testing.assert_allclose(b.total, a.total + 0.5 * sums['occlusion'].total, rtol=1e-5)


@pytest.mark.slow
def test_a_few_steps_learn_and_are_measured(root):
    """Psnr is the mean over views of that of each; it rises by more than 5 dB from the first step."""
    experiment = view_synthesis.make(small(root, **{'data.batch_size': 256, 'data.evals.test.views': 2}))
    state = init_state(experiment.task, experiment.tx, 0, experiment.train[0])
    step = jax.jit(make_step(experiment.task, experiment.tx, 0))
    evaluator = experiment.evals['test']
    measure = jax.jit(evaluator.measure)

    def psnr(state):
        each = [measure(state.params, state.mutable, batch) for batch in evaluator.data.iterate()]
        for one in each:
            np.testing.assert_allclose(one['psnr'].total, -10 * np.log10(one['mse'].total), rtol=1e-5)
        return evaluator.finish(jax.tree.map(lambda *x: np.sum(x), *each))['psnr']

    before = psnr(state)
    for i in range(40):
        state, metrics = step(state, experiment.train[i])
    assert psnr(state) > before + 5
    assert 0 < evaluator.finish(measure(state.params, state.mutable, evaluator.data[0]))['ssim'] < 1
    assert np.isfinite(metrics['loss'].value)


FOUR = """
import json
import jax
from canon import models, optim
from canon.data import Generated
from canon.data import views as sources
from canon.train import Experiment, shard
from canon.train.setup import prepare
from experiments import view_synthesis
from experiments.view_synthesis.rendering import Rendering

assert len(jax.devices()) == 4
views = sources.load('traced', size=12, views=4)
packed = Rendering(coarse=8, fine=0, shared=True, casting='intervals', box=(-1.3, 1.3), cells=4, budget=5)
parts = Rendering(coarse=4, fine=4)
out = {}
for name, field, how in (
    ('packed', models.make('instant_ngp.voxels', vertices=4, width=8, low=-1.3, high=1.3), packed),
    ('parts', models.make('nerf.nerf', layers=2, width=8, levels=2), parts),
):
    task = view_synthesis.view_task(field, views, how, view_synthesis.Learning(microbatch=None if how.cells else 16))
    data = Generated(lambda step: view_synthesis.random_rays(views, 0, step, 64), 64)
    for devices in (1, 4):
        config = dict(seed=0, run=dict(steps=3, mesh=dict(data=devices)))
        setup = prepare(Experiment(task, optim.sgd(1.0), data), config)
        start = setup.initial_state() if devices == 1 else start
        state, step = jax.device_put(start, setup.layout), setup.compiled_step()
        start = jax.device_get(start)  # the step takes its state with it
        for i in range(3):
            batch = shard.put(data[i], shard.batch_sharding(setup.mesh))
            assert len(batch['at'].sharding.device_set) == devices
            state, metrics = step(state, batch)
        leaves = jax.tree.leaves(jax.device_get((state.params, state.mutable, metrics)))
        out[f'{name} {devices}'] = sum((x.ravel().tolist() for x in leaves), [])
print(json.dumps(out))
"""


@pytest.mark.slow
def test_four_devices_learn_what_one_does(root):
    """With rays sharded like any batch: packed samples of an occupancy grid with too little room, and microbatches."""
    env = os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=4', 'PYTHONPATH': f'{root}:{root}/lib'}
    done = subprocess.run([sys.executable, '-c', FOUR], capture_output=True, text=True, cwd=root, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {name: np.array(values) for name, values in json.loads(done.stdout.splitlines()[-1]).items()}
    for name in ('packed', 'parts'):
        assert np.abs(found[f'{name} 1']).max() > 1e-2
        np.testing.assert_allclose(found[f'{name} 4'], found[f'{name} 1'], rtol=2e-5, atol=2e-5)


def test_a_loss_that_is_no_number_stops_the_run_and_says_how_to_look(root, tmp_path):
    config = small(root, **{'run.steps': '6 steps', 'run.log_every': '2 steps', 'run.checkpoint.every': '2 steps'})
    experiment = view_synthesis.make(config)

    def batch(step):
        given = experiment.train[step]
        colour = given['colour'].astype(np.float32)
        colour[5] = np.nan if step == 4 else colour[5]
        return given | {'colour': colour}

    poisoned = experiment._replace(train=Generated(batch, 64), evals={})
    config.run.evals = {}
    with pytest.raises(NonFinite, match=rf'step 5 is not finite: .*step 4.*--workdir={tmp_path} --step=5'):
        fit(poisoned, config, tmp_path, quiet=True)


def level_cameras(angles, target, radius, height, up=(0, 0, 1)):
    """Cameras on an arc about `target` that look at it."""
    turn = np.linalg.svd(np.asarray([up], float))[2][::-1]  # its last row is up, or down
    turn[2] = up
    turn[1] = np.cross(turn[2], turn[0])
    arms = np.stack((radius * np.cos(angles), radius * np.sin(angles), np.full(len(angles), height)), -1) @ turn
    return np.stack([framing.look_at(target + arm, target, up) for arm in arms]).astype(np.float32)


@pytest.mark.parametrize('up', [(0, 0, 1), (0, 1, 0), (0.6, 0, -0.8)])
@pytest.mark.parametrize('arc', [0.9, 4.0, 2 * np.pi])
def test_orbits_look_at_the_scene_upright(up, arc):
    """From cameras' own distance and height; all around, or to and fro where pictures were taken from one side."""
    target, angles = np.array([1.0, 2, 0]), np.linspace(0, arc, 12, endpoint=False)
    found = framing.orbit_poses(level_cameras(angles, target, 3, 1.5, up), 16)
    arms = found[:, :3, 3] - target
    heights = arms @ up
    np.testing.assert_allclose(heights, 1.5, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(arms - heights[:, None] * up, axis=-1), 3, rtol=1e-4)
    np.testing.assert_allclose(found[:, :3, 2], arms / np.linalg.norm(arms, axis=-1, keepdims=True), atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(found[:, :3, :3]), 1, rtol=1e-5)
    assert (found[:, :3, 1] @ up > 0.5).all()
    assert np.abs(found[:, :3, 0] @ up).max() < 1e-4
    directions = arms - heights[:, None] * up
    widest = np.degrees(np.arccos(np.clip((directions @ directions.T) / 9, -1, 1)).max())
    covered = np.degrees(angles[-1])
    assert widest == pytest.approx(covered if arc < 2 else 180, abs=2)


def test_an_orbit_of_a_forward_facing_capture_stays_before_it():
    told = sources.load('traced', size=8, views=12, facing=True)
    found = framing.orbit_poses(told.poses, 20)
    up, axis = told.poses[:, :3, 1].mean(0), -told.poses[:, :3, 2].mean(0)
    assert (found[:, :3, 1] @ up > 0.9).all()
    assert (-found[:, :3, 2] @ axis > 0.8).all()
    low, high = told.poses[:, :3, 3].min(0), told.poses[:, :3, 3].max(0)
    assert (found[:, :3, 3] > low - 0.2 * (high - low)).all()
    assert (found[:, :3, 3] < high + 0.2 * (high - low)).all()


def test_each_ray_has_the_camera_of_its_picture(views):
    """In batches for training and in whole pictures; predictions take the typical camera."""
    cameras = [views.camera._replace(focal=(20.0 + i, 21.0), distortion=(0.01 * i,)) for i in range(4)]
    typical, intrinsics = sources.join_cameras(cameras)
    own = sources.check(views._replace(camera=typical, intrinsics=intrinsics), 'these')
    batches = [(view_synthesis.random_rays(own, 0, 3, 40), None), (view_synthesis.picture_rays(own, 2), 2)]
    for batch, number in batches:
        found = rendering.cast(own.camera, Rendering(), 2, 6, jax.tree.map(jnp.asarray, batch))
        for ray in range(0, 40, 7):
            view = number or next(i for i, pose in enumerate(views.poses) if (pose[:3] == batch['pose'][ray]).all())
            _, way = rays.generate_rays(cameras[view], batch['pose'][ray], jnp.asarray(batch['at'][ray]))
            np.testing.assert_allclose(found.ways[ray], way, rtol=1e-5, atol=1e-6)


def test_a_contracted_scene_is_seen_to_its_far_end(views):
    """A field with a wall 50 away: packed samples and all samples agree on where it is."""
    box = dict(casting='intervals', coarse=64, fine=0, shared=True, contract=True, jitter=False, background='black')

    class Wall:
        density = staticmethod(lambda raw: raw)

        @staticmethod
        def apply(_, at):
            beyond = jnp.linalg.norm(at.points, axis=-1) > 2 - 1 / 50
            return jnp.where(beyond, 1e5, 0.0), jnp.ones(at.points.shape)

    batch = jax.tree.map(jnp.asarray, view_synthesis.picture_rays(views, 0))
    for how in (Rendering(**box), Rendering(**box, box=(-2.0, 2.0), cells=4, budget=64)):
        cone = rendering.cast(views.camera, how, 0.5, 100.0, batch)
        grid = rendering.new_grid(how) if how.cells else None
        seen = jax.jit(
            lambda how=how, cone=cone, grid=grid: rendering.render(Wall, {'coarse': {}}, cone, how, None, grid)
        )()
        np.testing.assert_allclose(seen[0].opacity, 1, atol=1e-3)
        places = cone.origins + seen[0].distance[:, None] * cone.ways
        assert (np.linalg.norm(places, axis=-1) > 45).all()
        assert (np.linalg.norm(places, axis=-1) < 75).all()


def test_rays_that_miss_the_box_are_warned_of(views, caplog):
    how, model = Rendering(casting='intervals'), dict(low=-1.3, high=1.3)
    view_synthesis.warn_of_missed_box(views, how, model)
    assert not caplog.records
    view_synthesis.warn_of_missed_box(views._replace(far=2.2), how, model)
    message = r'only (\d+) % of the rays meet the box \(-1.3, 1.3\) between near=2 and far=2.2'
    assert int(re.search(message, caplog.text)[1]) < 10  # those through its corners
    caplog.clear()
    view_synthesis.warn_of_missed_box(views, Rendering(casting='intervals', box=(7.0, 9.0)), {})
    assert 'meet the box (7.0, 9.0)' in caplog.text


def test_the_background_fits_the_pictures_where_none_is_set(views):
    open_ended = Rendering(background=None)
    assert view_synthesis.with_background(open_ended, views).background == 'random'
    opaque = views._replace(images=views.images[..., :3])
    assert view_synthesis.with_background(open_ended, opaque).background == 'black'
    assert view_synthesis.with_background(Rendering(), opaque).background == 'white'


def test_an_orbit_is_written(root, tmp_path):
    import imageio.v3 as imageio

    config = small(root)
    experiment = view_synthesis.make(config)
    mutable = dict(experiment.task.init(jax.random.key(0), experiment.train[0]))
    params = mutable.pop('params')
    told = view_synthesis.predict(config, experiment, params, mutable, '3x20', tmp_path)
    assert told.startswith('3 frames of 20x20')
    assert imageio.imread(tmp_path / 'orbit.gif').shape[0] == 3
    assert (tmp_path / 'orbit.mp4').stat().st_size > 100
    with pytest.raises(UsageError, match='give the number of frames'):
        view_synthesis.predict(config, experiment, params, mutable, 'folder', tmp_path)


def test_seconds_until_a_psnr_is_reached(tmp_path):
    """Steps 1 to 4 take 0.5 s each, 5 and 6 a whole one; 25 dB is half-way between the evaluations at 2 s and 4 s."""
    rows = [
        {'step': 2, 'train/step_seconds': 0.5},
        {'step': 4, 'train/step_seconds': 0.5},
        {'step': 4, 'test/psnr': 20.0},
        {'step': 6, 'train/step_seconds': 1.0},
        {'step': 6, 'test/psnr': 30.0},
    ]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    seconds, values = claims.clock(tmp_path)
    np.testing.assert_allclose(seconds, [2, 4])
    np.testing.assert_allclose(values, [20, 30])
    assert claims.reached(seconds, values, 25) == pytest.approx(3)
    assert claims.reached(seconds, values, 20) == 2
    assert claims.reached(seconds, values, 31) is None


def test_a_form_takes_the_place_of_the_blocks_that_it_names(root):
    config = configs.load(f'{root}/configs/claims/nerf_speed.py')
    config.form = 'grid'
    found = view_synthesis.formed(config)
    assert found.model.name == 'instant_ngp.voxels'
    assert found.data == config.data
    config.form = 'gird'
    with pytest.raises(UsageError, match=r"form='gird' is none of 'grid', 'hash', 'network'"):
        view_synthesis.make(config)


def test_two_processes_share_the_rays_of_one(root, monkeypatch):
    """For training and for whole pictures, the pixels of which two devices do not divide: the last is repeated."""
    config = small(root, **{'data.source.size': 15, 'data.evals.test.views': 2})
    one = view_synthesis.make(config)
    monkeypatch.setattr(jax, 'device_count', lambda: 2)
    halves = []
    for index in range(2):
        monkeypatch.setattr(view_synthesis, 'process_shard', lambda index=index: (index, 2))
        halves.append(view_synthesis.make(config))
    for step in (0, 3):
        a, b = (half.train[step] for half in halves)
        for name, expected in one.train[step].items():
            np.testing.assert_array_equal(np.concatenate((a[name], b[name])), expected)
    pictures = [experiment.evals['test'].data for experiment in (one, *halves)]
    whole, a, b = (data[1] for data in pictures)
    for name, expected in whole.items():
        assert len(a[name]) == len(b[name]) == 113
        found = np.concatenate((a[name], b[name]))
        np.testing.assert_array_equal(found[:225], expected[:225])
        np.testing.assert_array_equal(found[225:], expected[224:225])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'render.casting': 'rays'}, "render.casting='rays' is none of"),
        ({'render.coarse': 2}, 'render.coarse=2 must be at least 4'),
        ({'render.background': 'grey'}, "background='grey' is none of"),
        ({'render.cells': -8}, 'render.cells=-8 must be a whole number at least 0'),
        ({'render.decay': -4.0}, 'render.decay=-4.0 must be a number at least 0 and at most 1'),
        ({'render.cells': 30, 'render.fine': 0}, 'render.cells=30 is wanted in fours'),
        ({'render.cells': 32, 'render.fine': 8}, "render.cells wants render.casting='intervals'"),
    ],
)
def test_what_is_refused(root, changes, message):
    with pytest.raises(UsageError, match=message):
        view_synthesis.make(small(root, **changes))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(casting='cones', ndc=True), "render.casting='cones' .* render.ndc"),
        (dict(casting='cones', contract=True), "render.casting='cones' .* render.contract"),
        (dict(ndc=True, contract=True), 'render.ndc and render.contract'),
        (dict(contract=True, box=(-1.3, 1.3)), r'render.contract wants render.box=\(-2, 2\)'),
    ],
)
def test_settings_that_exclude_each_other(settings, message):
    with pytest.raises(UsageError, match=message):
        Rendering(**settings)


def test_white_behind_pictures_without_alpha_is_refused(root, monkeypatch, views):
    opaque = views._replace(images=views.images[..., :3])
    monkeypatch.setattr(sources, 'load', lambda *_, **__: opaque)
    with pytest.raises(UsageError, match='wants pictures with alpha'):
        view_synthesis.make(small(root))

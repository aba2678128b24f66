"""The task of radiance fields: microbatches, skipping, penalties and whole views against what they shall equal."""

import json
import os
import re
import runpy
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from canon import models
from canon.data.scenes import views as sources
from canon.data.scenes.ray_batches import sample_rays, view_rays
from canon.errors import UsageError
from canon.rendering import RenderSettings, cast_rays, init_occupancy, render_rays
from canon.tasks.view_synthesis import (
    RadianceLoss,
    choose_microbatch,
    occlusion_penalty,
    predict_in_chunks,
    radiance_field_task,
    resolve_background,
    warn_if_rays_miss_box,
)
from canon.train import At
from canon.train.step import mean_gradient, sum_gradient
from tests.rendering.test_radiance_fields import Ball


@pytest.fixture(scope='module')
def views():
    return sources.load_views('traced', 'train', size=16, views=4)


class Field:
    """A field without parameters, as a task takes it."""

    def __init__(self, kind):
        self.apply, self.density = kind.apply, kind.density


def test_microbatches_have_the_gradient_of_the_whole(views):
    """Without draws; the sums too. Their size does not matter, nor whether run.accumulate cuts the batch as well."""
    settings = RenderSettings(coarse=8, fine=8, jitter=False)
    field = models.make_model('nerf.nerf', layers=2, width=16, levels=3)
    batch = sample_rays(views, 0, 0, 64)
    tasks = {
        rows: radiance_field_task(field, views, settings, RadianceLoss(microbatch=rows))
        for rows in (0, 16, 24, 32, None)
    }
    params = jax.jit(tasks[0].init)(jax.random.key(0), batch)['params']
    at = At(jax.random.key(1), 0)

    @jax.jit
    def gradients(params):
        combined = mean_gradient(tasks[16], params, {}, batch, at, accumulate=2)
        return [sum_gradient(tasks[rows], params, {}, batch, at) for rows in (0, 32, None)], combined

    (whole, *others), combined = jax.device_get(gradients(params))
    others.append((jax.tree.map(lambda x: 64 * x, combined[0]), *combined[1:]))
    for other in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), whole, other)
    with pytest.raises(UsageError, match='microbatches of 24 rays do not divide a batch of 64'):
        sum_gradient(tasks[24], params, {}, batch, at)


def test_microbatches_are_as_large_as_a_cache_holds_and_divide_the_batch():
    published, narrow = models.make_model('nerf.nerf'), models.make_model('nerf.nerf', width=64)
    rows = choose_microbatch
    assert rows(published, RenderSettings(64, 128), 1024) == rows(published, RenderSettings(64, 64), 64) == 16
    assert rows(narrow, RenderSettings(32, 32), 256) == 128
    assert rows(narrow, RenderSettings(32, 32), 250) == 0


def test_the_fine_samples_places_carry_no_gradient_to_the_coarse_network(views):
    settings = RenderSettings(coarse=8, fine=8)
    field = models.make_model('nerf.nerf', layers=2, width=16, levels=3)
    batch = sample_rays(views, 0, 0, 16)
    task = radiance_field_task(field, views, settings, RadianceLoss(coarse=0.0, microbatch=0))
    params = jax.jit(task.init)(jax.random.key(0), batch)['params']
    assert set(params) == {'coarse', 'fine'}
    grads = jax.jit(jax.grad(lambda p: task.loss(p, {}, batch, At(jax.random.key(1), 0))[0].total))(params)
    assert all((g == 0).all() for g in jax.tree.leaves(grads['coarse']))
    assert any((g != 0).any() for g in jax.tree.leaves(grads['fine']))


def test_a_picture_in_chunks_is_the_picture(views):
    field = models.make_model('instant_ngp.voxels', vertices=4)
    task = radiance_field_task(field, views, RenderSettings(coarse=8, fine=8, shared=True, casting='intervals'))
    batch = view_rays(views, 0)
    params = jax.jit(task.init)(jax.random.key(0), batch)['params']
    at_once = jax.jit(task.predict)(params, {}, batch)
    for chunk in (100, 1000):
        actual = jax.jit(predict_in_chunks(task, chunk))(params, {}, batch)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), actual, at_once)


def test_samples_in_empty_cells_are_skipped_and_rays_without_room_do_not_count(views):
    """A field that is dense everywhere, and a grid in which only the half z < 0 is: rays end there."""
    settings = RenderSettings(
        casting='intervals', coarse=32, fine=0, shared=True, box=(-1.5, 1.5), jitter=False, cells=4, budget=32,
        background='white',
    )  # fmt: skip
    batch = jax.tree.map(jnp.asarray, view_rays(views, 0))
    rays = cast_rays(views.camera, settings, views.near, views.far, batch)
    grid = jnp.ones((4, 4, 4)).at[:, :, 2:].set(0)

    class Full:
        density = staticmethod(lambda raw: raw)
        apply = staticmethod(
            lambda _, samples: (jnp.full(samples.positions.shape[:-1], 50.0), jnp.ones(samples.positions.shape))
        )

    for key in (None, jax.random.key(0)):
        level = jax.jit(lambda key=key: render_rays(Full, {'coarse': {}}, rays, settings, key, grid)[0])()
        height = rays.origins[:, 2] + level.distance * rays.directions[:, 2]
        assert (height[level.opacity > 0.9] < 0).all()
        assert (level.opacity > 0.9).sum() > 20
        assert (level.density[level.opacity == 0] == 0).all()
    tight = RenderSettings(**{**vars(settings), 'budget': 2})
    task = radiance_field_task(Field(Full), views, tight)
    mutable, key = {'occupancy': grid}, jax.random.key(0)
    loss, (_, sums) = jax.jit(lambda: task.loss({'coarse': {}}, mutable, batch, At(key, 0)))()
    first = int(loss.weight)
    assert 0 < first < len(rays.near)
    assert sums['complete'].total == first
    some = jax.tree.map(lambda x: x[:first], batch)
    roomy = radiance_field_task(Field(Full), views, settings)
    alone = jax.jit(lambda: roomy.loss({'coarse': {}}, mutable, some, At(key, 0))[0])()
    np.testing.assert_allclose(loss.total, alone.total, rtol=1e-5)


def test_the_grid_of_a_task_learns_what_is_empty(views):
    settings = RenderSettings(
        casting='intervals', coarse=8, fine=0, shared=True, box=(-1.5, 1.5), cells=8, budget=8, decay=0.5
    )
    task = radiance_field_task(Field(Ball), views, settings)
    batch = sample_rays(views, 0, 0, 16)
    mutable = {'occupancy': init_occupancy(settings)}
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
    expected = [sum(ray[k] * (k < 5) for k in range(20)) / 20 for ray in density]
    np.testing.assert_allclose(occlusion_penalty(jnp.asarray(density), 5), expected, rtol=1e-6)


def test_the_penalty_is_added_with_its_weight(views):
    field = models.make_model('nerf.nerf', layers=2, width=16, levels=3)
    batch = sample_rays(views, 0, 0, 32)
    settings = RenderSettings(coarse=8, fine=8, jitter=False)
    plain, with_it = (
        radiance_field_task(field, views, settings, RadianceLoss(occlusion=w, occlusion_range=4)) for w in (0.0, 0.5)
    )
    params = jax.jit(plain.init)(jax.random.key(0), batch)['params']
    key = jax.random.key(1)
    (a, _), (b, (_, sums)) = jax.jit(
        lambda: (plain.loss(params, {}, batch, At(key, 0)), with_it.loss(params, {}, batch, At(key, 0)))
    )()
    assert sums['occlusion'].total > 0
    np.testing.assert_allclose(b.total, a.total + 0.5 * sums['occlusion'].total, rtol=1e-5)


def test_the_frequency_mask_follows_the_step(views):
    """All frequencies are visible once `frequency_steps` have passed; before that the loss is another one."""
    field = models.make_model('nerf.nerf', layers=1, width=8, levels=3, view_levels=1, skip=None)
    batch = sample_rays(views, 0, 0, 16)
    settings = RenderSettings(coarse=8, fine=0, jitter=False)
    plain, scheduled = (radiance_field_task(field, views, settings, RadianceLoss(frequency_steps=n)) for n in (0, 10))
    params = jax.jit(plain.init)(jax.random.key(0), batch)['params']
    loss = jax.jit(lambda step: scheduled.loss(params, {}, batch, At(jax.random.key(1), step))[0].total)
    expected = jax.jit(lambda: plain.loss(params, {}, batch, At(jax.random.key(1), 0))[0].total)()
    np.testing.assert_allclose([loss(10), loss(25)], expected, rtol=1e-6)
    assert abs(loss(0) - expected) > 1e-4 * expected


FOUR = """
import json
import jax
from canon import models, optim
from canon.data import views as sources
from canon.train import Experiment, shard
from canon.train.setup import make_setup
from canon.data.scenes.ray_batches import ray_batches
from canon.rendering import RenderSettings
from canon.tasks.view_synthesis import RadianceLoss, radiance_field_task

assert len(jax.devices()) == 4
views = sources.load_views('traced', size=12, views=4)
packed = RenderSettings(coarse=8, fine=0, shared=True, casting='intervals', box=(-1.3, 1.3), cells=4, budget=5)
parts = RenderSettings(coarse=4, fine=4)
out = {}
for name, field, settings in (
    ('packed', models.make_model('instant_ngp.voxels', vertices=4, width=8, low=-1.3, high=1.3), packed),
    ('parts', models.make_model('nerf.nerf', layers=2, width=8, levels=2), parts),
):
    task = radiance_field_task(field, views, settings, RadianceLoss(microbatch=None if settings.cells else 16))
    data = ray_batches(views, 64)
    for devices in (1, 4):
        config = dict(seed=0, run=dict(steps=3, mesh=dict(data=devices)))
        setup = make_setup(Experiment(task, optim.sgd(1.0), data), config)
        start = setup.initial_state() if devices == 1 else start
        state, step = jax.device_put(start, setup.layout), setup.compiled_step()
        start = jax.device_get(start)  # the step takes its state with it
        for i in range(3):
            batch = shard.put(data[i], shard.batch_sharding(setup.mesh))
            assert len(batch['pixel'].sharding.device_set) == devices
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
    result = {name: np.array(values) for name, values in json.loads(done.stdout.splitlines()[-1]).items()}
    for name in ('packed', 'parts'):
        assert np.abs(result[f'{name} 1']).max() > 1e-2
        np.testing.assert_allclose(result[f'{name} 4'], result[f'{name} 1'], rtol=2e-5, atol=2e-5)


def test_rays_that_miss_the_box_are_warned_of(views, caplog):
    settings, box = RenderSettings(casting='intervals'), (-1.3, 1.3)
    warn_if_rays_miss_box(views, settings, box)
    assert not caplog.records
    warn_if_rays_miss_box(views._replace(far=2.2), settings, box)
    message = r'only (\d+) % of the rays meet the box \(-1.3, 1.3\) between near=2 and far=2.2'
    assert int(re.search(message, caplog.text)[1]) < 10  # those through its corners
    caplog.clear()
    warn_if_rays_miss_box(views, RenderSettings(casting='intervals', box=(7.0, 9.0)), None)
    assert 'meet the box (7.0, 9.0)' in caplog.text


def test_the_background_fits_the_pictures_where_none_is_set(views):
    open_ended = RenderSettings(background=None)
    assert resolve_background(open_ended, views).background == 'random'
    opaque = views._replace(images=views.images[..., :3])
    assert resolve_background(open_ended, opaque).background == 'black'
    assert resolve_background(RenderSettings(), opaque, opaque=True).background == 'white'


@pytest.mark.slow
def test_the_example_trains_and_renders_with_the_library_alone(root, tmp_path):
    """docs/examples/nerf.py: at most 60 lines, which import nothing but canon and Pillow."""
    script = root / 'docs/examples/nerf.py'
    lines = script.read_text().splitlines()
    assert len(lines) <= 60
    assert not any(line.startswith(('from experiments', 'import experiments')) for line in lines)
    runpy.run_path(str(script))['main'](tmp_path, steps=4, size=16, rays=64)
    assert Image.open(tmp_path / 'view.png').size == (16, 16)
    assert Image.open(tmp_path / 'orbit.gif').n_frames > 1
    assert (tmp_path / 'metrics.jsonl').read_text().count('test/psnr') == 1

"""Radiance fields against published counts and the equations in float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import models
from canon.errors import UsageError
from canon.models.instant_ngp import truncated_exp
from canon.models.nerf import Samples
from canon.ops import frequencies as fq
from canon.ops import grids
from tests.quick import quick_jit

rng = np.random.default_rng(0)
AT = Samples(*(jnp.asarray(rng.uniform(-1, 1, shape)) for shape in ((4, 5, 3), (4, 3))))
CONES = AT._replace(covariance=jnp.asarray(rng.uniform(0, 0.1, (4, 5, 3))))


def count(variables) -> int:
    return sum(x.size for x in jax.tree.leaves(variables['params']))


def initialise(field, samples):
    return quick_jit(field.init)(jax.random.key(0), samples)


def shapes(name, samples, **arguments):
    field = models.make_model(name, **arguments)
    return jax.eval_shape(lambda: field.init(jax.random.key(0), samples))


def test_parameters_as_published():
    assert count(shapes('nerf.nerf', AT)) == 595_844
    # 96 inputs without the point itself, in layer 0 and after the skip: 2 x 33 x 256 more.
    assert count(shapes('nerf.mip_nerf', CONES)) == 595_844 + 2 * 33 * 256
    timed = AT._replace(times=jnp.zeros((4, 1)))
    deformation = (63 + 21) * 256 + 256 + 6 * (256 * 257) + (84 + 256) * 256 + 256 + 3 * 257
    assert count(shapes('nerf.d_nerf', timed)) == 595_844 + deformation
    # instant-ngp's networks: 32 -> 64 -> 16, and 16 + 16 -> 64 -> 64 -> 3, without biases.
    grid = grids.make_hash_grid(16, 16, 2048, 2**19)
    assert (
        count(shapes('instant_ngp.hash_field', AT)) == 2 * grid.total + 32 * 64 + 64 * 16 + 32 * 64 + 64 * 64 + 64 * 3
    )


def test_the_networks_equations():
    field = models.make_model('nerf.nerf', layers=6, width=16, levels=3, view_levels=2, view_width=8)
    with jax.enable_x64(True):
        variables = initialise(field, AT)
        variables = jax.tree.map(lambda x: np.asarray(x) + 0.1 * rng.normal(size=x.shape), variables)
        density, colour = quick_jit(field.apply)(variables, AT)
    p = variables['params']

    def dense(x, name):
        return x @ p[name]['kernel'] + p[name]['bias']

    for ray, i in np.ndindex(4, 5):
        point, direction = np.asarray(AT.positions)[ray, i], np.asarray(AT.directions)[ray]
        x = np.concatenate((point, *(f(2**n * point) for n in range(3) for f in (np.sin, np.cos))))
        d = direction / np.linalg.norm(direction)
        d = np.concatenate((d, *(f(2**n * d) for n in range(2) for f in (np.sin, np.cos))))
        h = x
        for layer in range(6):
            h = np.maximum(dense(h, f'layer_{layer}'), 0)
            h = np.concatenate((x, h)) if layer == 4 else h
        np.testing.assert_allclose(density[ray, i], dense(h, 'density_out')[0], atol=1e-6)
        h = np.maximum(dense(np.concatenate((dense(h, 'bottleneck'), d)), 'view'), 0)
        np.testing.assert_allclose(colour[ray, i], 1 / (1 + np.exp(-dense(h, 'colour'))), atol=1e-6)


@pytest.mark.parametrize(('name', 'arguments'), [
    ('nerf.nerf', dict(layers=2, width=8)), ('instant_ngp.hash_field', dict(levels=2, finest=32, size=64)),
])  # fmt: skip
def test_the_density_depends_on_the_position_alone(name, arguments):
    field = models.make_model(name, **arguments)
    variables = initialise(field, AT)
    apply = quick_jit(field.apply)
    a, first = apply(variables, AT)
    b, second = apply(variables, AT._replace(directions=-AT.directions))
    np.testing.assert_array_equal(a, b)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(apply(variables, AT._replace(directions=3 * AT.directions))[1], first, atol=1e-6)


def test_without_directions_the_colour_is_one():
    field = models.make_model('nerf.nerf', layers=2, width=8, view_levels=-1)
    variables = initialise(field, AT)
    np.testing.assert_array_equal(
        *(field.apply(variables, AT._replace(directions=w))[1] for w in (AT.directions, -AT.directions))
    )


def test_cones_of_no_width_are_points():
    """The integrated encoding of variance 0 has the sines and cosines of the plain one, and mip-NeRF's colour pads."""
    x = AT.positions
    thin, plain = quick_jit(
        lambda: (fq.integrated_positional_encoding(x, jnp.zeros_like(x), 3), fq.positional_encoding(x, 3)[..., 3:])
    )()
    thin, plain = thin.reshape(4, 5, 2, 3, 3), plain.reshape(4, 5, 3, 2, 3).swapaxes(2, 3)
    np.testing.assert_allclose(thin, plain, atol=1e-6)
    field = models.make_model('nerf.mip_nerf', layers=2, width=8)
    variables = initialise(field, CONES)
    variables['params']['colour']['bias'] += 100
    np.testing.assert_allclose(quick_jit(field.apply)(variables, CONES)[1], 1.001, atol=1e-5)
    np.testing.assert_allclose(field.density(jnp.array([1.0])), np.log(2), rtol=1e-6)


def test_a_deformed_scene_is_the_canonical_one_at_time_0():
    field = models.make_model('nerf.d_nerf', layers=2, width=8, skip=None)
    start = AT._replace(times=jnp.zeros((4, 1)))
    variables = initialise(field, start)
    canonical = {'params': variables['params']['canonical']}
    still = quick_jit(field.canonical.apply)(canonical, AT)
    apply = quick_jit(field.apply)
    np.testing.assert_allclose(apply(variables, start)[0], still[0], atol=1e-6)
    assert np.abs(apply(variables, AT._replace(times=jnp.ones((4, 1))))[0] - still[0]).max() > 1e-4


def test_the_schedule_of_frequencies_hides_the_high_ones():
    """At progress 0 only the place itself is seen: the density is piecewise linear between layers' kinks."""
    field = models.make_model('nerf.nerf', layers=1, width=8, levels=6, skip=None)
    variables = initialise(field, AT)
    hidden = dict(variables['params'], layer_0=dict(variables['params']['layer_0']))
    hidden['layer_0']['kernel'] = hidden['layer_0']['kernel'].at[3:].set(0)
    apply = quick_jit(field.apply)
    early = apply(variables, AT._replace(progress=jnp.zeros(())))[0]
    np.testing.assert_allclose(early, apply({'params': hidden}, AT)[0], atol=1e-6)
    late = apply(variables, AT._replace(progress=jnp.ones(())))[0]
    np.testing.assert_array_equal(late, apply(variables, AT)[0])


@pytest.mark.parametrize('name', ['hash_field', 'voxels'])
def test_outside_of_its_box_a_grid_is_empty(name):
    small = dict(levels=2, finest=32, size=64) if name == 'hash_field' else dict(vertices=4)
    field = models.make_model(f'instant_ngp.{name}', low=-0.5, high=0.5, **small)
    variables = initialise(field, AT)
    density = quick_jit(lambda: field.density(field.apply(variables, AT)[0]))()
    inside = (np.abs(AT.positions) <= 0.5).all(-1)
    assert inside.any()
    np.testing.assert_array_equal(density[~inside], 0)
    assert (density[inside] > 0).all()


def test_the_exponential_is_truncated():
    value, grad = jax.value_and_grad(lambda x: truncated_exp(x).sum())(jnp.array([0.0, -100, 1e30, 20]))
    assert np.isfinite(value)
    np.testing.assert_allclose(grad, np.exp([0, -15, 15, 15]), rtol=1e-6)


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('nerf.nerf', dict(width=0), 'model.width=0 must be at least 1'),
        ('nerf.nerf', dict(levels=-1), 'model.levels=-1 must be at least 0'),
        ('instant_ngp.voxels', dict(low=1.0, high=0.0), 'model.low=1.0 must be below'),
        ('instant_ngp.hash_field', dict(size=1000), 'a power of 2 of rows'),
    ],
)
def test_bad_arguments_are_refused(name, arguments, message):
    with pytest.raises(UsageError, match=message):
        models.make_model(name, **arguments)


def test_inputs_that_are_missing_are_named():
    for name, message in (('nerf.mip_nerf', 'set render.casting=cones'), ('nerf.d_nerf', 'd_nerf needs times')):
        with pytest.raises(UsageError, match=message):
            shapes(name, AT)

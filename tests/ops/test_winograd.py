"""Minimal filtering against a loop over windows and the plain form, its gradients too; what it keeps, who gets it."""

import jax
import jax.numpy as jnp
import numpy as np

from canon import backend, ops
from canon.ops.convolution import _plain
from canon.ops.padding import resolve_padding
from canon.ops.shifts import Windows
from canon.ops.winograd import is_faster, winograd_conv
from tests.ops import windows


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def over(size, padding=1, dilation=(1, 1)):
    return Windows(size, (3, 3), (1, 1), resolve_padding(padding, size, (3, 3), (1, 1), dilation), dilation)


def form(function, spec):
    """(images, kernel, dy) -> (outputs, the gradient by the images, that by the kernel)"""

    def run(images, kernel, dy):
        y, back = jax.vjp(lambda x, k: function(x, k, spec), images, kernel)
        return y, *back(dy)

    return jax.jit(run)


def plain(images, kernel, at):
    return _plain(images, kernel, at, 1)


CONVENTIONS = [
    ('same', ((1, 1), (5, 8))),
    ('same_lower', ((4, 3),)),
    ('valid', ((3, 3), (4, 7))),
    (1, ((1, 1), (2, 1), (7, 7))),
    (('torch', 2), ((1, 1), (6, 5))),
    (('caffe', (0, 1)), ((3, 2),)),
    (((0, 3), (2, 1)), ((1, 4), (5, 6))),
    (((-1, 2), (3, -1)), ((4, 3),)),
]
DILATIONS = [((6, 9), 2, (2, 2)), ((7, 7), 4, (4, 4)), ((5, 8), 'same', (3, 1)), ((9, 10), ((-1, 3), (0, -1)), (2, 3))]


def test_every_convention_and_odd_sizes(monkeypatch):
    """All in one program, which compiles faster than one for each."""
    monkeypatch.setattr('canon.ops.winograd._MIN_KERNEL_GRADIENT_CHANNELS', 1)
    cases = [over(size, padding) for padding, sizes in CONVENTIONS for size in sizes]
    cases += [over(*dilated) for dilated in DILATIONS]
    arrays = [(drawn(2, *spec.size, 3), drawn(3, 3, 3, 5, seed=1), drawn(2, *spec.out, 5, seed=2)) for spec in cases]

    @jax.jit
    def both(arrays):
        return [
            (form(winograd_conv, spec)(*case), form(plain, spec)(*case))
            for spec, case in zip(cases, arrays, strict=True)
        ]

    with jax.enable_x64(True):
        results = both(arrays)
    for spec, case, (actual, expected) in zip(cases, arrays, results, strict=True):
        places = [[i - low for i in range(n)] for (low, _), n in zip(spec.padding, spec.out, strict=True)]
        looped = windows.conv(*case[:2], places, spec.dilation, 1)
        for a, b in zip((actual[0], *actual), (looped, *expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max(), err_msg=str(spec))


def test_the_error_is_that_of_the_plain_form():
    """In float32 against float64, at a layer's own number of channels; larger tiles would err twenty times as much."""
    spec = over((14, 14))
    arrays = drawn(1, 14, 14, 256), drawn(3, 3, 256, 96, seed=1) / 48, drawn(1, 14, 14, 96, seed=2)
    with jax.enable_x64(True):
        exact = [np.asarray(a) for a in form(plain, spec)(*arrays)]
    narrow = [jnp.asarray(a, jnp.float32) for a in arrays]
    for ours, theirs, truth in zip(form(winograd_conv, spec)(*narrow), form(plain, spec)(*narrow), exact, strict=True):
        far = [np.abs(a - truth).max() / np.abs(truth).max() for a in (ours, theirs)]
        assert far[0] < 2e-6, far
        assert far[0] < 4 * far[1], far


def test_outputs_see_their_own_pixels_alone():
    """To the bit: one pixel changed, even into not a number, changes the 3x3 outputs around it and no other."""
    at, images, kernel = over((8, 9)), drawn(1, 8, 9, 4), drawn(3, 3, 4, 5, seed=1)
    run = jax.jit(lambda x: winograd_conv(x, jnp.asarray(kernel, jnp.float32), at))
    before = np.asarray(run(jnp.asarray(images, jnp.float32)))
    for y, x in ((0, 0), (3, 4), (4, 5), (7, 8)):
        for value in (1e6, np.nan):
            other = images.copy()
            other[0, y, x] = value
            changed = (np.asarray(run(jnp.asarray(other, jnp.float32))) != before).any((0, 3))
            around = np.zeros((8, 9), bool)
            around[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
            np.testing.assert_array_equal(changed, around)


def test_an_empty_batch(monkeypatch):
    monkeypatch.setattr('canon.ops.winograd._MIN_KERNEL_GRADIENT_CHANNELS', 1)
    at = over((6, 5))
    y, dx, dk = form(winograd_conv, at)(jnp.zeros((0, 6, 5, 3)), jnp.ones((3, 3, 3, 4)), jnp.zeros((0, 6, 5, 4)))
    assert (y.shape, dx.shape) == ((0, 6, 5, 4), (0, 6, 5, 3))
    np.testing.assert_array_equal(dk, np.zeros((3, 3, 3, 4)))


def test_which_convolutions_use_it():
    """ResNet-50's stages in a batch of 8; not where it was measured to lose, nor where it does not apply."""

    def uses_winograd(images, kernel, dtype=jnp.float32, padding=1, stride=1, dilation=1, groups=1):
        x, k = jax.ShapeDtypeStruct(images, dtype), jax.ShapeDtypeStruct(kernel, dtype)

        def trace(x, k):
            return ops.conv(x, k, stride, padding, dilation, groups)

        with backend.forms('cpu'):
            return 'conv_general_dilated' not in str(jax.make_jaxpr(lambda x, k: trace(x, k))(x, k))

    for size, width in ((56, 64), (28, 128), (14, 256), (7, 512)):
        assert uses_winograd((8, size, size, width), (3, 3, width, width))
    assert uses_winograd((8, 14, 14, 512), (3, 3, 256, 512), groups=2)
    assert uses_winograd((8, 14, 14, 256), (3, 3, 256, 256), jnp.float64)
    assert uses_winograd((4, 28, 28, 512), (3, 3, 512, 512), dilation=4, padding=4)  # 7x7 of each phase
    assert not uses_winograd((4, 28, 28, 512), (3, 3, 512, 512), dilation=10, padding=10)  # 3x3 of each
    assert not uses_winograd((8, 14, 14, 256), (3, 3, 256, 256), jnp.bfloat16)
    assert not uses_winograd((1, 7, 7, 512), (3, 3, 512, 512))
    assert not uses_winograd((8, 56, 56, 32), (3, 3, 32, 64))
    assert not uses_winograd((256, 224, 224, 64), (3, 3, 64, 64))  # eight times the images' memory
    assert not uses_winograd((0, 14, 14, 256), (3, 3, 256, 256))
    assert not uses_winograd((8, 14, 14, 256), (3, 3, 256, 256), stride=2)
    assert not uses_winograd((8, 14, 14, 256), (5, 5, 256, 256), padding=2)
    images, kernel = (
        jax.ShapeDtypeStruct((8, 14, 14, 64), jnp.float32),
        jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float64),
    )
    assert not is_faster(images, kernel, over((14, 14)))  # of two types, which the plain form refuses
    with backend.forms('plain'):
        assert 'conv_general' in str(jax.make_jaxpr(lambda x: ops.conv(x, jnp.ones((3, 3, 64, 64))))(images))

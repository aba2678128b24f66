"""Box algebra against torchvision in float64, gradients too, and at boxes without area."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from canon.ops import boxes
from tests.ops.detections import draw_boxes, iou_with

GOLDEN = np.load(Path(__file__).parent / 'golden/detection.npz')
A, B = draw_boxes('clustered', 20, 0).astype(np.float64), draw_boxes('clustered', 15, 1).astype(np.float64)
EMPTY = np.array([[3, 3, 3, 3], [3, 3, 3, 3], [5, 2, 5, 9], [0, 0, 0, 0], [1, 1, 4, 4]], np.float32)


def test_overlaps_equal_torchvision_and_so_do_their_gradients():
    upstream = np.cos(np.arange(len(A) * len(B), dtype=np.float64)).reshape(len(A), len(B))

    @jax.jit
    def differentiate(a, b):
        outputs = {}
        for name, function in (('iou', boxes.pairwise_iou), ('giou', boxes.pairwise_giou)):
            value, pull = jax.vjp(function, a, b)
            outputs |= dict(zip((name, f'{name}_da', f'{name}_db'), (value, *pull(upstream)), strict=True))
        return outputs

    with jax.enable_x64(True):
        outputs = differentiate(A, B)
    for key, actual in outputs.items():
        np.testing.assert_allclose(actual, GOLDEN[key], rtol=1e-10, atol=1e-12, err_msg=key)


def test_box_coding_and_clipping_equal_torchvision():
    with jax.enable_x64(True):
        np.testing.assert_allclose(boxes.encode_offsets(A[:15], B), GOLDEN['encoded'], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(
            boxes.decode_offsets(GOLDEN['offsets'], B), GOLDEN['decoded'], rtol=1e-10, atol=1e-10
        )
        np.testing.assert_array_equal(boxes.clip(A, (90, 70)), GOLDEN['clipped'])
    assert (GOLDEN['offsets'] * 0.2 > np.log(1000 / 16))[:, 2:].any()  # the bound of sizes is met


def test_decoding_inverts_encoding():
    for variances in (boxes.VARIANCES, (1, 1, 1, 1)):
        offsets = boxes.encode_offsets(A[:15], B, variances)
        np.testing.assert_allclose(boxes.decode_offsets(offsets, B, variances), A[:15], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(boxes.centers_to_corners(boxes.corners_to_centers(A)), A, rtol=1e-5)
    assert np.isinf(boxes.decode_offsets(np.full((1, 4), 1e4, np.float32), B[:1], max_log_size=None)).any()


def test_leading_axes_broadcast():
    a = np.stack([A, A + 1]).astype(np.float32)
    iou = boxes.pairwise_iou(a, B.astype(np.float32))
    assert iou.shape == (2, 20, 15)
    expected = [[iou_with(x, B.astype(np.float32)) for x in row] for row in a]
    np.testing.assert_allclose(iou, expected, rtol=1e-5, atol=1e-6)
    assert boxes.pairwise_iou(a[:, :0], a).shape == (2, 0, 20)
    np.testing.assert_allclose(boxes.area(a), np.prod(a[..., 2:] - a[..., :2], -1), rtol=1e-6)


def test_boxes_without_area_have_finite_values_and_gradients():
    priors = B[:5].astype(np.float32)
    functions = (
        lambda a: boxes.pairwise_iou(a, EMPTY),
        lambda a: boxes.pairwise_giou(a, EMPTY),
        lambda a: boxes.encode_offsets(a, priors),
    )
    outputs = jax.jit(lambda a: [(f(a), jax.grad(lambda a, f=f: f(a).sum())(a)) for f in functions])(EMPTY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(outputs))
    np.testing.assert_array_equal(boxes.pairwise_iou(EMPTY, EMPTY)[0], [0, 0, 0, 0, 0])
    assert boxes.area(np.float32([[5, 5, 3, 9], [5, 5, 3, 1]])).tolist() == [0, 0]  # inverted boxes


def test_giou_of_boxes_apart_and_of_bfloat16():
    """Unit squares 1 apart: IoU 0, union 2, enclosing box 3: GIoU = -1/3. A coarse type is within its rounding."""
    a, b = np.float32([[0, 0, 1, 1]]), np.float32([[2, 0, 3, 1]])
    assert abs(float(boxes.pairwise_giou(a, b)[0, 0]) + 1 / 3) < 1e-6
    assert abs(float(boxes.pairwise_giou(a, a)[0, 0]) - 1) < 1e-6
    coarse = boxes.pairwise_iou(jnp.asarray(A, jnp.bfloat16), jnp.asarray(B, jnp.bfloat16))
    assert coarse.dtype == jnp.bfloat16
    np.testing.assert_allclose(coarse.astype(np.float32), GOLDEN['iou'], atol=0.1)


def test_offsets_are_those_of_the_equations():
    """Eq. 2: a box moved by a tenth of the prior's width, and twice as high."""
    prior, box = np.float32([0, 0, 10, 20]), np.float32([1, -10, 11, 30])
    np.testing.assert_allclose(boxes.encode_offsets(box, prior), [1, 0, 0, 5 * np.log(2)], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        jax.jit(partial(boxes.decode_offsets, variances=(1, 1, 1, 1)))(np.float32([0.1, 0, 0, np.log(2)]), prior),
        box,
        rtol=1e-6,
    )

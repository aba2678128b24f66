"""IoU, Chamfer, normal consistency and F-score against what geometry says."""

import numpy as np
import pytest

from canon.errors import UsageError
from canon.metrics import shapes as metrics


def sphere(count, radius, seed=0):
    """Points and normals of a sphere about 0."""
    directions = np.random.default_rng(seed).normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return radius * directions, directions


def test_iou_of_shifted_boxes():
    """Two unit cubes, one a quarter of a side further: 3/4 shared of 5/4."""
    line = (np.arange(40) + 0.5) / 20 - 1
    points = np.stack(np.meshgrid(line, line, line, indexing='ij'), -1).reshape(-1, 3)
    box = lambda shift: (np.abs(points - [shift, 0, 0]) < 0.5).all(-1)  # noqa: E731
    overlap = metrics.iou(np.stack([box(0.0), box(0.0), box(9.0)]), np.stack([box(0.25), box(0.0), box(0.0)]))
    np.testing.assert_allclose(overlap, [0.75 / 1.25, 1, 0], rtol=1e-6)
    nothing = np.zeros((1, 5), bool)
    assert metrics.iou(nothing, nothing)[0] == 1
    with pytest.raises(UsageError, match='expected the same points for both shapes'):
        metrics.iou(nothing, nothing[:, 1:])


def test_concentric_spheres():
    """Every point of either is 0.1 from the other: L1 is 0.1 (halved), squared L2 0.02 (not halved)."""
    (a, na), (b, nb) = sphere(40_000, 1.0), sphere(40_000, 1.1, 1)
    scores = metrics.compare_surfaces(a, b, na, nb, threshold=0.09)
    # The nearest of n scattered points is further than the surface: by about spacing^2 / (2 x 0.1), here under 2 %.
    assert scores.accuracy == pytest.approx(0.1, rel=0.02)
    assert scores.completeness == pytest.approx(0.1, rel=0.02)
    assert scores.chamfer_l1 == (scores.accuracy + scores.completeness) / 2
    assert scores.chamfer_l2 == pytest.approx(0.02, rel=0.04)
    assert scores.normal_consistency == pytest.approx(1, abs=1e-3)
    assert scores.f_score == 0
    assert metrics.compare_surfaces(a, b, threshold=0.12).f_score > 0.999


def test_each_point_finds_its_nearest():
    """Against a loop over all pairs."""
    rng = np.random.default_rng(2)
    (a, na), (b, nb) = sphere(37, 1.0), sphere(23, 0.9, 3)
    a = a + 0.2 * rng.normal(size=a.shape)
    scores = metrics.compare_surfaces(a, b, na, nb, threshold=0.25)
    far, normal = [], []
    for x, n, y, m in ((a, na, b, nb), (b, nb, a, na)):
        pairs = [min((np.linalg.norm(p - q), j) for j, q in enumerate(y)) for p in x]
        far.append(np.array([d for d, _ in pairs]))
        normal.append(np.mean([abs(v @ m[j]) for v, (_, j) in zip(n, pairs, strict=True)]))
    precision, recall = (np.mean(d <= 0.25) for d in far)
    expected = (
        far[0].mean(),
        far[1].mean(),
        (far[0].mean() + far[1].mean()) / 2,
        (far[0] ** 2).mean() + (far[1] ** 2).mean(),
    )
    np.testing.assert_allclose(scores[:4], expected, rtol=1e-12)
    assert scores.normal_consistency == pytest.approx(np.mean(normal))
    assert scores.f_score == pytest.approx(2 * precision * recall / (precision + recall))
    assert 0 < scores.f_score < 1


def test_empty_surfaces_are_refused():
    with pytest.raises(UsageError, match='got 0 and 5 true ones'):
        metrics.compare_surfaces(np.zeros((0, 3)), np.zeros((5, 3)))
    assert np.isnan(metrics.compare_surfaces(np.ones((2, 3)), np.ones((5, 3))).normal_consistency)

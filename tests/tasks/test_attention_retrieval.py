"""Attention scores and the softmax's Jacobian by width, against float64 numpy and the paper's variance of q.k."""

import jax
import numpy as np
import pytest

from canon.tasks import attention_retrieval as retrieval


def measure(form, d_k):
    batch = retrieval.draw_retrieval_batch(np.random.default_rng(0), 256, 8, 512)
    model = retrieval.Retriever(512, form, d_k)

    @jax.jit
    def init_and_measure(key):
        return retrieval.measure_scores(model, model.init(key, batch)['params'], batch)

    return {name: float(mean.value) for name, mean in init_and_measure(jax.random.key(0)).items()}


def test_the_jacobian_norm_is_that_of_the_matrix():
    scores = 3 * np.random.default_rng(0).normal(size=(5, 7))
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    expected = [np.linalg.norm(np.diag(row) - np.outer(row, row)) for row in p]
    np.testing.assert_allclose(retrieval.softmax_jacobian(scores.astype(np.float32)), expected, rtol=1e-4)


@pytest.mark.parametrize('d_k', [16, 256])
def test_products_of_unit_variance_have_variance_d_k(d_k):
    assert measure('dot_product', d_k)['variance'] == pytest.approx(d_k, rel=0.1)
    assert measure('scaled_dot_product', d_k)['variance'] == pytest.approx(1, rel=0.1)


def test_without_the_scale_the_jacobian_vanishes_with_the_width():
    narrow, wide = ({form: measure(form, d)['jacobian'] for form in retrieval.SCORES} for d in (4, 1024))
    assert wide['dot_product'] < 0.2 * narrow['dot_product']
    for form in ('scaled_dot_product', 'additive'):
        assert wide[form] == pytest.approx(narrow[form], rel=0.25)


def test_the_target_is_the_value_of_the_queried_key():
    batch = retrieval.draw_retrieval_batch(np.random.default_rng(0), 50, 6, 9)
    assert all(len(set(row)) == 6 for row in batch['key'].tolist())
    hit = batch['key'] == batch['query'][:, None]
    assert (hit.sum(1) == 1).all()
    np.testing.assert_array_equal(batch['value'][hit], batch['target'])
    assert hit.any(0).all()  # every place is queried

"""Losses of classifiers."""

import jax
import jax.numpy as jnp

from canon.errors import UsageError


def softmax_cross_entropy(
    logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0, soft_labels: bool = False
) -> jax.Array:
    """-sum_c q_c log softmax(logits)_c, one value per row, in nats.

    With `label_smoothing` e the target is q = (1 - e) onehot + e / C (Szegedy et al. 2016, "Rethinking the Inception
    Architecture", eq. 6 of section 7, with uniform u; Vaswani et al. 2017, section 5.4, too). fairseq's form
    (1 - e - e / (C - 1)) nll + e / (C - 1) sum_c nll_c is this with e C / (C - 1) for e. Computed in float32 at least,
    whatever the logits' type.

    Args:
      logits: [..., C].
      labels: integers [...]; with `soft_labels` distributions over the classes [..., C] are accepted, too.
      label_smoothing: e, in [0, 1].
      soft_labels: whether labels of the logits' rank are distributions. It has to be said: labels [N, 1] would
        otherwise pass for distributions.

    Raises UsageError for labels of another shape or type.
    """
    check_labels(logits, labels, soft_labels)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    log_p = jax.nn.log_softmax(logits)
    if labels.ndim == logits.ndim:
        per_row = -jnp.where(labels == 0, 0, labels * log_p).sum(-1)  # a masked class: 0 log 0 is 0
    else:
        per_row = -jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    if isinstance(label_smoothing, int | float) and label_smoothing == 0:
        return per_row  # classes masked by logits of -inf have a mean of -inf, and 0 times that is NaN
    return (1 - label_smoothing) * per_row - label_smoothing * log_p.mean(-1)


def maximum_a_posteriori(logits: jax.Array, labels: jax.Array, j: float = 0.1) -> jax.Array:
    """y_D + log(e^-j + sum_i e^-y_i) of penalties y = -logits, one value per row: LeCun et al. 1998, eq. 9.

    logits [..., C] (minus the penalties), labels integers [...]. It is the cross entropy of C classes and one more, a
    class for rubbish of the fixed penalty j > 0: compared with it, penalties of wrong classes that are large already
    are not pushed further. The paper states no value of j; 0.1 is ours. Computed in float32 at least.

    Raises UsageError for labels of another shape or type.
    """
    check_labels(logits, labels)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    right = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jnp.logaddexp(jax.nn.logsumexp(logits, axis=-1), -j) - right


def check_labels(logits: jax.Array, labels: jax.Array, soft_labels: bool = False) -> None:
    """Raises UsageError unless `labels` are integers [...] or, with `soft_labels`, distributions [..., C].

    logits: [..., C]. Only shapes and types are looked at, so it works on traced arrays.
    """
    if soft_labels and labels.shape == logits.shape:
        return
    if labels.shape == logits.shape[:-1] and jnp.issubdtype(labels.dtype, jnp.integer):
        return
    expected = f'integers {list(logits.shape[:-1])}'
    if soft_labels:
        expected += f' or distributions {list(logits.shape)}'
    hint = ''
    if labels.shape == logits.shape:
        hint = '; say soft_labels=True if they are distributions over the classes'
    elif labels.shape == (*logits.shape[:-1], 1):
        hint = '; drop their last axis'
    told = f'labels {list(labels.shape)} of {labels.dtype} do not fit logits {list(logits.shape)}'
    raise UsageError(f'{told}: expected {expected}{hint}')

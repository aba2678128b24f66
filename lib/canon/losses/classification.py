"""Losses of classifiers, for logits of any leading shape; one value per label, in nats."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from canon.errors import UsageError


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    label_smoothing: float = 0.0,
    soft_labels: bool = False,
    ignore_label: int | None = None,
) -> jax.Array:
    """Computes -sum_c q_c log softmax(logits)_c for each label, in nats.

    With `label_smoothing` e the target is q = (1 - e) onehot + e / C (Szegedy et al. 2016, "Rethinking the Inception
    Architecture", section 7, eq. 6 with uniform u; also Vaswani et al. 2017, section 5.4). fairseq's form
    (1 - e - e / (C - 1)) nll + e / (C - 1) sum_c nll_c equals this one with e C / (C - 1) for e. Computed in float32
    at least, whatever the logits' dtype.

    Args:
      logits: [..., C].
      labels: integers [...]; with `soft_labels` distributions over the classes [..., C] are accepted as well.
      label_smoothing: e, in [0, 1].
      soft_labels: whether labels of the logits' shape are distributions. It is never guessed: integer labels [N, 1]
        would otherwise pass for distributions over one class.
      ignore_label: an integer label whose loss and gradient are zero, as 255 for void pixels. Average with
        `metrics.valid_labels` as the mask, or the ignored zeros would count.

    Returns:
      [...], one loss per label.

    Raises:
      UsageError: the labels have another shape or type, or label_smoothing is out of range.
    """
    if isinstance(label_smoothing, int | float) and not 0 <= label_smoothing <= 1:
        raise UsageError(f'label_smoothing={label_smoothing} must be at least 0 and at most 1')
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check_labels(logits, labels, soft_labels)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    ignored = None
    if ignore_label is not None and labels.shape != logits.shape:
        ignored = labels == ignore_label
        # The ignored label may not be a class: gathering it would read NaN. The gradient of zeroed logits is zero even
        # where they are infinite.
        labels, logits = jnp.where(ignored, 0, labels), jnp.where(ignored[..., None], 0, logits)
    log_p = jax.nn.log_softmax(logits)
    if labels.shape == logits.shape:
        losses = -jnp.where(labels == 0, 0, labels * log_p).sum(-1)  # a masked class: 0 log 0 is 0
    else:
        losses = -jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    # Without smoothing the mean is not computed at all: over classes masked by logits of -inf it is -inf, and 0 times
    # that is NaN.
    if not (isinstance(label_smoothing, int | float) and label_smoothing == 0):
        losses = (1 - label_smoothing) * losses - label_smoothing * log_p.mean(-1)
    return losses if ignored is None else jnp.where(ignored, 0, losses)


def maximum_a_posteriori(logits: ArrayLike, labels: ArrayLike, j: float = 0.1) -> jax.Array:
    """Computes y_D + log(e^-j + sum_i e^-y_i) of the penalties y = -logits: LeCun et al. 1998, eq. 9.

    It is the cross entropy over the C classes and a rubbish class of fixed penalty j: penalties of wrong classes that
    are already large against j are not pushed further. The paper states no value of j; 0.1 is ours. Computed in
    float32 at least.

    Args:
      logits: [..., C], minus the penalties.
      labels: integers [...].
      j: penalty of the rubbish class, > 0.

    Returns:
      [...], one loss per label.

    Raises:
      UsageError: the labels have another shape or type.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check_labels(logits, labels)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    correct = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jnp.logaddexp(jax.nn.logsumexp(logits, axis=-1), -j) - correct


def check_labels(logits: jax.Array, labels: jax.Array, soft_labels: bool = False) -> None:
    """Checks that `labels` are integers [...] or, with `soft_labels`, distributions [..., C] for logits [..., C].

    Only shapes and dtypes are read, so traced arrays are accepted. Raises UsageError otherwise.
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
        hint = '; set soft_labels=True if they are distributions over the classes'
    elif labels.shape == (*logits.shape[:-1], 1):
        hint = '; drop their last axis'
    mismatch = f'labels {list(labels.shape)} of {labels.dtype} do not fit logits {list(logits.shape)}'
    raise UsageError(f'{mismatch}: expected {expected}{hint}')

"""Words as classes: labels to numbers of a word list and to bags of n-grams, and readings of fixed positions.

Labels are integers [B, L], characters as 1, 2, ..., then 0 (`canon.data.text.words` encodes word lists alike).
"""

import jax
import jax.numpy as jnp

from canon.ops.ctc import Readings


def find_words(labels: jax.Array, words: jax.Array) -> jax.Array:
    """Finds each label in a word list by binary search: its row, int32 [B]; -1 if it is not in the list.

    Args:
      labels: [B, L].
      words: [W, L'], padded with 0, in lexicographic order and without repetition.
    """
    width = max(labels.shape[1], words.shape[1])
    labels, words = (jnp.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (labels, words))

    def narrow(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        before = _is_before(words[jnp.minimum(middle, len(words) - 1)], labels)
        return jnp.where(before & (low < high), middle + 1, low), jnp.where(before | (low >= high), high, middle)

    bounds = jnp.zeros(len(labels), jnp.int32), jnp.full(len(labels), len(words), jnp.int32)
    place, _ = jax.lax.fori_loop(0, len(words).bit_length(), narrow, bounds)
    place = jnp.minimum(place, len(words) - 1)
    return jnp.where((words[place] == labels).all(1), place, -1)


def _is_before(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns whether rows a [B, L] come before rows b in lexicographic order; the padding 0 comes first."""
    differs = a != b
    first = differs.argmax(1)[:, None]
    smaller = jnp.take_along_axis(a, first, 1) < jnp.take_along_axis(b, first, 1)
    return smaller[:, 0] & differs.any(1)


def mark_ngrams(labels: jax.Array, codes: jax.Array, base: int, order: int) -> jax.Array:
    """Marks the n-grams that occur in each label, bool [B, N]: the bag G_N(w) of Jaderberg et al. 2014.

    Args:
      labels: [B, L].
      codes: of the n-grams, int32 [N] in ascending order: their characters as a number in base `base`.
      base: more than the largest character, with base^order below 2^31.
      order: characters of the longest n-grams.
    """
    rows = jnp.arange(len(labels))[:, None]
    marks = jnp.zeros((len(labels), len(codes)), bool)
    gram = jnp.zeros(labels.shape, jnp.int32)
    for n in range(1, order + 1):
        # The n-grams that start at each place: those of n - 1 characters, and the character after them.
        following = jnp.pad(labels[:, n - 1 :], ((0, 0), (0, min(n - 1, labels.shape[1]))))
        gram = gram * base + following.astype(jnp.int32)
        place = jnp.searchsorted(codes, gram).astype(jnp.int32)
        occurs = (following > 0) & (codes[jnp.minimum(place, len(codes) - 1)] == gram)
        marks = marks.at[rows, jnp.where(occurs, place, len(codes))].set(True, mode='drop')
    return marks


def read_positions(log_probs: jax.Array) -> Readings:
    """Reads the most probable character of each position, without those of class 0.

    Args:
      log_probs: of the classes at each position, [B, P, C]; class 0 is no character.

    Returns:
      labels [B, P], lengths [B] and the log probabilities of the readings as they are read.
    """
    best = log_probs.argmax(-1).astype(jnp.int32)
    keep = best > 0
    places = log_probs.shape[1]
    place = jnp.where(keep, keep.cumsum(1) - 1, places)
    labels = jnp.full_like(best, -1).at[jnp.arange(len(best))[:, None], place].set(best, mode='drop')
    return Readings(labels, keep.sum(1, dtype=jnp.int32), log_probs.max(-1).sum(1).astype(jnp.float32))


def score_positions(log_probs: jax.Array, words: jax.Array) -> jax.Array:
    """Computes log p(word) = sum_i log p_i(character i) of each word of a list, [B, W]; class 0 follows its end.

    Args:
      log_probs: [B, P, C].
      words: [W, P], characters, then 0.
    """
    # A matrix product over one-hot characters: a gather of W P entries per row is slower on a CPU.
    one_hot = jax.nn.one_hot(words, log_probs.shape[-1], dtype=log_probs.dtype)
    finite = jnp.maximum(log_probs, -1e30)  # 0 times -inf would be NaN
    return jnp.einsum('bpc,wpc->bw', finite, one_hot, precision='highest')


def score_ngram_bags(logits: jax.Array, bags: jax.Array) -> jax.Array:
    """Computes the log likelihood of each word's bag of n-grams, [B, W]: n-grams are independent given the image.

    With probabilities p_n = sigmoid(z_n) and a bag y it is sum_n y_n log p_n + (1 - y_n) log(1 - p_n), which is
    sum_n y_n z_n up to a term that all words share.

    Args:
      logits: z, [B, N].
      bags: y, bool [W, N].
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    scores = jnp.matmul(logits, bags.T.astype(logits.dtype), precision='highest')
    return scores - jax.nn.softplus(logits).sum(1, keepdims=True)


def nearest_ngram_bag(logits: jax.Array, bags: jax.Array) -> jax.Array:
    """Returns minus the squared Euclidean distance from sigmoid(logits) to each word's bag, [B, W].

    Its maximum is the nearest neighbour in the space of n-grams (Jaderberg et al. 2014, NGRAM+2-NN).
    """
    p = jax.nn.sigmoid(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    cross = jnp.matmul(p, bags.T.astype(p.dtype), precision='highest')
    return 2 * cross - bags.sum(1).astype(p.dtype) - jnp.square(p).sum(1, keepdims=True)

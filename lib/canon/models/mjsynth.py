"""The networks of MJSynth, which read a word image at once: dictionary, character sequence and bag of n-grams.

Jaderberg, Simonyan, Vedaldi, Zisserman, "Synthetic data and artificial neural networks for natural scene text
recognition", 2014 (arXiv 1406.2227). Images of 32x100 grey pixels, standardised one by one.

| layer | maps or units | |
|---|---|---|
| conv1 | 64, 5x5 | pool 2x2 |
| conv2 | 128, 5x5 | pool 2x2 |
| conv3 | 256, 3x3 | pool 2x2, the odd column rounded up |
| conv4, conv5 | 512, 3x3 | |
| fc6, fc7 | 4096 | dropout 0.5 |
| fc8 | words of the dictionary, 23 x 37 characters, or 10,000 n-grams | |

These are the "+2" networks; those without have one convolution (conv5) and one linear layer (fc7) less: `features`,
`kernels`, `units`. ReLU follows every layer but the last. 491.1 M parameters with 88,172 words (published: 490 M, Shi
et al. 2015, Table 2), 133.4 M with characters, 170.8 M with n-grams. The weights that the authors released pool after
conv4 in place of conv3 (`pools`), which changes no count.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as init

from canon import ops
from canon.errors import UsageError
from canon.named import Count, DropRate, takes_arguments_of
from canon.nn import BatchNorm, Conv, check_images


class WordNetwork(linen.Module):
    """Images [B, H, W, C] -> logits float32 [B, *shape]; the attributes are those of `dict_net`."""

    shape: tuple[int, ...]
    features: tuple[int, ...]
    kernels: tuple[int, ...]
    pools: tuple[int, ...]
    units: tuple[int, ...]
    dropout: float
    batch_norm: bool
    dtype: jnp.dtype | None

    @linen.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        check_images(images, 2 ** len(self.pools), 'the network')
        x = images
        for number, (features, kernel) in enumerate(zip(self.features, self.kernels, strict=True), 1):
            x = Conv(features, kernel, padding=kernel // 2, dtype=self.dtype, name=f'conv{number}')(x)
            if self.batch_norm:
                x = BatchNorm(dtype=self.dtype, name=f'bn{number}')(x, train)
            x = ops.relu(x)
            if number in self.pools:
                x = ops.max_pool(x, 2, ceil_mode=True)
        x = x.reshape(len(x), -1)
        layer = len(self.features) + 1
        for units in self.units:
            x = linen.Dense(units, dtype=self.dtype, kernel_init=init.he_normal(), name=f'fc{layer}')(x)
            x = linen.Dropout(self.dropout, deterministic=not train)(ops.relu(x))
            layer += 1
        size = 1
        for axis in self.shape:
            size *= axis
        x = linen.Dense(size, dtype=self.dtype, kernel_init=init.normal(0.01), name=f'fc{layer}')(x)
        return x.astype(jnp.float32).reshape(len(x), *self.shape)


def dict_net(
    num_words: Count = 88_172,
    features: Sequence[Count] = (64, 128, 256, 512, 512),
    kernels: Sequence[Count] = (5, 5, 3, 3, 3),
    pools: Sequence[Count] = (1, 2, 3),
    units: Sequence[Count] = (4096, 4096),
    dropout: DropRate = 0.5,
    batch_norm: bool = False,
    dtype: str | None = None,
) -> WordNetwork:
    """Builds DICT, one class per word: logits [B, num_words]. `add_classes` adds words to what is trained.

    Args:
      num_words: of the dictionary.
      features: channels of the convolutions.
      kernels: sizes of their windows, odd.
      pools: numbers of the convolutions, from 1, that a pooling follows.
      units: of the linear layers before the last.
      dropout: rate after them.
      batch_norm: normalises after every convolution (not in the paper, which is older).
      dtype: of the computation ('bfloat16'); parameters are float32.

    Raises:
      UsageError: there is not one odd kernel per convolution, or `pools` has a number that is not a convolution's.
    """
    if len(features) != len(kernels) or any(kernel % 2 == 0 for kernel in kernels):
        raise UsageError(
            f'model.kernels={tuple(kernels)} must be odd sizes, one for each of model.features={tuple(features)}'
        )
    if not set(pools) <= set(range(1, len(features) + 1)):
        raise UsageError(f'model.pools={tuple(pools)} holds numbers of convolutions, 1 to {len(features)}')
    widths = tuple(map(tuple, (features, kernels, pools, units)))
    return WordNetwork((num_words,), *widths, dropout, batch_norm, None if dtype is None else jnp.dtype(dtype))


@takes_arguments_of(dict_net, without=['num_words'])
def char_net(num_classes: Count = 36, positions: Count = 23, **arguments: Any) -> WordNetwork:
    """Builds CHAR, a classifier per position: logits [B, positions, num_classes + 1]; class 0 is no character.

    Args:
      num_classes: characters.
      positions: characters of the longest word; 23 in the paper.
      **arguments: those of `dict_net`.
    """
    return dict_net(**arguments).clone(shape=(positions, num_classes + 1))


@takes_arguments_of(dict_net, without=['num_words'])
def ngram_net(num_ngrams: Count = 10_000, **arguments: Any) -> WordNetwork:
    """Builds NGRAM, a logistic regression per n-gram of up to four characters: logits [B, num_ngrams].

    Args:
      num_ngrams: that are told apart; the paper takes 10,000 frequent ones.
      **arguments: those of `dict_net`.
    """
    return dict_net(**arguments).clone(shape=(num_ngrams,))


def add_classes(
    variables: Mapping[str, Any], num_classes: int, key: jax.Array, places: Sequence[int] | None = None
) -> dict[str, Any]:
    """Widens the last layer to `num_classes`: the paper trains DICT on 5,000 words and adds words step by step.

    The logits of the old classes stay as they are. Columns of new ones are drawn as the network draws them, N(0,
    0.01^2) with zero biases. An optimizer starts again, since its moments have the old shape. Dictionaries are in
    alphabetical order (`canon.data.text.words.encode_words`), so new words come between the old ones:

        words, labels = encode_words([*old_words, *new_words], alphabet, 23)
        wider = add_classes(variables, len(words), key, [words.index(word) for word in old_words])

    Args:
      variables: of a network of this module, {'params': ..., ...}.
      num_classes: after widening.
      key: of the new columns.
      places: of the old classes among the new ones, without repetition; the first ones if None.

    Raises:
      UsageError: there are as many classes already, or more, or `places` are not one of the new per old class.
    """
    params = dict(variables['params'])
    last = max((name for name in params if name.startswith('fc')), key=lambda name: int(name[2:]))
    kernel, bias = params[last]['kernel'], params[last]['bias']
    old = kernel.shape[1]
    if num_classes <= old:
        raise UsageError(f'num_classes={num_classes} must be more than the {old} that {last} has')
    chosen = np.arange(old) if places is None else np.asarray(places)
    if len(chosen) != old or len(set(chosen.tolist())) != old or not 0 <= chosen.min() <= chosen.max() < num_classes:
        raise UsageError(f'places must give each of {old} classes one of its own among {num_classes}')
    columns = init.normal(0.01)(key, (kernel.shape[0], num_classes), kernel.dtype)
    params[last] = {
        'kernel': columns.at[:, chosen].set(kernel),
        'bias': jnp.zeros(num_classes, bias.dtype).at[chosen].set(bias),
    }
    return {**variables, 'params': params}

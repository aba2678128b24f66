"""A recogniser with a recurrent attention decoder, that of deep-text-recognition-benchmark.

Baek et al., "What is wrong with scene text recognition model comparisons? Dataset and model analysis", 2019 (arXiv
1904.01906), "Attn" of section 3.4, after Shi et al. 2016 (RARE): the columns of CRNN, read by its two LSTMs, are the
memory h [B, T, D] of an LSTM that writes one character per step. With e_it = w^T tanh(W s_{i-1} + V h_t + b),
alpha_i = softmax(e_i), the context c_i = sum_t alpha_it h_t,

    s_i = LSTM([c_i; onehot(y_{i-1})], s_{i-1}),    logits_i = U s_i + u.

Classes are the benchmark's: 0 before the first character (never a target), 1 the end of the text, 1 + n the character
n of the alphabet.

    logits = model.apply(variables, images, labels)              # teacher forcing: [B, N + 1, num_classes + 2]
    logits = model.apply(variables, images, 25, method='read')   # its own characters: [B, 26, num_classes + 2]
"""

from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp

from canon.models.crnn import CRNN, HEIGHT, dtrb
from canon.named import Count
from canon.nn import LSTM, Dense

START, END = 0, 1


class AttentionReader(linen.Module):
    """Images [B, H, W, C] and labels [B, N] -> logits float32 [B, N + 1, num_classes + 2].

    Attributes:
      num_classes: characters.
      encoder: from images to features [B, T, D].
      hidden: units of the decoder's LSTM and of the attention.
    """

    num_classes: int
    encoder: CRNN
    hidden: int

    def setup(self):
        self.cell = AttentionCell(self.hidden, self.num_classes + 2)
        self.output = Dense(self.num_classes + 2)

    def __call__(self, images: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        """Scores each character given those before it; labels are 1, 2, ... in the order of the alphabet, then 0."""
        memory = self.encoder(images, train)
        # Shifted right by one: step i reads character i - 1. What follows the end is not in the loss.
        previous = jnp.pad(jnp.where(labels > 0, labels + 1, START), ((0, 0), (1, 0)), constant_values=START)
        hidden, _ = self._scan(AttentionReader._force, memory, previous.astype(jnp.int32))
        return self.output(hidden)

    def read(self, images: jax.Array, max_length: int, train: bool = False) -> jax.Array:
        """Scores `max_length` + 1 steps, each given the most probable characters before it."""
        memory = self.encoder(images, train)
        _, logits = self._scan(AttentionReader._choose, memory, jnp.zeros((len(images), max_length + 1), jnp.int32))
        return logits

    def _scan(self, step, memory: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        projected = self.cell.project(memory)
        zeros = jnp.zeros((len(memory), self.hidden), memory.dtype)
        scanned = linen.scan(
            step, variable_broadcast='params', split_rngs={'params': False}, in_axes=(linen.broadcast, 1), out_axes=1
        )
        _, outputs = scanned(self, (((zeros, zeros),), tokens[:, 0]), (memory, projected), tokens)
        return outputs

    def _force(self, carry, memory, token):
        hidden, state = self.cell(carry[0], *memory, token)
        return (state, token), (hidden, token)

    def _choose(self, carry, memory, _):
        hidden, state = self.cell(carry[0], *memory, carry[1])
        logits = self.output(hidden)
        return (state, logits.argmax(-1).astype(jnp.int32)), (hidden, logits)


class AttentionCell(linen.Module):
    """One step of the decoder: attends to the memory, then runs the LSTM on the context and the previous class."""

    hidden: int
    classes: int

    def setup(self):
        self.memory = Dense(self.hidden, use_bias=False)
        self.query = Dense(self.hidden)  # the bias of the sum
        self.score = Dense(1, use_bias=False)
        self.lstm = LSTM(self.hidden, forget_bias=0.0)

    def project(self, memory: jax.Array) -> jax.Array:
        """Returns V h, [B, T, hidden]: the same at every step."""
        return self.memory(memory)

    def __call__(self, state: Any, memory: jax.Array, projected: jax.Array, token: jax.Array) -> tuple[jax.Array, Any]:
        """Returns (hidden state [B, hidden], the state of the LSTM).

        Args:
          state: of the LSTM.
          memory: h, [B, T, D].
          projected: of `project`.
          token: class of the previous step, integers [B].
        """
        ((hidden, _),) = state
        scores = self.score(jnp.tanh(projected + self.query(hidden)[:, None]))[..., 0]
        context = jnp.einsum('bt,btd->bd', jax.nn.softmax(scores), memory)
        return self.lstm.step(state, jnp.concatenate([context, jax.nn.one_hot(token, self.classes)], -1))


def attention_reader(
    num_classes: Count = 36,
    width: Count = 512,
    hidden: Count = 256,
    height: Count = HEIGHT,
    fiducials: int = 0,
    dtype: str | None = None,
) -> AttentionReader:
    """Builds the reader, None-VGG-BiLSTM-Attn of the benchmark, and TPS-VGG-BiLSTM-Attn with `fiducials`.

    Args:
      num_classes: characters, without the start and the end.
      width: channels of the last three convolutions; the first ones have an eighth, a quarter and a half.
      hidden: units of each LSTM, of the linear layers after them and of the attention.
      height: of the images, in pixels.
      fiducials: points of the rectifier in front (`canon.nn.rectifier`); 20 in the benchmark, 0 for none.
      dtype: of the convolutions ('bfloat16').
    """
    encoder = dtrb(1, width, hidden, height, fiducials, dtype).clone(num_classes=None)
    return AttentionReader(num_classes, encoder, hidden)

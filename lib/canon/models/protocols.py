"""Protocols of language models and translation models: the methods that tasks and decoders call.

The models are linen modules, so each method but `LanguageModel.start` is called through `apply`:

    logits, state = model.apply({'params': params}, state, tokens, method='step')
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax


class LanguageOutput(NamedTuple):
    """The outputs of a language model for a window of tokens [B, T]."""

    logits: jax.Array  # [B, T, V], float32 or wider; those at t are of the token after tokens[:, t]
    state: Any  # after the window; None for a model whose windows are independent
    outputs: jax.Array  # [B, T, H] of the last layer
    dropped: jax.Array  # the same after dropout; in evaluation `outputs` itself


@runtime_checkable
class LanguageModel(Protocol):
    """A model of p(token | preceding tokens), such as `canon.models.rnn_lm` and `canon.models.transformer`.

    carries_state: whether a window continues from the state of the window before it (truncated backpropagation through
      time). If not, every window starts from nothing and its first argument is its only context.
    """

    carries_state: bool

    def __call__(
        self, tokens: jax.Array, state: Any = None, train: bool = False, lengths: jax.Array | None = None
    ) -> LanguageOutput:
        """Reads a window of tokens [B, T].

        Args:
          tokens: integers [B, T].
          state: where the window starts: of `start`, or of the previous window; None is that of `start`.
          train: applies dropout, from the stream 'dropout'.
          lengths: integers [B], where each row's padding begins; the returned state is the one there.
        """
        ...

    def start(self, batch_size: int, length: int) -> Any:
        """Returns the state before the first token, for at most `length` tokens per row. Needs no parameters."""
        ...

    def extend(self, state: Any, tokens: jax.Array) -> tuple[jax.Array, Any]:
        """Returns logits [B, T, V] for tokens [B, T] (a prompt, say) that continue from `state`, and the new state."""
        ...

    def step(self, state: Any, tokens: jax.Array) -> tuple[jax.Array, Any]:
        """Returns logits [B, V] of the token after `tokens` [B], and the new state."""
        ...


@runtime_checkable
class TranslationModel(Protocol):
    """An encoder-decoder: p(target | source) token by token, as in `canon.models.seq2seq` and `transformer`."""

    def __call__(self, source: jax.Array, lengths: jax.Array, target: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits [B, T, V]; those at t are of the token after target[:, t].

        Args:
          source: integers [B, S].
          lengths: integers [B], the tokens of each source; the rest is padding.
          target: integers [B, T], the target shifted right by one.
          train: applies dropout, from the stream 'dropout'.
        """
        ...

    def start(self, source: jax.Array, lengths: jax.Array, size: int) -> tuple[Any, Any]:
        """Returns (memory, state): the encoded source, and the decoder's state for at most `size` tokens."""
        ...

    def extend(self, memory: Any, state: Any, tokens: jax.Array) -> tuple[jax.Array, Any]:
        """Returns logits [R, T, V] for tokens [R, T] that continue from `state`, and the new state.

        R may be a multiple of the B sources: the hypotheses of one source are adjacent rows and share its memory.
        """
        ...

    def step(self, memory: Any, state: Any, tokens: jax.Array) -> tuple[jax.Array, Any]:
        """Returns logits [R, V] of the token after `tokens` [R], and the new state."""
        ...

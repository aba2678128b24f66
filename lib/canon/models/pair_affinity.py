"""A learnt affinity of tracks and detections: a network on every pair, for an assignment by Sinkhorn's algorithm.

After Sarlin et al. 2020, "SuperGlue", section 3.2: the scores of all pairs and a learnt one of what stays unmatched
go through Sinkhorn's iterations. Here the pairs are described by hand, as trackers do, instead of by attention: by the
displacement of the boxes in units of the track's size, their overlaps, the frames since the track was seen, the score
of the detection and, if there are embeddings, their cosine.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from canon import ops
from canon.named import Count
from canon.nn import Dense
from canon.ops.boxes import pairwise_iou


class PairAffinity(nn.Module):
    """Tracks and detections -> scores [..., N, M] of all pairs, and the score of what stays unmatched.

    Attributes:
      units: of the hidden layers.
      appearance: whether tracks and detections have embeddings.
    """

    units: Sequence[int]
    appearance: bool

    @nn.compact
    def __call__(
        self, tracks: Mapping[str, jax.Array], detections: Mapping[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """
        Args:
          tracks: `boxes` [..., N, 4], predicted for the frame of the detections; `observed` [..., N, 4], as last seen;
            `gaps` int [..., N], frames since then; `embeddings` [..., N, E] with `appearance`.
          detections: `boxes` [..., M, 4]; `scores` [..., M]; `embeddings` [..., M, E] with `appearance`.
        """
        x = describe_pairs(tracks, detections, self.appearance)
        for layer, units in enumerate(self.units):
            x = ops.relu(Dense(units, name=f'hidden{layer}')(x))
        unmatched = self.param('unmatched', nn.initializers.zeros, (), jnp.float32)
        return Dense(1, name='score')(x)[..., 0], unmatched


def pair_affinity(units: Sequence[Count] = (64, 64), appearance: bool = False) -> PairAffinity:
    """Builds the network. units: of its hidden layers. appearance: whether it compares embeddings."""
    return PairAffinity(tuple(units), appearance)


def describe_pairs(
    tracks: Mapping[str, jax.Array], detections: Mapping[str, jax.Array], appearance: bool = False
) -> jax.Array:
    """Describes all pairs, [..., N, M, F]; F is 13, or 14 with `appearance`. See `PairAffinity` for the arguments.

    For the predicted box and for the observed one: (dx, dy) of the centres over the root of the track's area, the
    logarithms of the ratios of widths and heights, and the IoU; then log(1 + gap), 1 / (1 + gap) and the score of the
    detection. Displacements d are compressed to sign(d) log(1 + |d|), so that far pairs do not drown near ones.
    """
    boxes = detections['boxes']
    # What is not valid may hold anything: boxes of at least a pixel keep the logarithms finite.
    parts = [part for key in ('boxes', 'observed') for part in _compare_boxes(tracks[key], boxes)]
    shape = parts[0].shape
    gaps = tracks['gaps'].astype(jnp.float32)[..., None]
    parts += [jnp.broadcast_to(value, shape) for value in (jnp.log1p(gaps), 1 / (1 + gaps))]
    parts.append(jnp.broadcast_to(detections['scores'][..., None, :], shape))
    if appearance:
        parts.append(jnp.einsum('...ne,...me->...nm', tracks['embeddings'], detections['embeddings']))
    return jnp.stack(parts, -1).astype(jnp.float32)


def _compare_boxes(a: jax.Array, b: jax.Array) -> list[jax.Array]:
    size_a, size_b = (jnp.maximum(x[..., 2:] - x[..., :2], 1) for x in (a, b))
    centre_a, centre_b = ((x[..., 2:] + x[..., :2]) / 2 for x in (a, b))
    unit = jnp.sqrt(size_a.prod(-1))[..., :, None, None]
    moved = (centre_b[..., None, :, :] - centre_a[..., :, None, :]) / unit
    ratios = jnp.log(size_b)[..., None, :, :] - jnp.log(size_a)[..., :, None, :]
    compressed = jnp.sign(moved) * jnp.log1p(jnp.abs(moved))
    return [compressed[..., 0], compressed[..., 1], ratios[..., 0], ratios[..., 1], pairwise_iou(a, b)]

"""Compares RoIAlign and the proposals of a region proposal network with torchvision.

    python -m benchmarks.regions --torch=/path/to/python

RoIAlign: 512 boxes on a map of 50 x 50 with 256 channels, 7 x 7 bins, 2 x 2 samples each, forward, and forward with the
gradient. Proposals: of the 159,882 anchors of an image of 800 x 800 on five levels, 1,000 per level and 1,000 in all.
How it measures: benchmarks/comparison.py.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks import comparison
from benchmarks.comparison import Benchmark, Peer, Work
from canon.ops.anchors import make_anchor_levels
from canon.ops.proposals import propose
from canon.ops.regions import roi_align
from tools.regions import ANCHOR_SIZES, GRIDS, STRIDES, draw_features, draw_proposal_outputs, draw_regions


def align(gradient: bool) -> Callable:
    maps, cotangent = map(jnp.asarray, draw_features())
    boxes = jnp.asarray(draw_regions())[None]
    pool = functools.partial(roi_align, boxes=boxes, output_size=7, scale=1 / 16)

    def pull(maps, cotangent):
        out, backward = jax.vjp(pool, maps)
        return out, backward(cotangent)

    call = jax.jit(pull if gradient else lambda maps, _: pool(maps))
    return lambda: call(maps, cotangent)


def filter_proposals() -> Callable:
    anchors = [jnp.asarray(a) for a in make_anchor_levels(GRIDS, STRIDES, ANCHOR_SIZES, form='torchvision')]
    outputs = jax.tree.map(jnp.asarray, draw_proposal_outputs())
    call = jax.jit(lambda scores, offsets: propose(scores, offsets, anchors, (800, 800), 1000, 1000))
    return lambda: call(*outputs)


WORKS = {
    'roi_align': Work({'canon': functools.partial(align, False)}, 3, {'torch': 0.15}),
    'roi_align_gradient': Work({'canon': functools.partial(align, True)}, 1, {'torch': 0.10}),
    'proposals': Work({'canon': filter_proposals}, 5, {'torch': 0.7}),
}
BENCHMARK = Benchmark('benchmarks.regions', WORKS, Peer('regions_torch.py'))


if __name__ == '__main__':
    comparison.main(__doc__, BENCHMARK)

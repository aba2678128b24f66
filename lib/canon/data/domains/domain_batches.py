"""Training batches of several domains, in which the labels of unlabelled domains do not occur."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from canon.data.pipeline.batches import Batches
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.mixing import Zipped
from canon.data.pipeline.source import Example, Source, read_examples
from canon.errors import UsageError


class Unlabelled:
    """A source without labels: of each example only the fields in `fields`, so that nothing else can reach a batch."""

    def __init__(self, source: Source, fields: Sequence[str] = ('image',)):
        self.source, self.fields = source, tuple(fields)
        # What the labels are called stays: figures of the target need the names, and no training step reads `info`.
        self.info, self.in_memory = source.info, getattr(source, 'in_memory', False)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return self._strip(self.source[index])

    def __getitems__(self, ids: Sequence[int]) -> list[Example]:
        return [self._strip(example) for example in read_examples(self.source, ids)]

    def _strip(self, example: Example) -> Example:
        return {field: example[field] for field in self.fields}

    def __repr__(self) -> str:
        return f'Unlabelled({self.source!r})'


def derive_seed(seed: int, name: str) -> int:
    """Returns the seed of a domain's order.

    Domains may be made of the same examples in the same order, such as rotations of one set: with one seed for all,
    every batch would hold pairs of the same example, a supervision that no real domain gives.
    """
    # The name and not its position: a further domain does not change the batches of the others.
    return int(np.random.SeedSequence((seed, zlib.crc32(name.encode()))).generate_state(1)[0])


def make_domain_batches(
    labelled: Mapping[str, Source],
    unlabelled: Mapping[str, Source] | None = None,
    batch_size: int | Mapping[str, int] = 32,
    seed: int = 0,
    transforms: Sequence[Transform] = (),
    fields: Sequence[str] = ('image',),
    paired: bool = False,
    **options: Any,
) -> Zipped:
    """Makes batches {domain: {field: [B_domain, ...], 'mask': [B_domain]}}, a pure function of (seed, step).

    The parts are not joined: microbatches, processes and devices each receive rows of every domain.

    Args:
      labelled: {domain: source}; an epoch is one of the first.
      unlabelled: {domain: source}, of which batches hold `fields` only. The few examples of the target that are shown
        in semi-supervised adaptation are a labelled domain of their own (`show_few`).
      batch_size: of every domain, or {domain: batch size}.
      seed: of the run; each domain derives its own from it.
      transforms: applied to the examples of every domain, in order.
      fields: what batches of unlabelled domains hold.
      paired: whether all domains have one order: row i of every domain is then example i of one permutation.
      options: further arguments of `canon.data.Batches`, such as `sampler` and `memory_limit`. The sampler of an
        unlabelled domain is always 'shuffled': to balance by hidden labels would be to read them.

    Raises:
      UsageError: no domain is labelled, a name is both, a batch size is missing, or paired domains differ in size.
    """
    hidden = dict(unlabelled or {})
    if not labelled:
        raise UsageError('make_domain_batches needs at least one labelled domain')
    if common := set(labelled) & set(hidden):
        raise UsageError(
            f'domain {sorted(common)[0]!r} is both labelled and unlabelled; give the shown part another name'
        )
    everything = {**labelled, **{name: Unlabelled(source, fields) for name, source in hidden.items()}}
    sizes = dict(batch_size) if isinstance(batch_size, Mapping) else dict.fromkeys(everything, batch_size)
    if missing := [name for name in everything if name not in sizes]:
        raise UsageError(f'batch_size has no entry for the domain {missing[0]!r}; it has {", ".join(sizes) or "none"}')
    lengths = {len(source) for source in everything.values()}
    if paired and (len(lengths) > 1 or len({sizes[name] for name in everything}) > 1):
        counts = ', '.join(f'{name}: {len(source)}' for name, source in everything.items())
        raise UsageError(f'paired domains hold the same examples in order, and these have {counts}; show no target')
    threads, workers = options.pop('threads', 2), options.pop('workers', 0)
    parts = {}
    for name, source in everything.items():
        own: dict[str, Any] = {**options, **({'sampler': 'shuffled'} if paired or name in hidden else {})}
        own_seed = derive_seed(seed, '' if paired else name)
        parts[name] = Batches(source, sizes[name], own_seed, transforms, **own)
    return Zipped(parts, threads=threads, workers=workers)

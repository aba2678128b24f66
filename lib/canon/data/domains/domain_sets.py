"""Sets of domains: sources of the same classes by the name of their domain, and sets by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from canon import named
from canon.data.pipeline import source as sources
from canon.data.pipeline.loading import load_source
from canon.data.pipeline.source import Source
from canon.errors import UsageError


class Domains(Mapping):
    """Sources by the name of their domain, which share their classes.

    Attributes:
      num_classes: of every domain.
      class_names: of every domain; None if no domain states them.
    """

    def __init__(self, domains: Mapping[str, Source], partial: bool = False):
        """
        Args:
          domains: {domain: source}, in the order in which batches and figures have them.
          partial: whether a domain may lack examples of some classes, as in partial adaptation.

        Raises:
          UsageError: there is no domain, a domain has other classes than the first one, or lacks examples of a class.
        """
        if not domains:
            raise UsageError('a set of domains needs at least one domain')
        self._domains = dict(domains)
        self.class_names = _join_class_names(self._domains)
        self.num_classes = len(self.class_names) if self.class_names else _count_classes(self._domains)
        if not partial:
            _check_labels(self._domains, self.num_classes, self.class_names)

    def __getitem__(self, name: str) -> Source:
        if name not in self._domains:
            raise UsageError(f'no domain is called {name!r}{named.suggest(name, self._domains)}')
        return self._domains[name]

    def __contains__(self, name: object) -> bool:
        return name in self._domains

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    def __repr__(self) -> str:
        sizes = ', '.join(f'{name}: {len(source)}' for name, source in self._domains.items())
        return f'Domains({sizes}; {self.num_classes} classes)'

    def require(self, least: int, purpose: str) -> Domains:
        """Returns the set; raises UsageError if it has fewer than `least` domains, which `purpose` needs."""
        if len(self) < least:
            have = f'has {len(self)}' if len(self) > 1 else 'has one'
            raise UsageError(f'{purpose} needs at least {least} domains, and the set {have}: {", ".join(self)}')
        return self


def _join_class_names(domains: Mapping[str, Source]) -> tuple[str, ...] | None:
    """Returns the class names that the domains state. Raises UsageError, with the difference, if they differ."""
    stated = {name: tuple(s.info.class_names) for name, s in domains.items() if s.info.class_names is not None}
    if not stated:
        return None
    first = next(iter(stated))
    for other, names in stated.items():
        if names == stated[first]:
            continue
        if set(names) == set(stated[first]):
            raise UsageError(f'domains {first!r} and {other!r} have the same classes in another order; sort them')
        only = [sorted(set(a) - set(b)) for a, b in ((stated[first], names), (names, stated[first]))]
        raise UsageError(
            f'domains {first!r} and {other!r} have different classes: only {first!r} has {_show(only[0])},'
            f' only {other!r} has {_show(only[1])}; give both the same class folders or names'
        )
    return stated[first]


def _count_classes(domains: Mapping[str, Source]) -> int:
    """Returns the number of classes that sources state, or the largest label + 1 if none does.

    Raises UsageError if two sources state different numbers.
    """
    stated = {name: source.info.num_classes for name, source in domains.items() if source.info.num_classes is not None}
    for name, count in stated.items():
        first = next(iter(stated))
        if count != stated[first]:
            raise UsageError(f'domain {name!r} has {count} classes, and {first!r} has {stated[first]}')
    if stated:
        return next(iter(stated.values()))
    return 1 + max(int(sources.labels(source).max(initial=-1)) for source in domains.values())


def _check_labels(domains: Mapping[str, Source], num_classes: int, names: tuple[str, ...] | None) -> None:
    """Raises UsageError if a domain has no example of a class: its accuracy there would be undefined."""
    for domain, source in domains.items():
        absent = sorted(set(range(num_classes)) - set(np.unique(sources.labels(source)).tolist()))
        if absent:
            shown = _show([names[y] if names else str(y) for y in absent])
            raise UsageError(
                f'domain {domain!r} has no example of class {shown}; remove the class everywhere, or say partial=True'
            )


def _show(names: list[str]) -> str:
    if not names:
        return 'none more'
    return ', '.join(names[:5]) + (f' and {len(names) - 5} more' if len(names) > 5 else '')


def named_sources(sources: Mapping[str, Mapping[str, Any]], split: str = 'train', partial: bool = False) -> Domains:
    """Reads any sources of images with labels as domains, such as two TFDS sets.

    Args:
      sources: {domain: the data set, as `canon.data.load_source` takes it}, such as
        `dict(mnist=dict(name='mnist'), usps=dict(name='npz', path='usps.npz'))`. A data set may have its own 'split'.
      split: of the data sets that have no split of their own.
      partial: as of `Domains`.

    Raises:
      UsageError: there is no such data set, or as in `Domains`.
    """
    read = {}
    for domain, spec in named.to_plain(sources).items():
        if not isinstance(spec, Mapping) or 'name' not in spec:
            raise UsageError(f"sources.{domain} must be a mapping with the 'name' of a data set, not {spec!r}")
        read[domain] = load_source(**{'split': split, **spec})
    return Domains(read, partial)


DOMAIN_SETS = named.Catalogue(
    'set of domains',
    ('canon.data.domains',),
    lambda function: named.get_return_type(function) is Domains and named.accepts(function, 'split'),
)


def load_domains(name: str, split: str = 'train', **kwargs: Any) -> Domains:
    """Loads one split of the set of domains `name`.

    A name is that of a public function of `canon.data.domains` that takes `split` and returns `Domains`:
    'digit_styles', 'rotated_digits', 'coloured_digits' (embedded), 'domain_folder', 'domain_lists' (of files),
    'named_sources' (any data sets). 'package.module:function' is such a function of any other module.

    Args:
      name: the set.
      split: of all domains.
      kwargs: further arguments of the function.

    Raises:
      UsageError: there is no such set, split or argument.
    """
    return named.call(DOMAIN_SETS.find(name, 'data.name'), {'split': split, **kwargs}, f'data {name!r}')

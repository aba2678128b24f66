"""Sequences by number, and data sets of sequences by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from canon import named
from canon.data.pipeline import splits
from canon.data.pipeline.source import Info
from canon.data.text import text_files
from canon.data.tracking.tables import TrackSequence
from canon.errors import UsageError

T = TypeVar('T')


class TrackSequences:
    """A data set of sequences; each is read, or made, when it is asked for."""

    def __init__(self, name: str, split: str, makers: Sequence[Callable[[], TrackSequence]]):
        """
        Args:
          name: of the data set.
          split: of its split.
          makers: one function per sequence.
        """
        self.makers, self.info = list(makers), Info(name, split, total=len(makers))

    def __len__(self) -> int:
        return len(self.makers)

    def __getitem__(self, index: int) -> TrackSequence:
        return self.makers[index]()

    def __iter__(self) -> Iterator[TrackSequence]:
        return (make() for make in self.makers)

    def __repr__(self) -> str:
        return f'TrackSequences({self.info.name}, {self.info.split}, {len(self)} sequences)'


SEQUENCE_SETS = named.Catalogue(
    'tracking data set',
    ('canon.data.tracking',),
    lambda function: named.get_return_type(function) is TrackSequences and named.accepts(function, 'split'),
)


def load_sequences(name: str, split: str = 'train', **kwargs: Any) -> TrackSequences:
    """Loads one split of the tracking data set `name`.

    A name is that of a public function of `canon.data.tracking` that takes `split` and returns `TrackSequences`:
    'digit_sequences' (embedded), and of files, path=: 'mot_challenge', 'kitti_tracking', 'ua_detrac', 'track_csv'.
    'package.module:function' is such a function of any other module.

    Args:
      name: the data set.
      split: may be sliced, 'train[:4]'.
      kwargs: further arguments of the function.

    Raises:
      UsageError: there is no such set, split or argument.
    """
    return named.call(SEQUENCE_SETS.find(name), {'split': split, **kwargs}, f'data {name!r}')


def list_sequences(
    path: str | Path, split: str, name: str, kind: str, is_sequence: Callable[[Path], bool]
) -> list[Path]:
    """Lists what lies in a folder of sequences, sorted by name: the folder `split` of `path`, or `path` itself.

    Args:
      path: of the data set.
      split: may be sliced.
      name: of the data set, for messages.
      kind: what a sequence is, for messages.
      is_sequence: tells sequences from other files and folders.

    Raises:
      UsageError: there is no such folder, or no sequence in it.
    """
    folder = enter_split(path, split, name)
    return select_sequences(sorted(p for p in folder.iterdir() if is_sequence(p)), split, name, kind, folder)


def enter_split(path: str | Path, split: str, name: str) -> Path:
    """Returns the folder of a split: the one of its name in `path`, or `path` itself if it has none.

    Raises UsageError, in the name of the data set `name`, if there is no such folder.
    """
    root = text_files.expand_path(path)
    base = splits.parse_split(split)[0]
    folder = root / base if (root / base).is_dir() else root
    if not folder.is_dir():
        raise UsageError(f'{name}: there is no folder {folder}')
    return folder


def select_sequences(sequences: Sequence[T], split: str, name: str, kind: str, folder: Path) -> list[T]:
    """Returns the slice of the sequences of a folder; arguments and errors are those of `list_sequences`."""
    if not sequences:
        raise UsageError(f'{name}: {folder} has no sequences ({kind}); give the folder that holds them')
    _, first, last = splits.parse_split(split)
    chosen = list(sequences[splits.to_slice(first, last, len(sequences))])
    if not chosen:
        raise UsageError(f'{name}: split={split!r} selects none of the {len(sequences)} sequences of {folder}')
    return chosen

"""Proposals of boxes for the images of a source: computed once by several processes, kept in a file, found by content.

    proposer = make_proposer('selective_search', strategy='fast', width=500)
    proposals = compute_proposals(source, 'voc_train.proposals.npz', proposer, workers=4)
    source = WithProposals(source, proposals)  # examples have 'proposals', float32 [P, 4]

`canon.data.transforms` move the field 'proposals' along with the image, and `pad_proposals` gives it a fixed length.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import multiprocessing
import os
import struct
import zipfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from canon import named
from canon.data.detection.region_batches import find_ignored
from canon.data.detection.selective_search import selective_search
from canon.data.pipeline.source import Example, Source
from canon.data.pipeline.workers import prepare_worker, signals_held
from canon.errors import CanonError, UsageError, first_line
from canon.progress import make_bar

_FORMAT = 1  # of the file; a change of an algorithm that changes boxes raises it, too
_DIGEST = 16  # bytes
_PROBES = 8  # images of a source that are compared with a complete file before it is trusted

Report = Callable[[int, int], None]


def sliding_windows(
    image: np.ndarray,
    sides: Sequence[named.Positive] = (32.0, 64.0, 128.0, 256.0),
    aspect_ratios: Sequence[named.Positive] = (0.5, 1.0, 2.0),
    stride: named.Positive = 0.25,
    max_boxes: named.Count = 2000,
    seed: Annotated[int, named.Range(0)] = 0,
) -> np.ndarray:
    """Proposes windows on regular grids, the oldest of all proposals.

    The windows of one shape are `stride` times their own width and height apart, and those of the last row and column
    end at the border. They are in random order, so that any number of them covers all shapes and places alike.

    Args:
      image: [H, W, ...], of which only the size counts.
      sides: roots of the areas of the windows, in pixels. Shapes that are larger than the image are clipped to it.
      aspect_ratios: heights divided by widths.
      stride: as a share of the window.
      max_boxes: the largest number of boxes.
      seed: of the order.

    Returns:
      float32 [P, 4], without duplicates.
    """
    height, width = np.shape(image)[:2]
    boxes = []
    for side in sides:
        for ratio in aspect_ratios:
            w, h = min(side / ratio**0.5, width), min(side * ratio**0.5, height)
            columns = _place_windows(width, w, stride * w)
            rows = _place_windows(height, h, stride * h)
            x, y = (values.ravel() for values in np.meshgrid(columns, rows))
            boxes.append(np.stack([x, y, x + w, y + h], 1))
    unique = np.unique(np.concatenate(boxes).astype(np.float32), axis=0)
    return np.random.default_rng(seed).permutation(unique)[:max_boxes]


def _place_windows(length: int, window: float, stride: float) -> np.ndarray:
    """Returns where windows begin on an axis: `stride` apart, the last one at the end."""
    room = length - window
    return np.append(np.arange(0, room, stride), room)


PROPOSERS: Mapping[str, Callable[..., np.ndarray]] = {
    'selective_search': selective_search,
    'sliding_windows': sliding_windows,
}


class Proposer(NamedTuple):
    """A function of one image that returns boxes, and all of its arguments."""

    name: str
    arguments: dict[str, Any]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns float32 [P, 4]; P may be 0."""
        return np.asarray(PROPOSERS[self.name](image, **self.arguments), np.float32).reshape(-1, 4)

    def describe(self) -> str:
        """Returns the settings as JSON, which files are compared by."""
        return json.dumps({'proposer': self.name, 'format': _FORMAT, **self.arguments}, sort_keys=True)


def make_proposer(name: str = 'selective_search', where: str = 'proposals', **arguments: Any) -> Proposer:
    """Makes a proposer after checking its arguments; what is not given has the default.

    Args:
      name: 'selective_search' or 'sliding_windows'.
      where: the section of the config, for errors.
      **arguments: of the function of that name.

    Raises:
      UsageError: there is no such proposer or argument, or a value is out of range.
    """
    if name not in PROPOSERS:
        raise UsageError(f'{where}.name={name!r} is unknown{named.suggest(name, PROPOSERS)}')
    function = PROPOSERS[name]
    probe = {'image': np.zeros((8, 8, 3), np.uint8), **arguments}
    if isinstance(width := probe.get('width'), int) and width > 0:
        probe['width'] = min(width, 8)  # a search of 500x500 pixels would take seconds
    # Called once on a small image: whatever the function refuses is refused before an hour of work begins.
    named.call(function, probe, where)
    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.name != 'image'}
    return Proposer(name, named.to_plain({**defaults, **arguments}))


class ProposalSet:
    """The proposals of a set of images, found by the content of an image.

    Attributes:
      settings: JSON, as `Proposer.describe` gives it.
      digests: of the images, bytes.
      boxes: float32 [T, 4], of all images one after the other.
      starts: int64 [n + 1]; image i has the boxes starts[i] to starts[i + 1].
    """

    def __init__(self, settings: str, digests: Sequence[bytes], counts: Sequence[int], boxes: np.ndarray):
        """
        Args:
          settings: of the proposer.
          digests: of n images.
          counts: boxes of each.
          boxes: float32 [sum of counts, 4].
        """
        self.settings, self.digests, self.boxes = settings, tuple(digests), boxes
        self.starts = np.cumsum([0, *counts], dtype=np.int64)
        self._rows = {digest: row for row, digest in enumerate(self.digests)}

    def __len__(self) -> int:
        return len(self.digests)

    def __contains__(self, image: np.ndarray) -> bool:
        return digest_image(image) in self._rows

    def find(self, image: np.ndarray) -> np.ndarray:
        """Returns the proposals of an image, float32 [P, 4] in order of rank. Raises KeyError if it is not there."""
        row = self._rows[digest_image(image)]
        return self.boxes[self.starts[row] : self.starts[row + 1]]

    def __repr__(self) -> str:
        return f'ProposalSet({len(self)} images, {len(self.boxes)} boxes)'


class WithProposals:
    """A source whose examples have `proposals` too, float32 [P, 4] in order of rank; P may be 0."""

    def __init__(self, source: Source, proposals: ProposalSet, most: int | None = None, field: str = 'image'):
        """
        Args:
          source: images, decoded.
          proposals: of these images and perhaps of others.
          most: proposals per image, the first in rank; all if None.
          field: of the image.
        """
        self.source, self.info, self.proposals, self.most, self.field = source, source.info, proposals, most, field

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        """Raises CanonError for an image that has not been searched."""
        example = self.source[index]
        try:
            boxes = self.proposals.find(example[self.field])
        except KeyError:
            raise CanonError(
                f'example {index} of {self.source!r} has no entry in its file of proposals; compute them before any '
                'transform of the pixels, and for the same images'
            ) from None
        return {**example, 'proposals': boxes[: self.most].copy()}

    def __getattr__(self, name: str) -> Any:
        # Names, ids and sizes of images are those of the source; a copy that is being made has no source yet.
        if name.startswith('__') or name in ('source', 'in_memory'):
            raise AttributeError(name)
        return getattr(self.source, name)

    def __repr__(self) -> str:
        return f'WithProposals({self.source!r}, {self.proposals!r})'


def digest_image(image: np.ndarray) -> bytes:
    """Returns 16 bytes that tell images of other pixels or shapes apart. Raises UsageError unless it is an array."""
    if not isinstance(image, np.ndarray):
        raise UsageError('proposals are found by the pixels of an image: read it decoded (data.source.decode=True)')
    digest = hashlib.blake2b(repr((image.shape, image.dtype.str)).encode(), digest_size=_DIGEST)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def compute_proposals(
    source: Source,
    path: str | os.PathLike,
    proposer: Proposer,
    workers: int = 0,
    report: Report | None = None,
    journal: str | os.PathLike | None = None,
    field: str = 'image',
) -> ProposalSet:
    """Computes the proposals of all images of a source, or reads them from a file that has them.

    The finished images of an interrupted computation are in a journal, and the next one continues from there. A
    complete file that lacks images of the source is completed. Equal images are searched once.

    Args:
      source: images, decoded; its transforms are not applied yet.
      path: of the file, .npz; its folder is made.
      proposer: of `make_proposer`.
      workers: processes; 0 computes in this one.
      report: (done, total), called after every image in place of a progress bar; it may raise to interrupt.
      journal: the file of what is done; `<path>.part` if None, which is removed at the end. A file that is given stays:
        whoever moves the result removes it after that, so that an interruption in between loses nothing.
      field: of the image.

    Raises:
      UsageError: the file was made with other settings, or is not one of proposals.
      CanonError: a process has been killed; the journal has what was done.
    """
    path = Path(path)
    if path.exists():
        complete = read_proposals(path, proposer)
        probes = np.unique(np.linspace(0, len(source) - 1, _PROBES).astype(int)).tolist() if len(source) else []
        # Reading all images of a set takes minutes. A file of as many images that has these is taken for theirs; a
        # missing one is still found out when it is read.
        if len(complete) >= len(source) and all(source[i][field] in complete for i in probes):
            return complete
    else:
        complete = ProposalSet(proposer.describe(), (), (), np.zeros((0, 4), np.float32))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(journal or path.with_name(path.name + '.part'))
    with _Journal(part, proposer.describe()) as entries:
        known = set(complete.digests) | set(entries.entries)
        bar = make_bar(len(source), path.name, 'image', quiet=report is not None)
        # Closed here and not by the garbage collector: an interruption ends the processes, not the last image.
        with bar, contextlib.closing(_search(source, proposer, known, workers, field)) as searched:
            for done, (digest, boxes) in enumerate(searched, 1):
                if boxes is not None:
                    entries.append(digest, boxes)
                bar.update()
                if report is not None:
                    report(done, len(source))
        merged = {
            d: complete.boxes[complete.starts[i] : complete.starts[i + 1]] for i, d in enumerate(complete.digests)
        }
        merged |= entries.entries
        # Sorted: the file does not depend on the order in which images were finished.
        digests = sorted(merged)
        boxes = np.concatenate([np.zeros((0, 4), np.float32), *(merged[digest] for digest in digests)])
        result = ProposalSet(proposer.describe(), digests, [len(merged[digest]) for digest in digests], boxes)
        write_proposals(path, result)
        if journal is None:
            entries.remove()
    return result


def read_proposals(path: str | os.PathLike, proposer: Proposer | None = None) -> ProposalSet:
    """Reads a file of `compute_proposals`.

    Raises UsageError if it is missing, is something else, or was made with other settings than those of `proposer`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            settings, digests = str(file['settings']), file['digests']
            result = ProposalSet(settings, [row.tobytes() for row in digests], file['counts'].tolist(), file['boxes'])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f'{path} is not a file of proposals ({first_line(error)}); remove it') from error
    if proposer is not None:
        _check_settings(path, settings, proposer.describe())
    return result


def pair_objects(source: Source, proposals: ProposalSet) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields what `canon.metrics.detection.measure_proposals` takes of each image: proposals, boxes and labels.

    Difficult objects and crowds are left out, as in `canon.tasks.detection.proposal_evaluation`.
    """
    for i in range(len(source)):
        example = source[i]
        counted = ~find_ignored(example)
        boxes, labels = (np.asarray(example[name])[counted] for name in ('boxes', 'labels'))
        yield proposals.find(example['image']), boxes, labels


def write_proposals(path: Path, proposals: ProposalSet) -> None:
    """Writes a file that `read_proposals` reads; it is complete or absent."""
    digests = np.frombuffer(b''.join(proposals.digests), np.uint8).reshape(-1, _DIGEST)
    part = path.with_name(f'.{path.name}.{os.getpid()}')
    with open(part, 'wb') as file:
        np.savez(
            file,
            settings=np.array(proposals.settings),
            digests=digests,
            counts=np.diff(proposals.starts),
            boxes=proposals.boxes,
        )
    os.replace(part, path)  # complete or absent


def _check_settings(path: str | os.PathLike, stored: str, expected: str) -> None:
    if stored == expected:
        return
    old, new = json.loads(stored), json.loads(expected)
    differing = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    shown = ', '.join(f'{key}={old.get(key)!r} there and {new.get(key)!r} here' for key in differing[:3])
    raise UsageError(f'{path} was made with other settings ({shown}); remove it, or give another path')


class _Journal:
    """The images that an unfinished computation has done, appended to a file one by one."""

    def __init__(self, path: Path, settings: str):
        self.path, self.entries = path, {}
        head = settings.encode()
        self._head = struct.pack('<I', len(head)) + head
        self._settings = settings

    def __enter__(self) -> _Journal:
        self._file = open(self.path, 'a+b')
        try:
            self._resume()
        except BaseException:
            self._file.close()
            raise
        return self

    def _resume(self) -> None:
        """Reads the entries that there are."""
        _lock(self._file, self.path)
        self._file.seek(0)
        content = self._file.read()
        size = struct.unpack_from('<I', content)[0] if len(content) >= 4 else 0
        stored = content[4 : 4 + size]
        end = 0
        if size and len(stored) == size:
            try:
                json.loads(stored)
            except ValueError:
                raise UsageError(f'{self.path} is not a file of proposals; remove it') from None
            _check_settings(self.path, stored.decode(), self._settings)
            end = self._read(content, 4 + size)
        # A kill may have cut the last entry off.
        self._file.truncate(end)
        if not end:
            self._file.write(self._head)

    def _read(self, content: bytes, place: int) -> int:
        """Reads whole entries and returns where they end."""
        while place + _DIGEST + 4 <= len(content):
            digest = content[place : place + _DIGEST]
            (count,) = struct.unpack_from('<I', content, place + _DIGEST)
            first = place + _DIGEST + 4
            if first + 16 * count > len(content):
                break
            self.entries[digest] = np.frombuffer(content, '<f4', 4 * count, first).reshape(-1, 4)
            place = first + 16 * count
        return place

    def append(self, digest: bytes, boxes: np.ndarray) -> None:
        self.entries[digest] = boxes
        self._file.write(digest + struct.pack('<I', len(boxes)) + np.ascontiguousarray(boxes, '<f4').tobytes())
        self._file.flush()

    def remove(self) -> None:
        self.path.unlink()

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _lock(file: Any, path: Path) -> None:
    """Holds a file for this process until it is closed. Raises UsageError if another one has it."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UsageError(f'{path}: another process is computing these proposals; wait for it') from None


def _search(
    source: Source, proposer: Proposer, known: set[bytes], workers: int, field: str
) -> Generator[tuple[bytes, np.ndarray | None]]:
    """Yields (digest, boxes) of every image, with None for the boxes of a known one."""
    searcher = _Searcher(source, proposer, frozenset(known), field)
    if not workers:
        yield from map(searcher, range(len(source)))
        return
    # Not forked: JAX and OpenCV have threads.
    context = multiprocessing.get_context('spawn')
    executor = ProcessPoolExecutor(workers, context, _prepare_searcher, (searcher,))
    others, own = set(multiprocessing.active_children()), set()
    try:
        with signals_held():
            try:
                results = executor.map(_search_one, range(len(source)))
            finally:
                own = set(multiprocessing.active_children()) - others
        yield from results
    except BrokenProcessPool:
        # The remaining ones ignore the executor's SIGTERM, as readers do, and it would wait for them for ever.
        for process in own:
            process.kill()
        raise CanonError(
            f'{source!r}: a process that searches its images was killed, perhaps for want of memory; the same command '
            f'continues where it was, with fewer workers than {workers} if need be'
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


class _Searcher:
    """Searches image i of a source unless it is known."""

    def __init__(self, source: Source, proposer: Proposer, known: frozenset[bytes], field: str):
        self.source, self.proposer, self.known, self.field = source, proposer, set(known), field

    def __call__(self, index: int) -> tuple[bytes, np.ndarray | None]:
        image = self.source[index][self.field]
        digest = digest_image(image)
        if digest in self.known:
            return digest, None
        self.known.add(digest)
        return digest, self.proposer(image)


_searcher: _Searcher | None = None  # of a worker process


def _prepare_searcher(searcher: _Searcher) -> None:
    global _searcher
    prepare_worker(0, 1)
    _searcher = searcher


def _search_one(index: int) -> tuple[bytes, np.ndarray | None]:
    assert _searcher is not None
    return _searcher(index)

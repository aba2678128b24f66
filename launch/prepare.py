"""Prepares a TFDS data set as array_record, which training then reads without TensorFlow.

    ./launch.sh prepare mnist
    ./launch.sh prepare voc/2007 --data_dir=~/data

NAME is 'digits' or any TFDS set, with its config where it has several: mnist, cifar10, voc/2007. Most stock builders
need TensorFlow for this (extra `tf`); `./launch.sh prepare` runs it in an environment of its own that has it.
A set that exists in another format is prepared again, and its old folder is renamed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from canon.errors import CanonError, UsageError, first_line
from canon.named import suggest
from launch import tools


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('prepare', __doc__)
    parser.add_argument('name', metavar='NAME', help='digits, or a TFDS set: mnist, voc/2007')
    parser.add_argument('--data_dir', type=Path, help='where data sets live (default: ~/tensorflow_datasets)')
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the scratch folder goes too
    folder, fresh = prepare(arguments.name, arguments.data_dir)
    print(f'{arguments.name} is {"now" if fresh else "already"} in {folder}')
    return 0


def prepare(name: str, data_dir: Path | None = None) -> tuple[Path, bool]:
    """Returns the folder of a data set in array_record, and whether it was made just now.

    Raises UsageError for a name that TFDS does not know, CanonError if TensorFlow is missing or the builder fails.
    """
    from canon.data.images import digits
    from canon.data.pipeline import tfds

    root = tfds.resolve_dir(data_dir)
    if name in ('folder', 'npz'):
        raise UsageError(f'{name!r} needs no preparation: give the path of your own files as data.path')
    existing = _find(name, root)
    if existing and _read_format(existing) == 'array_record':
        return existing, False
    # The embedded set needs neither TFDS's catalogue nor TensorFlow.
    if name == 'digits':
        return digits.prepare(root), True
    _check_name(name)
    _check_tensorflow(name)
    return _build(name, root), True


def _find(name: str, root: Path) -> Path | None:
    from canon.data.pipeline import tfds

    try:
        return tfds.find_folder(name, root)
    except UsageError:
        return None


def _read_format(folder: Path) -> str:
    try:
        return json.loads((folder / 'dataset_info.json').read_text()).get('fileFormat', 'tfrecord')
    except (ValueError, AttributeError, OSError) as error:
        raise CanonError(f'{folder / "dataset_info.json"} is damaged ({first_line(error)}); delete {folder}') from error


def _check_name(name: str) -> None:
    import tensorflow_datasets as tfds  # takes seconds, and most calls do not get here

    base = name.partition('/')[0].partition(':')[0]
    names = tfds.list_builders(with_community_datasets=False)
    if base not in names:
        close = suggest(base, names)
        raise UsageError(
            f'TFDS knows no data set {base!r}{close if "did you mean" in close else "; its catalogue lists them"}'
        )


def _check_tensorflow(name: str) -> None:
    if importlib.util.find_spec('tensorflow') is None:
        raise CanonError(
            f'preparing {name!r} needs TensorFlow, once, and this environment does not have it:'
            f' `./launch.sh prepare {name}` makes one that does (or pip install -e .[tf])'
        )


def _build(name: str, root: Path) -> Path:
    """Prepares in a scratch folder and moves the result into its place, so that no partial data set is ever read."""
    import tensorflow_datasets as tfds

    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix='.preparing-', dir=root))
    except OSError as error:
        raise CanonError(f'cannot write to {root}: {error.strerror}; choose another --data_dir') from error
    tfds.display_progress_bar(sys.stderr.isatty())  # bars of TFDS would fill a pipe or a file
    try:
        builder = tfds.builder(name, data_dir=scratch, file_format='array_record')
        builder.download_and_prepare(download_dir=root / 'downloads')  # ty: ignore[missing-argument]
        return _move(Path(builder.data_dir), root / Path(builder.data_dir).relative_to(scratch))
    except Exception as error:  # downloads, checksums, missing manual files, disks: builders raise anything
        raise CanonError(f'{name} could not be prepared: {type(error).__name__}: {error}') from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _move(prepared: Path, folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The old format is kept under another name: TensorFlow users of the same folder may still read it.
    if folder.exists() and _read_format(folder) != 'array_record':
        os.rename(folder, folder.with_name(f'{folder.name}.{_read_format(folder)}'))
    try:
        os.rename(prepared, folder)
    except OSError:
        if not folder.exists():  # if it does, another process was first, with the same content
            raise
    return folder


if __name__ == '__main__':
    tools.run(main)

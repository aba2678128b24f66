"""The embedded data set: the 1,797 handwritten digits of scikit-learn, as a TFDS builder that needs no TensorFlow."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from canon.data.pipeline import tfds as tfds_sets
from canon.data.pipeline.source import Source
from canon.errors import CanonError

NUM_TEST = 360


class Digits(tfds.core.GeneratorBasedBuilder):
    """8x8 grey digits of 43 writers: the test part of Optdigits (Alpaydin and Kaynak, UCI, 1998).

    image: uint8 [8, 8, 1], the 17 levels 0..16 spread over 0..255. label: 0..9.
    Splits: train 1,437, test 360, drawn once at random by class. Scikit-learn's copy does not say who wrote which
    digit, so both splits have digits of all writers; UCI's own split, by writer, is harder.
    """

    VERSION = tfds.core.Version('1.0.0')

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                'image': tfds.features.Image(shape=(8, 8, 1), encoding_format='png'),
                'label': tfds.features.ClassLabel(num_classes=10),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description=str(type(self).__doc__),
            features=features,
            homepage='https://archive.ics.uci.edu/dataset/80',
            supervised_keys=('image', 'label'),
        )

    def _split_generators(self, dl_manager):
        images, labels = arrays()
        test = held_out(labels)
        train = np.setdiff1d(np.arange(len(labels)), test)
        return {name: _examples(images, labels, ids) for name, ids in (('train', train), ('test', test))}

    def _generate_examples(self):
        raise NotImplementedError('the generators are made by _split_generators')


def digits(split: str = 'train', data_dir: str | os.PathLike | None = None, decode: bool = True) -> Source:
    """Reads scikit-learn's handwritten digits (`Digits`), written as a TFDS set on first use.

    Args:
      split: 'train', 'test', or a slice of them.
      data_dir: the folder of TFDS sets; `~/tensorflow_datasets` if None.
      decode: must be true: these images are grey.
    """
    directory = tfds_sets.resolve_dir(data_dir)
    prepare(directory)
    return tfds_sets.open_prepared('digits', split, directory, decode)


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [1797, 8, 8, 1] in 0..255 and labels [1797], in scikit-learn's order."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # 16 levels above black; 255 / 16 spreads them over the range of other images.
    return np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None], bunch.target


def held_out(labels: np.ndarray) -> np.ndarray:
    """Returns the indices of the test split: every fifth of the examples, shuffled and then sorted by class."""
    draws = np.random.RandomState(0).random_sample(len(labels))  # numpy guarantees this stream for ever
    return np.sort(np.lexsort((draws, labels))[::5])


def prepare(data_dir: Path) -> Path:
    """Writes the data set as array_record, unless it exists; returns its folder.

    Any number of processes may do so at once. Raises CanonError if `data_dir` cannot be written.
    """
    folder = data_dir / 'digits' / str(Digits.VERSION)
    if folder.exists():
        return folder
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        # In the same file system, so that the finished folder can be renamed, which is atomic.
        scratch = tempfile.mkdtemp(prefix='.digits-', dir=data_dir)
        try:
            _write(scratch)
            _move(Path(scratch) / 'digits' / str(Digits.VERSION), folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise CanonError(
            f'cannot write the digits to {data_dir}: {error.strerror or error}; choose another data_dir'
        ) from error
    return folder


def _write(data_dir: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # TFDS prints progress
        Digits(data_dir=data_dir, file_format='array_record').download_and_prepare()


def _move(source: Path, folder: Path) -> None:
    """Renames a finished folder, atomically; a process that comes second keeps the same content of the first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(source, folder)
    except OSError:
        if not folder.exists():
            raise


def _examples(images, labels, ids):
    for i in ids:
        yield int(i), {'image': Image.fromarray(images[i, ..., 0]), 'label': int(labels[i])}

"""`load`: a data set by name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from canon import named
from canon.data.images import folder
from canon.data.pipeline import arrays, synthetic
from canon.data.pipeline.source import Example, Info, Source
from canon.data.text import digit_lines, word_images
from canon.errors import UsageError

_WITH_OPTIONS = {
    'digit_lines': digit_lines.DigitLines,
    'fake': synthetic.Fake,
    'folder': folder.folder,
    'npz': arrays.npz,
    'words': word_images.words,
}
OWN = ('digits', *_WITH_OPTIONS)
_OWN_FUNCTION = re.compile(r'[\w.]+:[a-zA-Z_]\w*')  # not the version of a TFDS set, 'voc/2007:4.0.0'


class WithInfo:
    """A source whose `info` is given: for what has only `len` and `[i]`."""

    def __init__(self, examples: Any, info: Info):
        self.examples, self.info = examples, info

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def options_of(name: str) -> Callable | None:
    """The function that reads the data set `name`, whose arguments `load` takes; None for TFDS sets and digits."""
    if _OWN_FUNCTION.fullmatch(name):
        return named.import_function(name, 'data.name')
    return _WITH_OPTIONS.get(name)


def load(name: str, split: str = 'train', data_dir: str | os.PathLike | None = None, **kwargs: Any) -> Source:
    """The data set `name`, one split of it.

    name: 'digits' (embedded; prepared on first use), 'folder' (path=, one folder of images a class), 'npz' (path=),
    'fake' (random images), 'digit_lines' (embedded: lines of text), 'words' (path=, images with their texts), or a TFDS
    set that is prepared in array_record: 'mnist', 'voc/2007', 'voc/2007:4.0.0'. 'package.module:function' is your own:
    `function(split=..., **kwargs)` returns anything with `len` and `[i]`, perhaps with an `info`.
    split: may be sliced, 'train[:90%]'. data_dir: of TFDS sets and digits; `~/tensorflow_datasets` if None.
    kwargs: of `folder.folder`, `arrays.npz`, `synthetic.Fake`, `digit_lines.DigitLines` or `word_images.words`; of
    TFDS sets, `decode=False` leaves the field 'image' as in its file (`tfds.Prepared`).

    Raises UsageError for a set, split or argument that does not exist; for a missing set it prints the command that
    prepares it. TensorFlow is never imported.
    """
    if function := options_of(name):
        source = named.call(function, {'split': split, **kwargs}, f'data {name!r}')
        return source if hasattr(source, 'info') else WithInfo(source, Info(name, split))
    decode = kwargs.pop('decode', True)
    if kwargs:
        raise UsageError(f'data {name!r} takes no {next(iter(kwargs))!r}, only split, data_dir and decode')
    from canon.data.pipeline import tfds  # brings tensorflow_datasets: 0.6 s

    directory = Path(data_dir).expanduser() if data_dir else tfds.default_dir()
    if name == 'digits':
        from canon.data.images import digits

        digits.prepare(directory)
    return tfds.read(name, split, directory, decode)

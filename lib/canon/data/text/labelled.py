"""Data sets of images with texts, by name: any source whose examples have 'image' and a text."""

from __future__ import annotations

from typing import Any

import numpy as np

from canon import named
from canon.data.detection.sized_batches import image_sizes
from canon.data.pipeline.chain import Mapped, Transform
from canon.data.pipeline.loading import DATA_SETS, load_source
from canon.data.pipeline.source import Example, Source
from canon.data.text.alphabets import Alphabet
from canon.errors import CanonError, UsageError
from canon.named import Count


def load_labelled(
    name: str, split: str, alphabet: Alphabet, max_length: Count, data_dir: str | None = None, **options: Any
) -> Source:
    """Loads a data set whose examples have 'image', 'label' and 'label_length', the text as class indices.

    A data set function that takes `alphabet` and `max_length` (`digit_lines`, `words`) encodes its texts itself. The
    examples of any other have 'image' and 'text' (str, or bytes in UTF-8), which is encoded here; further fields are
    dropped, since texts cannot be stacked.

    Args:
      name: of the data set, as `canon.data.load_source` takes it.
      split: may be sliced, such as 'train[:90%]'.
      alphabet: the characters of classes 1, 2, ...
      max_length: characters of the longest label.
      data_dir: of TFDS sets.
      options: further arguments of the data set function.

    Raises:
      UsageError: there is no such data set, split or option, or its examples have no image or no text.
    """
    function = DATA_SETS.get(name)
    # Only arguments that are named: a function with **kwargs would pass them on to something unknown.
    arguments = {p.name for p in named.list_parameters(function)} if function else set()
    if 'alphabet' in arguments:
        options['alphabet'] = alphabet
    if 'max_length' in arguments:
        options['max_length'] = max_length
    source = load_source(name, split, data_dir=data_dir, **options)
    fields = source[0]  # a source states its fields only by its examples
    if {'image', 'label', 'label_length'} <= fields.keys():
        return source
    if {'image', 'text'} <= fields.keys():
        return Mapped(source, [encode_text(alphabet, max_length)])
    raise UsageError(
        f"data.name={name!r} has examples of {', '.join(fields)}; text recognition needs 'image' and 'text', or "
        "'image', 'label' and 'label_length'"
    )


def encode_text(alphabet: Alphabet, max_length: Count) -> Transform:
    """Replaces 'text' by 'label' int32 [max_length] and 'label_length' int32, and keeps 'image' besides.

    Raises CanonError, when applied, naming the example whose text cannot be encoded.
    """

    def apply(example, key):
        text = example['text']
        text = text.decode('utf-8') if isinstance(text, bytes) else str(text)
        problem = alphabet.find_problem(text, max_length)
        if problem:
            raise CanonError(f'example {key.id}: the text {text!r} cannot be a label: {problem}')
        return {'image': example['image'], **alphabet.encode(text, max_length)}

    return Transform(apply)


class NumberedSource:
    """A source whose examples have their place in it as 'index', int32, and further numbers."""

    def __init__(self, source: Source, **numbers: int):
        """**numbers: of all examples, by their fields."""
        self.source, self.info = source, source.info
        self.numbers = {name: np.int32(number) for name, number in numbers.items()}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return {**self.source[index], **self.numbers, 'index': np.int32(index)}

    def image_sizes(self) -> np.ndarray:
        """Returns the sizes of the images, [n, 2]."""
        return image_sizes(self.source)

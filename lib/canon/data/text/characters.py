"""Isolated characters as classes of images: handwriting of CASIA, and characters drawn from fonts.

Readers of texts give labels of several characters, from 1 on, for CTC. These sources have what classification takes, a
class 0, 1, ... per image, in the order of an alphabet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from canon import named
from canon.data.pipeline.source import Example, Info, Source
from canon.data.text.alphabets import Alphabet
from canon.data.text.handwriting import casia_characters
from canon.data.text.rendered_words import rendered_words


def casia_classes(path: str, split: str = 'train', characters: str = 'gb2312_level1') -> CharacterClasses:
    """Reads isolated Chinese characters of CASIA-HWDB 1.0 and 1.1 as classes (`handwriting.casia_characters`).

    Args:
      path: the folder with the `.gnt` files.
      split: 'train' or 'test'; may be sliced.
      characters: of the classes, or the name of an alphabet. Other characters are left out.

    Raises:
      UsageError: there are no such files, or none of their characters is among the classes.
      CanonError: a file is truncated.
    """
    alphabet = Alphabet(characters)
    return CharacterClasses(casia_characters(path, split, alphabet), alphabet)


def rendered_characters(
    split: str = 'train',
    num_examples: named.Count = 1 << 20,
    characters: str = 'gb2312_level1',
    count: int | None = None,
    fonts: str | tuple[str, ...] | None = 'chinese',
    stages: Mapping[str, Any] | None = None,
    size: named.Count = 64,
    seed: int = 0,
) -> CharacterClasses:
    """Makes images of single characters from fonts, as classes (`rendered_words`).

    Args:
      split: 'train', 'val' (or 'valid', 'validation') or 'test', which differ in their renderings; may be sliced.
      num_examples: characters of the whole split.
      characters: of the classes, or the name of an alphabet.
      count: of the characters that are used, the first ones; None for all.
      fonts: as of `rendered_words`: a folder, files, or 'chinese' for Song, Kai and Hei of Debian's packages.
      stages: as of `rendered_words`, see `engine.stages`. Characters keep their aspect (`frame='square'`) unless
        `merge_layers` says otherwise.
      size: height and width of the images.
      seed: of the renderings.

    Raises:
      UsageError: no Chinese font is installed; or as in `rendered_words`.
      CanonError: no font has one of the characters.
    """
    alphabet = Alphabet(Alphabet(characters).characters[:count])
    spec = dict(named.to_plain(stages or {}))
    spec['render_text'] = {'underline': 0.0, 'curve': 0.0, **spec.get('render_text', {})}
    spec['merge_layers'] = {'frame': 'square', **spec.get('merge_layers', {})}
    shared: dict[str, Any] = dict(words='characters', cases=('as written',), fonts=fonts, stages=spec, grey=True)
    source = rendered_words(split, num_examples, alphabet, max_length=1, height=size, width=size, seed=seed, **shared)
    return CharacterClasses(source, alphabet)


class CharacterClasses:
    """Images of single characters: 'image' as in the source, 'label' int64 [], the character's place in the alphabet.

    Attributes:
      dropped: {reason: number of characters that were left out}, {} of sources that leave nothing out.
    """

    def __init__(self, source: Source, alphabet: Alphabet):
        """
        Args:
          source: of examples with 'image' and 'label' [L], of one character.
          alphabet: of the classes.
        """
        self.source, self.alphabet = source, alphabet
        self.dropped = getattr(source, 'dropped', {})
        self.info: Info = source.info._replace(num_classes=len(alphabet), class_names=tuple(alphabet.characters))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        example = self.source[index]
        # Class 0 of the source is CTC's blank.
        return {'image': example['image'], 'label': np.int64(example['label'][0]) - 1}

    def __repr__(self) -> str:
        return f'CharacterClasses({self.info.name}, {self.info.split}, {len(self)} of {len(self.alphabet)} classes)'

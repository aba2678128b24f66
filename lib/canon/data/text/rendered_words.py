"""Images of words and lines that make themselves: MJSynth's engine as a data set (Jaderberg et al. 2014)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import cv2

from canon.data.pipeline import keys, splits
from canon.data.pipeline.chain import Transform, apply_chain
from canon.data.pipeline.keys import Key
from canon.data.pipeline.source import Example, Info
from canon.data.text.alphabets import Alphabet
from canon.data.text.engine import lexicon
from canon.data.text.engine.fonts import open_fonts
from canon.data.text.engine.stages import make_stages
from canon.data.text.engine.textures import open_textures
from canon.errors import UsageError
from canon.named import Count, Probability, suggest

# By their places words are drawn; 'valid' and 'validation' are other names of 'val'.
_SPLITS = ('train', 'val', 'validation', 'test', 'valid')
_OUTSIDE = ('refuse', 'filter', 'skip')


def rendered_words(
    split: str = 'train',
    num_examples: Count = 1 << 20,
    alphabet: Alphabet = Alphabet(ignore_case=True),
    max_length: Count = 25,
    words: str | tuple[str, ...] | None = None,
    fonts: str | tuple[str, ...] | None = None,
    textures: str | None = None,
    stages: Mapping[str, Any] | None = None,
    cases: tuple[str, ...] = ('lower', 'capitalised', 'upper'),
    invented: Probability = 0.0,
    numbers: Probability = 0.0,
    strings: Probability = 0.0,
    signs: Probability = 0.0,
    words_per_line: tuple[int, int] = (1, 1),
    outside: str = 'refuse',
    height: Count = 32,
    width: int | None = None,
    grey: bool = False,
    seed: int = 0,
) -> RenderedWords:
    """Makes images of words by the six stages of MJSynth's engine, from fonts, words and textures.

    Word i is a function of (seed, split, i). All splits draw from the same words, in other renderings, as those of
    MJSynth do.

    Args:
      split: 'train', 'val' (or 'valid', 'validation') or 'test'; may be sliced, 'test[:1000]'.
      num_examples: words of the whole split. They are made when they are read, so that millions cost nothing.
      alphabet: the characters of labels.
      max_length: characters of the longest label.
      words: a text file with a word per line, or the words; 'characters' for each character of the alphabet; None for
        the words of CPython's documentation.
      fonts: a folder of fonts, files, names of fonts that matplotlib ships, or 'chinese' for those of Debian; None for
        matplotlib's 21. A word is drawn only in fonts that have all of its characters.
      textures: a folder of photographs for colours and blending; None for images made by noise.
      stages: which stages, with which arguments, see `engine.stages`: `dict(chain=('render_text', 'merge_layers'))`.
        None for all.
      cases: how words are written, each as likely: 'as written', 'lower', 'capitalised', 'upper'.
      invented: share of words that a Markov chain over the characters of the words invents.
      numbers: share of numbers of one to six digits.
      strings: share of texts of 1 to `max_length` random characters.
      signs: share of words with a sign before or after them ('word.', '"word"', '$30'). Labels are without the signs
        that `alphabet` lacks, as those of IIIT5K and SVT are in published results.
      words_per_line: least and most words of an image, one line with spaces between them, which `alphabet` then has.
      outside: what happens to words with characters that are not in `alphabet`, or that no font has. 'refuse' raises an
        error; 'filter' removes those that are not in the alphabet; 'skip' skips such words. The number is logged.
      height: of the images, in pixels.
      width: of the images; None keeps the aspect of each word.
      grey: one channel instead of three.
      seed: of the words; it is not the seed of the run, so that all runs share them.

    Raises:
      UsageError: there is no such split, folder or stage, or no word is left.
      CanonError: a word is refused, or a font cannot be read.

    >>> source = rendered_words('test', words=('canon',), alphabet=Alphabet('acno'), cases=('lower',))
    >>> example = source[0]
    >>> example['image'].shape[0], example['label'][:6].tolist()
    (32, [2, 1, 3, 4, 3, 0])
    """
    if outside not in _OUTSIDE:
        raise UsageError(f'outside={outside!r} must be one of {", ".join(map(repr, _OUTSIDE))}')
    listed, origin = lexicon.read_words(words, alphabet)
    options: dict[str, Any] = dict(cases=cases, invented=invented, numbers=numbers, strings=strings, signs=signs)
    options['words_per_line'] = words_per_line
    # The characters have to be known before fonts can be opened, and fonts before words can be selected.
    characters = lexicon.Lexicon(listed, alphabet, max_length, **options).list_characters()
    opened = open_fonts(fonts, characters | set(''.join(listed)))
    kept = lexicon.select_words(listed, alphabet, max_length, outside, opened, origin)
    texts = lexicon.Lexicon(kept, alphabet, max_length, **options, can_draw=opened.covers)
    shared = dict(fonts=opened, textures=open_textures(textures), height=height, width=width)
    return RenderedWords(split, num_examples, texts, make_stages(stages, shared), grey, seed)


class RenderedWords:
    """The source of `rendered_words`: 'image' uint8 [height, W, 3 or 1], 'label' int32 [max_length], 'label_length'."""

    def __init__(
        self,
        split: str,
        num_examples: int,
        texts: lexicon.Lexicon,
        stages: Iterable[Transform],
        grey: bool = False,
        seed: int = 0,
    ):
        """
        Args:
          split: may be sliced.
          num_examples: of the whole split.
          texts: what is written.
          stages: from 'text' to 'image'.
          grey: one channel instead of three.
          seed: of the words.
        """
        base, first, last = splits.parse_split(split)
        if base not in _SPLITS:
            raise UsageError(f'rendered_words has no split {base!r}{suggest(base, _SPLITS)}')
        if seed < 0:
            raise UsageError(f'rendered_words: seed={seed} must not be negative')
        self.ids = range(num_examples)[splits.to_slice(first, last, num_examples)]
        if not self.ids:
            raise UsageError(f'rendered_words: {split!r} of num_examples={num_examples} has no words')
        self.texts, self.grey = texts, grey
        self.stages = (Transform(self._write, random=True), *stages)
        # A seed of its own: the transforms of a run draw from the streams of its seed, visit and example.
        self._seed = int(keys.stream('rendered words', seed).integers(1 << 63))
        self._split = _SPLITS.index('val' if base in ('valid', 'validation') else base)
        self.info = Info('rendered_words', split, total=num_examples)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:
        # The position in the whole split, so that a word is the same in every slice of it.
        example = apply_chain(self.stages, {}, Key(self._seed, self._split, self.ids[index]))
        if 'image' not in example:
            raise UsageError('the stages of rendered_words make no image; they need render_text and merge_layers')
        image = example['image']
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] if self.grey else image
        return {'image': image, **self.texts.alphabet.encode(example['label'], self.texts.max_length)}

    def _write(self, example: Example, key: Key) -> Example:
        label, text = self.texts.draw_text(keys.borrowed_rng(key))
        return {'text': text, 'label': label}

    def __repr__(self) -> str:
        return f'RenderedWords({self.info.split}, {len(self)} words of {len(self.texts.words)})'

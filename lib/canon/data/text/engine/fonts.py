"""Fonts: which characters each of them can draw, the bitmaps of its glyphs, and its kerning."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from canon.data.text import text_files
from canon.errors import CanonError, UsageError

_SUFFIXES = {'.ttf', '.otf', '.ttc', '.otc', '.pfb'}
# Of the fonts that matplotlib ships, those of letters; the others hold symbols under the codes of letters.
_EMBEDDED = (
    *('DejaVuSans', 'DejaVuSans-Bold', 'DejaVuSans-Oblique', 'DejaVuSans-BoldOblique'),
    *('DejaVuSansMono', 'DejaVuSansMono-Bold', 'DejaVuSansMono-Oblique', 'DejaVuSansMono-BoldOblique'),
    *('DejaVuSerif', 'DejaVuSerif-Bold', 'DejaVuSerif-Italic', 'DejaVuSerif-BoldItalic'),
    *('STIXGeneral', 'STIXGeneralBol', 'STIXGeneralItalic', 'STIXGeneralBolIta'),
    *('cmr10', 'cmb10', 'cmss10', 'cmti10', 'cmtt10'),
)
_PROBE_SIZE = 20  # pixels, at which it is tested whether a glyph is a box or blank
_DEBIAN = Path('/usr/share/fonts/truetype')
_CHINESE = {  # the Debian package of each font: Song, Kai and Hei
    'fonts-arphic-gbsn00lp': 'arphic-gbsn00lp/gbsn00lp.ttf',
    'fonts-arphic-gkai00mp': 'arphic-gkai00mp/gkai00mp.ttf',
    'fonts-wqy-zenhei': 'wqy/wqy-zenhei.ttc',
}


class Glyph(NamedTuple):
    """A drawn character. The pen is at the origin, on the baseline; x points to the right, y down.

    Attributes:
      opacity: uint8 [h, w]; empty for a space.
      left: x of its first column.
      top: y of its first row, usually negative.
      advance: how far the pen moves on, in pixels.
    """

    opacity: np.ndarray
    left: int
    top: int
    advance: float


class Fonts:
    """Font files, and which of some characters each of them can draw."""

    def __init__(self, files: Iterable[str | Path], characters: Iterable[str], origin: str = 'the list of fonts'):
        """Opens every file once.

        Args:
          files: of fonts; of a collection, the first font.
          characters: that will be drawn. A font that has none of them is left out, and counted in a log message.
          origin: of the files, for messages.

        Raises:
          UsageError: there are no files, or none of them has any of the characters.
          CanonError: a file is not a font.
        """
        every = tuple(map(str, files))
        if not every:
            raise UsageError(f'{origin} has no fonts ({", ".join(sorted(_SUFFIXES))})')
        self.origin = origin
        self._rows = {c: i for i, c in enumerate(sorted(set(characters)))}
        # Font by font: thousands do not fit into the cache of open ones.
        covered = np.array([[can_draw(file, c) for c in self._rows] for file in every], bool).reshape(len(every), -1).T
        useful = covered.any(0)
        if not useful.any():
            raise UsageError(f'{origin}: none of its {len(every)} fonts can draw any of {_show(self._rows)}')
        if not useful.all():
            log = logging.getLogger('canon')
            log.warning('%s: %d of %d fonts have no character of the words', origin, (~useful).sum(), len(every))
        self.files = tuple(every[i] for i in np.flatnonzero(useful))
        self.covered = covered[:, useful]  # bool [characters, fonts]

    def __len__(self) -> int:
        return len(self.files)

    def find_covering(self, text: str) -> np.ndarray:
        """Returns the numbers of the fonts that can draw every character of a text, int64 [n], in order.

        None can draw a character that was not among those of the constructor.
        """
        if not all(c in self._rows for c in text):
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.covered[[self._rows[c] for c in set(text)]].all(0))

    def covers(self, text: str) -> bool:
        """Returns whether some font can draw every character of a text."""
        return bool(len(self.find_covering(text)))

    def find_problem(self, text: str) -> str | None:
        """Returns why no font can draw a text, or None if one can."""
        if self.covers(text):
            return None
        missing = [c for c in dict.fromkeys(text) if not self.covers(c)]
        if missing:
            return f'no font of {self.origin} has {missing[0]!r} (U+{ord(missing[0]):04X})'
        return f'no single font of {self.origin} has all of its characters'

    def __repr__(self) -> str:
        return f'Fonts({self.origin}, {len(self)} fonts)'


def open_fonts(path: str | Iterable[str] | None, characters: Iterable[str]) -> Fonts:
    """Opens the fonts of a folder, with its subfolders; without one, the 21 fonts of letters that matplotlib ships.

    Args:
      path: a folder, a font file, the name of one of matplotlib's ('DejaVuSans'), or several of them; None for all of
        matplotlib's; 'chinese' for the fonts of `find_chinese_fonts`.
      characters: that will be drawn.

    Raises:
      UsageError: there is no such folder, or it has no fonts for these characters.
      CanonError: a file is not a font.
    """
    if path is None:
        files = map(_locate_embedded, _EMBEDDED)
        return Fonts([file for file in files if file.is_file()], characters, "matplotlib's fonts")
    if path == 'chinese':
        return Fonts(find_chinese_fonts(), characters, "Debian's Chinese fonts")
    names = [path] if isinstance(path, str) else path
    paths = [_locate_embedded(name) if name in _EMBEDDED else text_files.expand_path(name) for name in names]
    for p in paths:
        if not p.exists():
            raise UsageError(f'there is no folder or font file {p}')
    files = [file for p in paths for file in (_list_fonts(p) if p.is_dir() else [p])]
    return Fonts(files, characters, ', '.join(map(str, paths)))


def _locate_embedded(name: str) -> Path:
    import matplotlib  # 0.2 s

    return Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / f'{name}.ttf'


def find_chinese_fonts() -> list[Path]:
    """Returns the font files of Song, Kai and Hei that Debian's packages install, of which at least one must be there.

    All three have the 3,755 characters of level 1 of GB 2312. Raises UsageError, with the command, if there is none.
    """
    files = [_DEBIAN / file for file in _CHINESE.values()]
    present = [file for file in files if file.is_file()]
    if not present:
        raise UsageError(
            f'no Chinese font is installed: apt-get install {" ".join(_CHINESE)}, or name a folder of fonts'
        )
    return present


def can_draw(file: str, character: str) -> bool:
    """Returns whether a font draws a character as something other than nothing or the box of a missing glyph."""
    coverage = _read_coverage(file)
    if ord(character) not in coverage:
        return False
    if character.isspace():
        return True
    unmapped = _find_unmapped(coverage)
    if unmapped is None:  # a font of last resort, which has a box for every code
        return False
    # Some fonts map a code to an empty glyph, or to a copy of the box, instead of leaving it out.
    glyph, box = (draw_glyph(file, _PROBE_SIZE, c) for c in (character, unmapped))
    return bool(glyph.opacity.any()) and not np.array_equal(glyph.opacity, box.opacity)


@functools.lru_cache(1 << 15)  # the embedded fonts have 1,300 letters and digits
def draw_glyph(file: str, size: int, character: str) -> Glyph:
    """Draws one character of a font whose em is `size` pixels."""
    font = _open_face(file, size)
    x0, y0, x1, y1 = map(int, font.getbbox(character, anchor='ls'))
    image = Image.new('L', (max(x1 - x0, 0), max(y1 - y0, 0)))
    if image.width and image.height:
        ImageDraw.Draw(image).text((-x0, -y0), character, fill=255, font=font, anchor='ls')
    opacity = np.asarray(image, np.uint8)
    opacity.flags.writeable = False  # it is shared by all words
    return Glyph(opacity, x0, y0, font.getlength(character))


@functools.lru_cache(1 << 16)
def get_kerning(file: str, size: int, pair: str) -> float:
    """Returns by how many pixels the second character of a pair moves, mostly to the left (negative).

    It is that of the font's `kern` table; a font that has only the newer GPOS table has no kerning here.
    """
    from matplotlib.ft2font import Kerning

    # Not by Pillow: its basic layout divides the kerning by 64 once too often.
    font = _open_table(file, size)
    first, second = map(font.get_char_index, map(ord, pair))
    return font.get_kerning(first, second, Kerning.UNFITTED) / 64


@functools.lru_cache(512)
def _open_face(file: str, size: int) -> ImageFont.FreeTypeFont:
    try:
        # Raqm is not on every machine, and would place the same glyphs differently.
        return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise CanonError(f'{file} cannot be read as a font ({error}); remove it, or install it again') from error


@functools.lru_cache(2048)
def _read_coverage(file: str) -> frozenset[int]:
    """Returns the code points that the font's table of characters lists."""
    return frozenset(code for code, glyph in _open_table(file, _PROBE_SIZE).get_charmap().items() if glyph)


@functools.lru_cache(256)  # each holds an open file
def _open_table(file: str, size: int):
    """Opens a font by matplotlib, which shows the tables of characters and of kerning that Pillow does not.

    One for each size, since threads that set the size of a common one would read each other's kerning.
    """
    from matplotlib.ft2font import FT2Font

    _open_face(file, _PROBE_SIZE)  # for its message
    try:
        font = FT2Font(file)
        font.set_size(size, 72)
        return font
    except (OSError, RuntimeError) as error:
        raise CanonError(f'{file} cannot be read as a font ({error}); remove it, or install it again') from error


def _find_unmapped(coverage: frozenset[int]) -> str | None:
    # From the private planes, which hardly any font maps.
    return next((chr(code) for code in range(0x10FFFD, 0, -1) if code not in coverage), None)


def _list_fonts(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.rglob('*') if file.suffix.lower() in _SUFFIXES and file.is_file())
    if not files:
        raise UsageError(f'{folder} has no fonts ({", ".join(sorted(_SUFFIXES))})')
    return files


def _show(characters: Iterable[str]) -> str:
    text = ''.join(characters)
    return repr(text if len(text) <= 40 else f'{text[:37]}...')

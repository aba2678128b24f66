"""Translations of programs' messages: gettext's `.mo` catalogues as sentence pairs.

The standard library decodes them, with their charset and their rule for plurals. It cannot list the messages of a
catalogue, so their table is parsed here.
"""

from __future__ import annotations

import gettext
import io
import logging
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from canon import named
from canon.data.text import text_files
from canon.errors import CanonError, UsageError

# The first four bytes of a `.mo` file give its byte order, as the format codes of `struct`.
_MAGIC = {b'\xde\x12\x04\x95': '<', b'\x95\x04\x12\xde': '>'}
# Of printf ('%s', '%(name)d', '%5.2f') and of str.format ('{}', '{name!r}', '{0:>3}').
_PLACEHOLDERS = re.compile(r'%(?:\(\w+\))?[#0+-]*\d*(?:\.\d+)?[a-zA-Z%]|\{\w*(?:[.!:][^{}]*)?\}')
_NAMES = re.compile(r'%\(\w+\)|\{\w+\}|<\w+>')  # in which an underscore does not mark an access key
_PLURAL_COUNT = 2  # the number for which the plural form is read

Pair = tuple[str, str]


def read_messages(file: str | Path) -> Iterator[tuple[str, str, bool]]:
    """Yields (message, translation, whether it has plural forms) of a `.mo` file, in its order, without contexts.

    A message with plural forms gives two: its singular with the form for one, its plural with the form for two. The
    translation of an untranslated message is ''.

    Raises UsageError for a missing file, CanonError for one that is not a catalogue.
    """
    path = text_files.expand_path(file)
    if not path.is_file():
        raise UsageError(f'there is no file {path}')
    data = text_files.read_bytes(path)
    try:
        translations = gettext.GNUTranslations(io.BytesIO(data))
        # The empty key holds the header, which is not a message.
        keys = [key.decode(translations.charset() or 'utf-8') for key in _keys(data)]
        messages = [message for key in keys if key for message in _translate_forms(translations, key)]
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError, struct.error) as error:
        reason = f'{type(error).__name__}: {error}'  # the rule for plurals is a formula in the file, such as n/0
        raise CanonError(f'{path} is not a gettext catalogue ({reason}); compile it again with msgfmt') from error
    yield from messages


def _keys(data: bytes) -> Iterator[bytes]:
    """Yields the original strings: after the header comes a table of (length, offset)."""
    order = _MAGIC[data[:4]]
    _, count, table = struct.unpack_from(f'{order}3I', data, 4)
    for i in range(count):
        length, offset = struct.unpack_from(f'{order}2I', data, table + 8 * i)
        yield data[offset : offset + length]


def _translate_forms(translations: gettext.GNUTranslations, key: str) -> Iterator[tuple[str, str, bool]]:
    singular, _, plural = key.partition('\0')
    text = singular.rpartition('\4')[2]  # the context comes before EOT
    if not plural:
        yield text, translations.gettext(key), False
        return
    yield text, translations.ngettext(singular, plural, 1), True
    yield plural, translations.ngettext(singular, plural, _PLURAL_COUNT), True


def read_pairs(files: Iterable[str | Path], accelerators: str = '', name: str = 'catalogues') -> list[Pair]:
    """Reads the sentence pairs (message, translation) of `.mo` files, each message once, with single spaces.

    Left out, and counted in one warning: messages without translation, those whose translation has other placeholders
    ('%(name)s', '{name}'), and those that occurred before (in another context).

    Args:
      files: `.mo` files.
      accelerators: characters that mark the access key of a menu entry and are removed: '_' in GTK, '&' in Qt and wx.
      name: for messages.

    Raises:
      UsageError: no pair is left.
    """
    pairs: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for file in files:
        for message, translation, plural in read_messages(file):
            source, target = (_normalise(text, accelerators) for text in (message, translation))
            counts['with plural forms'] += plural
            if not source or not target:
                counts['without translation'] += 1
            # A singular may leave its number out: 'one file' for '%d files'.
            elif _placeholders(source) != _placeholders(target) and not plural:
                counts['whose placeholders differ'] += 1
            elif source in pairs:
                counts['that occurred before'] += 1
            else:
                pairs[source] = target
    if not pairs:
        raise UsageError(f'{name} hold no translated messages')
    skipped = ', '.join(f'{n} {what}' for what, n in sorted(counts.items()) if n and what != 'with plural forms')
    if skipped:
        plurals = counts['with plural forms']
        log = logging.getLogger('canon')
        log.warning('%s: %d pairs, %d of plural forms; left out: %s', name, len(pairs), plurals, skipped)
    return list(pairs.items())


def find_installed(package: str, language: str, domain: str | None = None) -> list[Path]:
    """Finds the `.mo` files for `language` ('fr', 'pt_BR') of an installed package, which is not imported.

    domain: the name of one file, without '.mo'. Raises UsageError, with the languages of the package, if it has none.
    """
    try:
        listed = metadata.distribution(package).files or []
    except (metadata.PackageNotFoundError, ValueError):  # ValueError: an empty name
        raise UsageError(
            f'no package {package!r} is installed; `pip install {package}` brings its catalogues'
        ) from None
    catalogues = [file for file in listed if file.suffix == '.mo' and file.parts[-2:-1] == ('LC_MESSAGES',)]
    languages = {file: file.parts[-3] for file in catalogues}
    matching = [f for f in catalogues if languages[f] == language and domain in (None, f.stem)]
    if matching:
        return sorted(Path(str(f.locate())) for f in matching)
    if language in languages.values():
        raise UsageError(f'{package} has no {domain}.mo{named.suggest(str(domain), {f.stem for f in catalogues})}')
    raise UsageError(f'{package} has no catalogue in {language!r}{named.suggest(language, set(languages.values()))}')


def _normalise(text: str, accelerators: str) -> str:
    """Returns the text with single spaces and without the mark of its access key."""
    for mark in accelerators:
        # Underscores within placeholders and tags are matched first, and kept.
        bare = re.sub(rf'({_NAMES.pattern})|{re.escape(mark)}', lambda m: m[1] or '', text)
        text = bare if len(bare) == len(text) - 1 else text  # an entry has one access key
    return ' '.join(text.split())


def _placeholders(text: str) -> list[str]:
    return sorted(set(_PLACEHOLDERS.findall(text)))

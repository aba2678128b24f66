"""Translations that come with programs: gettext's `.mo` catalogues as sentence pairs.

The standard library reads them: their charset, their rule for plurals. It lists no messages, so these are read here.
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

_MAGIC = {b'\xde\x12\x04\x95': '<', b'\x95\x04\x12\xde': '>'}
_PLACEHOLDERS = re.compile(r'%(?:\(\w+\))?[#0+-]*\d*(?:\.\d+)?[a-zA-Z%]|\{\w*(?:[.!:][^{}]*)?\}')
_KEPT = re.compile(r'%\(\w+\)|\{\w+\}|<\w+>')  # where an underline marks no key
_MANY = 2  # of what a plural form speaks

Pair = tuple[str, str]


def messages(file: str | Path) -> Iterator[tuple[str, str, bool]]:
    """(message, translation, whether it has plural forms) of a `.mo` file, in its order, contexts taken off.

    A message with plural forms gives two: its singular with the form for one, its plural with the form for two.
    Untranslated ones are ''. Raises UsageError for a missing file, CanonError for one that is no catalogue.
    """
    path = text_files.named_path(file)
    if not path.is_file():
        raise UsageError(f'there is no file {path}')
    data = text_files.read_bytes(path)
    try:
        translations = gettext.GNUTranslations(io.BytesIO(data))
        keys = [key.decode(translations.charset() or 'utf-8') for key in _keys(data)]
        found = [row for key in keys if key for row in _forms(translations, key)]
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError, struct.error) as error:
        reason = f'{type(error).__name__}: {error}'  # a rule for plurals is a formula of the file's own, such as n/0
        raise CanonError(f'{path} is no catalogue of gettext ({reason}); compile it again by msgfmt') from error
    yield from found


def _keys(data: bytes) -> Iterator[bytes]:
    """The original strings: header, then a table of (length, offset)."""
    order = _MAGIC[data[:4]]
    _, count, table = struct.unpack_from(f'{order}3I', data, 4)
    for i in range(count):
        length, offset = struct.unpack_from(f'{order}2I', data, table + 8 * i)
        yield data[offset : offset + length]


def _forms(translations: gettext.GNUTranslations, key: str) -> Iterator[tuple[str, str, bool]]:
    singular, _, plural = key.partition('\0')
    shown = singular.rpartition('\4')[2]
    if not plural:
        yield shown, translations.gettext(key), False
        return
    yield shown, translations.ngettext(singular, plural, 1), True
    yield plural, translations.ngettext(singular, plural, _MANY), True


def pairs(files: Iterable[str | Path], accelerators: str = '', name: str = 'catalogues') -> list[Pair]:
    """The sentence pairs (message, translation) of `.mo` files, each message once, white space single.

    accelerators: signs that underline the key of a menu and are taken off, '_' of GTK, '&' of Qt and wx.
    Left out, and counted in one warning: messages without translation, those whose translation has other placeholders
    ('%(name)s', '{name}'), and those that stood before (in another context). Raises UsageError for none left.
    """
    found: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for file in files:
        for message, translation, plural in messages(file):
            source, target = (_tidy(text, accelerators) for text in (message, translation))
            counts['with plural forms'] += plural
            if not source or not target:
                counts['without translation'] += 1
            elif _placeholders(source) != _placeholders(target) and not plural:
                counts['whose placeholders differ'] += 1
            elif source in found:
                counts['that stood before'] += 1
            else:
                found[source] = target
    if not found:
        raise UsageError(f'{name} hold no translated messages')
    told = ', '.join(f'{n} {what}' for what, n in sorted(counts.items()) if n and what != 'with plural forms')
    if told:
        plurals = counts['with plural forms']
        log = logging.getLogger('canon')
        log.warning('%s: %d pairs, %d of plural forms; left out: %s', name, len(found), plurals, told)
    return list(found.items())


def installed(package: str, language: str, domain: str | None = None) -> list[Path]:
    """The `.mo` files for `language` ('fr', 'pt_BR') of an installed package, which is not imported.

    domain: the name of one file, without '.mo'. Raises UsageError, with the languages there are, for none.
    """
    try:
        listed = metadata.distribution(package).files or []
    except (metadata.PackageNotFoundError, ValueError):  # ValueError: an empty name
        raise UsageError(
            f'no package {package!r} is installed; `pip install {package}` brings its catalogues'
        ) from None
    found = {file: file.parts[-3] for file in listed if file.suffix == '.mo' and file.parts[-2:-1] == ('LC_MESSAGES',)}
    wanted = [f for f, tongue in found.items() if tongue == language and domain in (None, f.stem)]
    if wanted:
        return sorted(Path(str(f.locate())) for f in wanted)
    if language in found.values():
        raise UsageError(f'{package} has no {domain}.mo{named.suggest(str(domain), {f.stem for f in found})}')
    raise UsageError(f'{package} has no catalogue in {language!r}{named.suggest(language, set(found.values()))}')


def _tidy(text: str, accelerators: str) -> str:
    for sign in accelerators:
        bare = re.sub(rf'({_KEPT.pattern})|{re.escape(sign)}', lambda m: m[1] or '', text)
        text = bare if len(bare) == len(text) - 1 else text  # a key is underlined once
    return ' '.join(text.split())


def _placeholders(text: str) -> list[str]:
    return sorted(set(_PLACEHOLDERS.findall(text)))

"""Shows docstrings, which are plain text, as they are: an extension of Griffe, which reads the sources (mkdocs.yml)."""

from __future__ import annotations

import re
import textwrap

import griffe

DOCTEST = re.compile(r'^( *>>> .*(?:\n *\S.*)*)', re.MULTILINE)  # to the next empty line
ALIAS = re.compile(r"(\w+)='(\w+)'")
FIELD = re.compile(r'^(\w+(?:, \w+)*): +(?=\S)', re.MULTILINE)


class Docstrings(griffe.Extension):
    """Turns docstrings into Markdown as the sources are read."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)
            if isinstance(obj, griffe.Function):
                obj.docstring.value += describe_aliases(obj)


def describe_aliases(function: griffe.Function) -> str:
    """Returns a paragraph with the names of arguments that `accept_names` adds, which the sources do not list."""
    decorators = [str(decorator.value) for decorator in function.decorators]
    pairs = [pair for text in decorators if text.startswith('accept_names(') for pair in ALIAS.findall(text)]
    names = ', '.join(f'`{alias}` for `{name}`' for alias, name in pairs)
    return f'\n\nOther names of arguments, those of optax: {names}.' if pairs else ''


def to_markdown(docstring: str) -> str:
    """Returns a docstring, which is plain text, as Markdown that shows the same text.

    Doctests become blocks of code. Outside of code, `*` is a product unless it surrounds words, and `<` and `[` are
    themselves. Blocks that are indented after an empty line are code already.
    """
    lines, in_code = [], False
    for part in DOCTEST.split(docstring):
        if DOCTEST.fullmatch(part):
            # Not indented, so that it is not read as part of the list of arguments before it.
            lines += ['```pycon', *textwrap.dedent(part).splitlines(), '```']
            continue
        for line in list_fields(part).splitlines():
            in_code = line.startswith('    ') and (in_code or not lines or not lines[-1].strip())
            lines.append(line if in_code else escape(line))
    return '\n'.join(lines)


def list_fields(text: str) -> str:
    """Turns paragraphs of lines `name: text`, which describe the fields of a class, into lists."""
    paragraphs = text.split('\n\n')
    for i, paragraph in enumerate(paragraphs):
        if FIELD.match(paragraph) and len(FIELD.findall(paragraph)) > 1:
            items = (
                FIELD.sub(r'- `\1`: ', line) if FIELD.match(line) else f'  {line.strip()}'
                for line in paragraph.splitlines()
            )
            paragraphs[i] = '\n'.join(items)
    return '\n\n'.join(paragraphs)


def escape(line: str) -> str:
    """Escapes what Markdown would read as markup, outside of `code`."""
    parts = re.split(r'(`[^`]*`|^\s*\*{1,2}\w+:)', line)  # also the name of `**arguments:` in a list of arguments
    for i in range(0, len(parts), 2):
        text = re.sub(r'(?<![\w*])\*(\w[^*]*\w|\w)\*(?![\w*])', '\x00\\1\x00', parts[i])  # emphasis
        text = re.sub(r'([*\[])', r'\\\1', text).replace('\x00', '*')
        parts[i] = text.replace('<', '&lt;')
    return ''.join(parts)

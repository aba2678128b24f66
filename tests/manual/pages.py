"""Reads the pages of the manual: blocks of code, commands, links, and the sizes at which tests run them."""

import re
import shlex
from typing import NamedTuple

FENCE = re.compile(r'^```(\w+)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
SIZES = re.compile(r'<!-- tested with: (.*?) -->', re.DOTALL)
FILE = re.compile(r'# (\w+\.py)\n')


class Block(NamedTuple):
    """A block of code: its language, its text, and the line of the page on which it begins."""

    language: str
    text: str
    line: int


def read_blocks(page, language):
    """Returns the fenced blocks of a language on a page."""
    text = page.read_text()
    matches = [match for match in FENCE.finditer(text) if match[1] == language]
    return [Block(match[1], match[2], text[: match.start()].count('\n') + 2) for match in matches]


def read_sizes(page):
    """Returns {constant: its value in tests} of a page, from its comment `<!-- tested with: STEPS=2, ... -->`."""
    match = SIZES.search(page.read_text())
    return dict(pair.split('=', 1) for pair in re.split(r',\s+(?=[A-Z]+=)', match[1])) if match else {}


def shrink(blocks, sizes):
    """Replaces the values of constants at the beginning of a line, `STEPS = 300`, by those of tests."""
    unused = set(sizes)
    shrunk = []
    for block in blocks:
        text = block.text
        for name, value in sizes.items():
            text, count = re.subn(rf'^{name} = [^#\n]+', f'{name} = {value}', text, flags=re.MULTILINE)
            unused -= {name} if count else set()
        shrunk.append(block._replace(text=text))
    assert not unused, f'no block sets {unused}'
    return shrunk


def run_page(page, folder):
    """Runs the Python blocks of a page in order, in one namespace, and returns it.

    A block that begins with a comment `# name.py` is the file of that name, which is written to the folder instead.
    """
    names = {'__name__': 'page'}
    for block in shrink(read_blocks(page, 'python'), read_sizes(page)):
        file = FILE.match(block.text)
        if file:
            (folder / file[1]).write_text(block.text)
        else:
            # Errors then name the page and its line.
            exec(compile('\n' * (block.line - 1) + block.text, str(page), 'exec'), names)
    return names


def list_commands(page):
    """Returns the commands of the `bash` blocks of a page, continuation lines joined, as lists of words."""
    lines = '\n'.join(block.text for block in read_blocks(page, 'bash')).replace('\\\n', ' ').splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    return [words for words in commands if words]


def read_links(page):
    """Returns the links and pictures of a page that are not of another host, outside of code."""
    text = re.sub(r'`[^`\n]*`', '', re.sub(r'^```.*?^```$', '', page.read_text(), flags=re.MULTILINE | re.DOTALL))
    return [link for link in re.findall(r'\]\(([^)\s]+)\)', text) if '://' not in link]

"""Self-contained HTML pages, with one style for all: `page.html` is the frame, which other templates extend."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jinja2


def render_page(template: Path, **values: Any) -> str:
    """Renders a template that extends `page.html`; values are escaped.

    Args:
      template: the file of the template.
      **values: what it shows; `title` is the title of the page.
    """
    loader = jinja2.FileSystemLoader([template.parent, Path(__file__).parent])
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template.name).render(values)


def encode_picture(content: bytes, kind: str) -> str:
    """Returns a picture as a `data:` address, so that a page can be sent without its folder; kind: 'png', 'webp'..."""
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'

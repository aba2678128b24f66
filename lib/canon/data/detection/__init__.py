"""Images with boxes and label maps: readers, embedded scenes, and batches by size.

Boxes are [x0, y0, x1, y1] in pixels at pixel edges. Readers convert the conventions of their formats, and nothing after
them does. What is wrong in annotations is counted and named before anything is trained (`annotations.DefectLog`), and
refused, dropped or clipped as the argument `invalid` asks.
"""

from typing import TYPE_CHECKING

from canon.lazy import load_on_use

if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = load_on_use(__name__)

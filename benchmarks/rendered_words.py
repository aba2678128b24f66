"""Measures the words that the engine draws per second of one core, with more and more of its stages.

    python -m benchmarks.rendered_words [--fonts FOLDER] [--textures FOLDER] [--count 600]

Measured in processor time of a single thread, so that other processes matter little. Glyphs, kerning and textures are
in their caches, as they are after the first thousand words.
"""

from __future__ import annotations

import argparse
import time

import cv2

from canon.data.text.engine.stages import ALL_STAGES
from canon.data.text.rendered_words import rendered_words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--fonts', metavar='FOLDER')
    parser.add_argument('--textures', metavar='FOLDER')
    parser.add_argument('--count', type=int, default=600)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    chain: tuple[str, ...] = ('render_text', 'merge_layers')
    before = 0.0
    for added in (None, *(stage for stage in ALL_STAGES if stage not in chain)):
        if added:
            chain = tuple(stage for stage in ALL_STAGES if stage in (*chain, added))
        spec = dict(chain=chain)
        source = rendered_words('test', fonts=arguments.fonts, textures=arguments.textures, stages=spec)
        milliseconds = _time_word(source, arguments.count)
        name = added or 'render_text and merge_layers'
        print(f'{name:30} {milliseconds - before:+5.2f} ms   {1000 / milliseconds:6.0f} words/s')
        before = milliseconds


def _time_word(source, count: int) -> float:
    """Returns the least mean time of a word over three rounds, in milliseconds of processor time."""
    for i in range(count):
        source[i]
    times = []
    for start in range(count, 4 * count, count):
        begin = time.process_time()
        for i in range(start, start + count):
            source[i]
        times.append(time.process_time() - begin)
    return 1000 * min(times) / count


if __name__ == '__main__':
    main()

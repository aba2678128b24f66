"""Error rates of jiwer and distances of rapidfuzz for drawn texts: tests/metrics/golden/text_jiwer.npz.

    PYTHON tools/golden/text_jiwer.py tests/metrics/golden/text_jiwer.npz      (with jiwer 4.0.0 and rapidfuzz 3.14.6)

References are not empty, which jiwer does not define; readings may be. Some characters are beyond ASCII.
"""

import sys

import jiwer
import numpy as np
from rapidfuzz.distance import Levenshtein


def draw_texts(rng: np.random.Generator, count: int) -> tuple[list[str], list[str]]:
    """Draws sentences, and the same with words and characters dropped, repeated and replaced."""
    readings, references = [], []
    for _ in range(count):
        words = [''.join(rng.choice(list('abCé漢1'), rng.integers(1, 7))) for _ in range(rng.integers(1, 5))]
        references.append(' '.join(words))
        read = ' '.join(word for word in words for _ in range(rng.choice([0, 1, 1, 1, 2])))
        # Splits of words and doubled spaces arise from replaced characters.
        readings.append(''.join(rng.choice(['', c, c, c, c, 'x', ' ']) for c in read))
    return readings, references


def main(path: str) -> None:
    readings, references = draw_texts(np.random.default_rng(0), 60)
    np.savez_compressed(
        path,
        readings=np.array(readings),
        references=np.array(references),
        edits=[Levenshtein.distance(a, b) for a, b in zip(readings, references, strict=True)],
        normalised=[Levenshtein.normalized_distance(a, b) for a, b in zip(readings, references, strict=True)],
        cer=jiwer.cer(references, readings),
        wer=jiwer.wer(references, readings),
        wers=[jiwer.wer(a, b) for a, b in zip(references, readings, strict=True)],
    )


if __name__ == '__main__':
    main(sys.argv[1])

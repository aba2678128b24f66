"""A claim: a lexicon helps a reader, less the larger it is; words near the best path are enough (Shi et al. 2015).

    ./launch.sh run configs/claims/lexicon_sizes.py
    ./launch.sh run configs/claims/lexicon_sizes.py --config.lexicon.words=WORDS \\
        --config.data.benchmarks.sets.iiit5k.source.path='words/iiit5k_{split}.tar'

A CRNN is trained once. The second stage reads every image with lexica of 10 to 90,000 words, its own and others, in two
ways: by the exact probability of every word, and by that of words within 1, 2 or 3 edits of the best path alone, which
a BK-tree finds (section 2.3.3; the paper takes 3 edits and 50,000 words). It writes a table and a picture: words read,
and words that are scored per image. Without a file the other words are invented after those of CPython's documentation.
Confirmed: docs/claims.md has the table.
"""

from configs.claims._text import claim, rendered

SIZES = (10, 50, 200, 1000, 5000, 20_000, 50_000, 90_000)


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    mixed = dict(invented=0.35, numbers=0.0, signs=0.0)
    config = claim(
        mixed,
        dict(drawn=dict(data='rendered_words', split='test[:128]', source=rendered(**mixed))),
        steps=600 if smoke else 2500,
        metric='benchmarks/drawn/exact_50',
        at_least=0.05 if smoke else 0.5,
    )
    with config.unlocked():
        for name in ('iiit5k', 'svt'):
            config.data.benchmarks.sets[name].split = 'test[:128]'  # scoring 90,000 words takes a second per image
        config.experiment = 'staged'
        config.lexicon = dict(
            network='reader',  # the stage whose network reads
            words=None,  # a file with a word per line, from which the lexica are taken
            sizes=SIZES[:4] if smoke else SIZES,  # words of each lexicon, that of the image among them
            distances=(1, 2, 3),  # edits between the best path and the words that are scored
        )
        config.stages = dict(
            experiment='text_recognition',
            chain=('reader', 'lexica'),
            reader=dict(),
            lexica=dict(experiment='lexicon_sizes'),
        )
    return config

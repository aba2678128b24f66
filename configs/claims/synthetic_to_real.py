"""A claim: words that nobody photographed teach to read photographs; many fonts and any words matter (Jaderberg 2014).

    ./launch.sh sweep configs/claims/synthetic_to_real.py \\
        --config.data.benchmarks.sets.iiit5k.source.path='words/iiit5k_{split}.tar' \\
        --config.data.benchmarks.sets.svt.source.path='words/svt_{split}.tar'
    ./launch.sh table runs/claims/synthetic_to_real

A CRNN learns from 1, 4 or 16 fonts of matplotlib, and from a list of words alone, or with a share that a chain of
characters invents after it. Without photographs, words of street signs that are not in the list, in five fonts that
training never has, stand in for them.

One seed, four minutes per run on 2 CPU cores next to other jobs, words of IIIT5K: 27.9, 29.5, 27.8, 29.7, 30.0 % in the
order of `FORMS`; of the other fonts and words 14.1, 26.4, 24.5, 30.1, 28.7 %.
"""

from configs.claims._text import claim, rendered
from configs.text_recognition._words import FONTS, OTHER_FONTS, STREET_WORDS

FORMS = {  # (fonts, share of invented words)
    '1 font': (1, 0.5),
    '4 fonts': (4, 0.5),
    '16 fonts': (16, 0.5),
    '16 fonts, listed words': (16, 0.0),
    '16 fonts, invented words': (16, 1.0),
}
SETS = {
    'test/word_accuracy': 'words drawn as for training',
    'benchmarks/stand_in/word_accuracy_36': 'other fonts and words',
    'benchmarks/iiit5k/word_accuracy_36': 'IIIT5K',
    'benchmarks/svt/word_accuracy_36': 'SVT',
}


def get_config(arg: str = ''):
    return claim(
        dict(fonts=FONTS, invented=0.5, numbers=0.0, signs=0.0),
        dict(
            stand_in=dict(
                data='rendered_words',
                split='test[:1000]',
                source=rendered(words=STREET_WORDS, fonts=OTHER_FONTS),
            )
        ),
        steps=600 if arg == 'smoke' else 1500,
        metric='benchmarks/stand_in/word_accuracy_36',
        at_least=0.02 if arg == 'smoke' else 0.2,
    )


def sweep():
    for count, share in FORMS.values():
        for seed in (0, 1):
            yield {'data.source.fonts': FONTS[:count], 'data.source.invented': share, 'seed': seed}


def pictures(runs):
    from experiments.claims.text_recognition import draw_word_sets

    names = {form: name for name, form in FORMS.items()}

    def name(config):
        source = config['data']['source']
        return names[len(source['fonts']), source['invented']]

    return {'sources': draw_word_sets(runs, name, SETS, 'CRNN trained on words drawn from some fonts and words')}

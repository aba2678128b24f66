"""A claim: words can be read as classes of a dictionary, as characters or as bags of n-grams (Jaderberg et al. 2014).

    ./launch.sh sweep configs/claims/word_readers.py
    ./launch.sh table runs/claims/word_readers

DICT, CHAR and NGRAM with the same narrow body, and a narrow CRNN (Shi et al. 2015), learn from the same renderings of
the same 96 words, for the same number of steps, and read other renderings of them, and words that training never has.
DICT and NGRAM read words of their list only; in the paper DICT is the most accurate where the list is known, and CHAR
reads any word. DICT is best here, too; of 96 words neither CHAR nor CRNN learns to read others: docs/claims.md.
"""

from ml_collections import ConfigDict

from configs.claims._claims import choose_form, sweep_forms
from configs.claims._text import rendered
from configs.text_recognition import crnn_rendered
from configs.text_recognition._lines import muon
from configs.text_recognition._words import FEW_WORDS, STREET_WORDS, make_config, narrow

READERS = {
    'DICT': ('dict', 'dict_net', {}),
    'CHAR': ('char', 'char_net', {}),
    'NGRAM': ('ngram', 'ngram_net', dict(num_ngrams=500, order=4)),
}
FORMS = (*READERS, 'CRNN')
SETS = {
    'benchmarks/listed/word_accuracy_36': 'other renderings of the words',
    'benchmarks/unlisted/word_accuracy_36': 'words that are not in the list',
}


def get_config(arg: str = ''):
    steps = 300 if arg == 'smoke' else 1000

    def finish(config: ConfigDict, experiment: str) -> dict:
        with config.unlocked(), config.ignore_type():
            config.experiment = 'staged'  # as the forms are of two experiments
            config.stages = dict(experiment=experiment, chain=('reader',), reader=dict())
            config.data.batch_size, config.data.source = 64, rendered(words=FEW_WORDS, num_examples=1 << 20)
            config.data.train.split, config.data.evals.test.split = 'train', 'test[:256]'
            sets = dict(
                listed=dict(data='rendered_words', split='test[:1000]', source=rendered(words=FEW_WORDS)),
                unlisted=dict(data='rendered_words', split='test[:1000]', source=rendered(words=STREET_WORDS)),
            )
            squeeze = dict(chain=('resize',), resize=dict(size=(32, 100)))
            config.data.benchmarks = dict(sets=sets, transforms=squeeze)
            config.run.update(steps=f'{steps} steps', log_every='5%', log=())
            config.run.evals = dict(test=dict(every='20%'), benchmarks=dict(every='100%'))
            config.run.checkpoint.every = '50%'
            least = 0.02 if arg == 'smoke' else 0.3
            config.target = dict(metric='benchmarks/listed/word_accuracy_36', at_least=least, ci=False)
        return config.to_dict()

    configs = []
    for kind, name, options in READERS.values():
        config = make_config(kind, dict(name=f'mjsynth.{name}', **narrow(True)), True, **options)
        configs.append(finish(config, 'word_recognition'))
    crnn = crnn_rendered.get_config('smoke')
    with crnn.unlocked(), crnn.ignore_type():
        crnn.tx = muon()  # with Adam it reads 23 % after 1,000 steps: CTC stays on a plateau
    configs.append(finish(crnn, 'text_recognition'))
    base = configs[0]
    # Of each reader, the sections in which it differs from the first.
    forms = [{key: value for key, value in config.items() if value != base.get(key)} for config in configs]
    return choose_form(ConfigDict(base), dict(zip(FORMS, forms, strict=True)))


def sweep():
    return sweep_forms(FORMS)


def pictures(runs):
    from experiments.claims.text_recognition import draw_word_sets

    title = 'readers of the same words'
    return {'readers': draw_word_sets(runs, lambda config: config['overrides']['form'], SETS, title)}

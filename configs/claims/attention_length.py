"""A claim: attention translates better than a plain encoder-decoder, and the more so the longer the sentence
(Bahdanau et al. 2015, figure 2).

    ./launch.sh sweep configs/claims/attention_length.py
    ./launch.sh table runs/claims/attention_length

Three forms as wide as each other on what JupyterLab says in English and French, each at the better of two rates, two
seeds: 12 runs of about 3 minutes on 2 CPU cores. What came of it: docs/claims.md.
"""

from configs.translation import catalogue

RATE = 'tx.adam.learning_rate.then.init'


def get_config(arg: str = ''):
    config = catalogue.get_config('smoke')
    config.model = dict(
        name='seq2seq.bahdanau', cell='gru', embed=96, hidden=128, layers=1, dropout=0.2, start='glorot'
    )
    config.data.evals.test.bounds = (2, 4, 6, 9)
    config.run.steps = '8 epochs' if arg == 'smoke' else '24 epochs'
    config.target.at_least = 8.0
    return config


def sweep():
    for name in ('bahdanau', 'luong', 'sutskever'):
        for rate in (4e-3, 1e-2):
            for seed in (0, 1):
                yield {'model.name': f'seq2seq.{name}', RATE: rate, 'seed': seed}


def pictures(runs):
    from experiments.claims.translation import plot_chrf_by_length

    return {'attention and length': plot_chrf_by_length(runs, 'model.name', RATE)}

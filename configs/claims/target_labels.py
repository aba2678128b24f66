"""A claim: the fewer labels of the target, the more the source counts; with many, none of it is needed.

    ./launch.sh sweep configs/claims/target_labels.py
    ./launch.sh table runs/claims/target_labels --mean

Drawn digits to scikit-learn's with 0, 1, 5 or 100 labelled targets per class. `target`: these alone. `source`: both
domains pooled. `features`: means and covariances matched, too. `instances`: the examples of the source weighted by the
relative density ratio of the pixels. `parameters`: a network of the source fine-tuned on the targets with L2-SP. Three
seeds, which draw the targets, too; 300 updates, half a minute per run on 2 CPU cores next to other jobs.

Measured for 0, 1, 5 and 100: `target` -, 66.8, 88.1, 99.2 %; `source` 52.2, 71.1, 88.2, 98.3; `features` 71.7, 80.8,
91.7, 98.4; `instances` 53.0, 72.5, 87.3, 97.8; `parameters` -, 70.4, 88.1, 98.1.
"""

from configs.claims._adaptation import MEAN_COV, SOURCE_ONLY, compare, in_stages, single, sweep_seeds

ALONE = dict(domains=dict(use_sources=False, hidden=False))  # batches hold the shown targets and nothing else
TUNED = dict(chain=('l2_sp', 'adam'), l2_sp=dict(name='add_starting_point_decay'), adam=dict(learning_rate=3e-4))
FORMS = dict(
    source=single(method=SOURCE_ONLY),
    target=single(method=SOURCE_ONLY, data=ALONE),
    features=single(method=MEAN_COV),
    instances=single(method=SOURCE_ONLY, data=dict(weights=dict(name='rulsif', alpha=0.1, centres=50, folds=2))),
    parameters=in_stages(
        source=dict(data=dict(domains=dict(shown=0))),
        tune=dict(data=ALONE, tx=TUNED, run=dict(init_from=dict(stage='source'))),
    ),
)
SHOWN = (0, 1, 5, 100)  # per class


def get_config(arg: str = ''):
    config = compare(FORMS, arg == 'smoke')
    with config.unlocked():
        config.data.domains.shown = 1  # labelled targets per class; the sweep has others
        # One update per batch of few examples: the rate is that of either stage.
        config.tx = dict(chain=('adam',), adam=dict(learning_rate=1e-3))
    return config


def sweep():
    for shown in SHOWN:
        for form in FORMS:
            if shown or form not in ('target', 'parameters'):  # which learn the shown targets alone
                yield from sweep_seeds(range(3), form=form, data__domains__shown=shown)


def pictures(runs):
    from experiments.claims.adaptation import draw_accuracy, name_form, spell

    def number(run):
        return run.overrides['data.domains.shown']

    return {'target_labels': draw_accuracy(runs, name_form, number, 'labels per class of the target', spell(FORMS))}

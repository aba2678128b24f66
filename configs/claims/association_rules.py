"""A claim: with a good affinity, greedy and soft rules of association come close to the exact assignment.

    ./launch.sh sweep configs/claims/association_rules.py
    ./launch.sh table runs/claims/association_rules

SORT with each rule of `canon.tracking.association.associate` on crowds of 16 to 20 digits; tracks live for 5 frames
without detections, so that the cascade has levels.

HOTA, means over three sets of 8 sequences: exact, cost limit, greedy and Sinkhorn 0.540, mutual best 0.534, cascade
0.531.
"""

from configs.claims._tracking import compare, sweep_sequences

RULES = ('exact', 'cost_limit', 'greedy', 'mutual_best', 'cascade', 'sinkhorn')
FORMS = {rule: dict(tracker=dict(name='sort', form='numpy', max_age=5, association=rule)) for rule in RULES}


def get_config(arg: str = ''):
    return compare(arg == 'smoke', FORMS, objects=(16, 20))


def sweep():
    for form in FORMS:
        yield from sweep_sequences(form=form)


def pictures(runs):
    from experiments.claims.tracking import draw_forms

    return {'rules': draw_forms(runs)}

"""A claim: in one step a model does not reach a distant domain; through intermediate ones it does (Kumar et al. 2020).

    ./launch.sh sweep configs/claims/gradual_angles.py
    ./launch.sh table runs/claims/gradual_angles --mean

Self-training from upright digits to digits rotated by 30, 60 and 90 degrees: in steps of 15 degrees, and in one step.
Three seeds, at most a minute per run on 2 CPU cores next to other jobs: 70.7 ± 2.8, 45.7 ± 1.1 and 26.9 ± 1.4 % in
steps, 56.1 ± 0.6, 21.9 ± 2.0 and 10.3 % in one.
"""

from configs.adaptation.rotated_gradual import get_config as make_gradual
from configs.claims._adaptation import quieten, sweep_seeds

CHAINS = {
    angle: {'multi-step': tuple(f'{a}' for a in range(15, angle + 1, 15)), 'one step': (f'{angle}',)}
    for angle in (30, 60, 90)
}


def get_config(arg: str = ''):
    return quieten(make_gradual('smoke'))


def sweep():
    for angle, chains in CHAINS.items():
        for chain in chains.values():
            yield from sweep_seeds(range(3), data__domains__target=f'{angle}', gradual__chain=chain)


def pictures(runs):
    from experiments.claims.adaptation import draw_accuracy

    def name(run):
        return 'multi-step' if len(run.overrides['gradual.chain']) > 1 else 'one step'

    def number(run):
        return float(run.overrides['data.domains.target'])

    return {'angles': draw_accuracy(runs, name, number, 'angle in degrees', ('multi-step', 'one step'))}

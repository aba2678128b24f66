"""A claim: positional encoding, view dependence and hierarchical sampling each improve NeRF (its table 2).

    ./launch.sh sweep configs/claims/nerf_parts.py
    ./launch.sh table runs/claims/nerf_parts

Without the hierarchy one network evaluates as many samples as the two do otherwise. 4 runs of about 4 minutes on 2 CPU
cores; results: docs/claims.md.
"""

from configs.nerf import vanilla


def get_config(arg: str = ''):
    config = vanilla.get_config('smoke')
    config.model.levels, config.model.view_levels = 10, 4
    config.data.evals.test.views = 4
    config.run.evals.test.every = '20%'
    config.run.steps = '2500 steps'
    config.target.at_least = 16.0
    return config


def sweep():
    yield {'model.levels': 10}
    yield {'model.levels': 0}  # without positional encoding
    yield {'model.view_levels': -1}  # without viewing directions
    yield {'render.fine': 0, 'render.coarse': 96}  # without hierarchical sampling


def pictures(runs):
    from experiments.claims.view_synthesis import plot_against_steps

    def label(config):
        if config['model']['levels'] == 0:
            return 'no positional encoding'
        if config['model']['view_levels'] < 0:
            return 'no directions'
        return 'complete' if config['render']['fine'] else 'no hierarchy'

    return {'parts': plot_against_steps(runs, label, 'what the parts of NeRF are for')}

"""A claim: positional encoding, directions and hierarchical sampling each make NeRF better (its table 2).

    ./launch.sh sweep configs/claims/nerf_parts.py
    ./launch.sh table runs/claims/nerf_parts

Without the hierarchy one network is asked as often as both together else. 4 runs of about 4 minutes on 2 CPU cores.
What came of it: docs/claims.md.
"""

from configs.nerf import vanilla


def get_config(arg: str = ''):
    found = vanilla.get_config('smoke')
    found.model.levels, found.model.view_levels = 10, 4
    found.data.evals.test.views = 4
    found.run.evals.test.every = '20%'
    found.run.steps = '2500 steps'
    found.target.at_least = 16.0
    return found


def sweep():
    yield {'model.levels': 10}
    yield {'model.levels': 0}
    yield {'model.view_levels': -1}
    yield {'render.fine': 0, 'render.coarse': 96}


def pictures(runs):
    from experiments.claims.view_synthesis import curves

    def line(config):
        if config['model']['levels'] == 0:
            return 'no positional encoding'
        if config['model']['view_levels'] < 0:
            return 'no directions'
        return 'complete' if config['render']['fine'] else 'no hierarchy'

    return {'parts': curves(runs, line, 'what the parts of NeRF are for')}

"""A claim: features in a grid make a radiance field orders faster to train than a network (Müller et al. 2022).

    ./launch.sh sweep configs/claims/nerf_speed.py
    ./launch.sh table runs/claims/nerf_speed

Seconds of training to 25 dB of held-out PSNR: NeRF's network (4 x 64), a dense grid, a hash grid.
"""

from ml_collections import ConfigDict

from configs.nerf import traced, vanilla, voxels


def get_config(arg: str = ''):
    found = traced.get_config('smoke')
    blocks = ('model', 'render', 'loss', 'tx')
    made = dict(hash=traced, grid=voxels, network=vanilla)
    found.forms = ConfigDict({n: {b: m.get_config('smoke')[b] for b in blocks} for n, m in made.items()})
    found.form = 'hash'
    found.data.evals.test.views = 2
    found.run.log_every = found.run.evals.test.every = '10%'
    found.target.at_least = 23.5
    return found


def sweep():
    yield {'form': 'hash', 'run.steps': '400 steps'}
    yield {'form': 'grid', 'run.steps': '450 steps'}
    yield {'form': 'network', 'data.batch_size': 256, 'run.steps': '2000 steps'}


def pictures(runs):
    from experiments.claims.view_synthesis import seconds_to

    return {'speed': seconds_to(runs, lambda config: config['form'], 25.0)}

"""A claim: features in a grid train a radiance field orders of magnitude faster than a network (Müller et al. 2022).

    ./launch.sh sweep configs/claims/nerf_speed.py
    ./launch.sh table runs/claims/nerf_speed

Measures the seconds of training to 25 dB of held-out PSNR: NeRF's network (4 x 64), a dense grid, a hash grid.
"""

from ml_collections import ConfigDict

from configs.nerf import traced, vanilla, voxels


def get_config(arg: str = ''):
    config = traced.get_config('smoke')
    blocks = ('model', 'render', 'loss', 'tx')
    systems = dict(hash=traced, grid=voxels, network=vanilla)
    config.forms = ConfigDict({n: {b: m.get_config('smoke')[b] for b in blocks} for n, m in systems.items()})
    config.form = 'hash'  # whose blocks of `forms` replace those of the config
    config.data.evals.test.views = 2
    config.run.log_every = config.run.evals.test.every = '10%'
    config.target.at_least = 23.5
    return config


def sweep():
    yield {'form': 'hash', 'run.steps': '400 steps'}
    yield {'form': 'grid', 'run.steps': '450 steps'}
    yield {'form': 'network', 'data.batch_size': 256, 'run.steps': '2000 steps'}


def pictures(runs):
    from experiments.claims.view_synthesis import plot_against_seconds

    return {'speed': plot_against_seconds(runs, lambda config: config['form'], 25.0)}

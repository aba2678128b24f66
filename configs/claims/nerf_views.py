"""A claim: NeRF needs many views; with few it fits each picture but not the scene (FreeNeRF, Yang et al. 2023).

./launch.sh sweep configs/claims/nerf_views.py
./launch.sh table runs/claims/nerf_views
"""

from configs.nerf import traced


def get_config(arg: str = ''):
    config = traced.get_config('smoke')
    config.data.train.views = 100
    config.target.at_least = 24.0
    return config


def sweep():
    for views in (3, 6, 12, 25, 100):
        yield {'data.train.views': views}


def pictures(runs):
    from experiments.claims.view_synthesis import plot_against_setting

    return {
        'views': plot_against_setting(runs, 'data.train.views', lambda config: 'hash grid', 'how many views it takes')
    }

"""A claim: NeRF wants many views; with few of them it explains each and not the scene (FreeNeRF, Yang et al. 2023).

./launch.sh sweep configs/claims/nerf_views.py
./launch.sh table runs/claims/nerf_views
"""

from configs.nerf import traced


def get_config(arg: str = ''):
    found = traced.get_config('smoke')
    found.data.train.views = 100
    found.target.at_least = 24.0
    return found


def sweep():
    for views in (3, 6, 12, 25, 100):
        yield {'data.train.views': views}


def pictures(runs):
    from experiments.claims.view_synthesis import against

    return {'views': against(runs, 'data.train.views', lambda config: 'hash grid', 'how many views it takes')}

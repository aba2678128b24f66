"""DVR (Niemeyer et al. 2020): an occupancy network and its colours from pictures with masks, without any 3-D truth.

    ./launch.sh run configs/surfaces/dvr.py            # `:smoke` shrunk to a minute or two
    ./launch.sh predict --workdir=runs/surfaces/dvr-smoke/default --input=60x128      # an orbit

TODO
"""

from configs.surfaces._object import config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    return config(
        model=dict(name='dvr.dvr', width=64 if smoke else 512, blocks=3 if smoke else 5),
        render=dict(name='dvr', count=32 if smoke else 128, secant=8, box=(-1.2, 1.2), background='white'),
        loss=dict(colour=1.0, free=1.0, occupied=1.0, normal=0.05),
        rate=2e-3 if smoke else 1e-4,
        steps=1500 if smoke else 50_000,
        size=64 if smoke else 128,
        views=40 if smoke else 100,
        batch_size=512 if smoke else 2048,
        target=dict(metric='test/psnr', at_least=20.0),
    )

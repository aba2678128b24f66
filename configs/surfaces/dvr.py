"""DVR (Niemeyer et al. 2020): an occupancy network with colours, from pictures with masks and without 3-D supervision.

    ./launch.sh run configs/surfaces/dvr.py            # `:smoke`: a minute or two
    ./launch.sh predict --workdir=runs/surfaces/dvr-smoke/default --input=60x128      # an orbit

Measured on 2 CPU cores: `:smoke`, 3 blocks of 64, has 21.0 dB on 6 held-out views, a mask IoU of 0.89 and a depth error
of 0.045 (the ball is 0.96 wide), in 51 s; with 1,500 steps 22.4 dB, 0.92 and 0.035. The full form, the paper's network,
has not been run.
"""

from configs.surfaces._object import config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    return config(
        model=dict(
            name='dvr.dvr',
            width=64 if smoke else 512,
            blocks=3 if smoke else 5,  # residual blocks
        ),
        render=dict(
            name='dvr',
            count=32 if smoke else 128,  # even intervals per ray in which the surface is searched
            secant=8,  # refinement steps
            box=(-1.2, 1.2),  # the walls of the scene
            background='white',
        ),
        loss=dict(
            colour=1.0,  # of rays that hit and should
            free=1.0,  # of rays that should miss
            occupied=1.0,  # of rays that should hit and miss
            normal=0.05,  # smoothness of the normals
        ),
        rate=2e-3 if smoke else 1e-4,
        steps=1000 if smoke else 50_000,
        size=64 if smoke else 128,
        views=40 if smoke else 100,
        batch_size=512 if smoke else 2048,
        target=dict(metric='test/psnr', at_least=20.0),
    )

"""A dense grid of features with an occupancy grid (DVGO, Sun et al. 2022), much faster than NeRF.

    ./launch.sh run configs/nerf/voxels.py            # `:smoke`: a minute

Measured, `:smoke` on 2 CPU cores: 25.9 dB on 8 held-out views after 400 steps, in 19 s; NeRF's network has 18.6 dB
after 59 s. The full form has not been run.
"""

from configs.nerf._scene import adam, config, skipping


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    return config(
        size=64 if smoke else 100,
        batch_size=1024 if smoke else 2048,
        model=dict(
            name='instant_ngp.voxels',
            vertices=48 if smoke else 96,  # of the grid, per axis
            low=-1.3,  # walls of the field
            high=1.3,
        ),
        render=skipping(64 if smoke else 128),
        tx=adam(2e-2, b2=0.99, eps=1e-15),
        steps=400 if smoke else 4000,
        at_least=23.0 if smoke else 28.0,
    )

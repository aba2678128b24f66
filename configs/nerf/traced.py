"""A hash grid on the embedded scene: balls and boxes that Canon traces itself, nothing to download.

    ./launch.sh run configs/nerf/traced.py            # `:smoke`: a minute
    ./launch.sh predict --workdir=runs/nerf/traced-smoke/default --input=60x128      # an orbit

instant-ngp's network and recipe (Müller et al. 2022) on a grid of 12 levels with 2^15 rows, 8 levels with 2^14 in the
smoke run; an occupancy grid of 32^3 skips empty space. Measured on 2 CPU cores, whole commands, on 8 held-out views:
`:smoke` 25.1 dB after 300 steps in 30 s, most of which is compilation; the full form 31.4 dB after 1,200 steps in 93 s.
"""

from configs.nerf._scene import adam, config, skipping


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    return config(
        size=64 if smoke else 100,
        batch_size=1024 if smoke else 2048,
        model=dict(
            name='instant_ngp.hash_field',
            levels=8 if smoke else 12,  # of the grid
            features=2,  # per vertex and level
            size=2**14 if smoke else 2**15,  # the most rows of a level
            coarsest=8 if smoke else 16,  # cells per axis of the first level
            finest=128 if smoke else 256,  # and of the last
            low=-1.3,  # walls of the field
            high=1.3,
        ),
        render=skipping(64 if smoke else 128),
        tx=adam(1e-2, b2=0.99, eps=1e-15),
        steps=300 if smoke else 1200,
        at_least=24.0 if smoke else 30.0,
    )

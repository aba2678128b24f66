"""A hash grid on the embedded scene: balls and boxes that Canon traces itself, nothing to download.

    ./launch.sh run configs/nerf/traced.py            # `:smoke` shrunk to a minute
    ./launch.sh predict --workdir=runs/nerf/traced-smoke/default --input=60x128      # an orbit

instant-ngp's network and recipe (Müller et al. 2022) over a grid of 2^15 rows a level, of which the smoke run has 8
with 2^14; an occupancy grid of 32^3 keeps the network from being asked where nothing is. Measured on 2 CPU cores, whole
commands, on 8 held-out views: `:smoke` 25.1 dB after 300 steps in 30 s, most of which is compiling; the full form
31.4 dB after 1,200 steps in 93 s.
"""

from configs.nerf._scene import adam, config, skipping


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    return config(
        size=64 if smoke else 100,
        batch_size=1024 if smoke else 2048,
        model=dict(
            name='instant_ngp.hash_field',
            levels=8 if smoke else 12,
            features=2,
            size=2**14 if smoke else 2**15,
            coarsest=8 if smoke else 16,
            finest=128 if smoke else 256,
            low=-1.3,
            high=1.3,
        ),
        render=skipping(64 if smoke else 128),
        tx=adam(1e-2, b2=0.99, eps=1e-15),
        steps=300 if smoke else 1200,
        at_least=24.0 if smoke else 30.0,
    )

"""D-NeRF (Pumarola et al. 2021), for scenes that move, which NeRF assumes to be static. The embedded scene, moving.

    ./launch.sh run configs/nerf/d_nerf.py            # `:smoke`: two minutes
    ./launch.sh predict --workdir=runs/nerf/d_nerf-smoke/default --input=60x128      # an orbit during which time passes

Each picture has its own time; a ball hops and a box turns. Measured, `:smoke` on 2 CPU cores: 16.9 dB on 4 held-out
views after 500 steps, in 86 s. So short a run proves nothing: a static NeRF of the same size had 17.9 dB on 8 views
after 600 steps, since the blur of both exceeds what moves. The full form has not been run.
"""

from configs.nerf._scene import NARROW, adam, config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    return config(
        size=64 if smoke else 100,
        source=dict(motion=True, views=100),  # each picture at a time of its own
        batch_size=256 if smoke else 1024,
        # time_levels: frequencies of the encoding of time.
        model=dict(name='nerf.d_nerf', **(NARROW | dict(time_levels=4) if smoke else {})),
        # Samples per ray of each level.
        render=dict(coarse=32 if smoke else 64, fine=32 if smoke else 128, background='white'),
        tx=adam(3e-3 if smoke else 5e-4, eps=1e-7),
        evals=dict(test=dict(split='test', views=4 if smoke else 8)),
        steps=500 if smoke else 20_000,
        at_least=16.0 if smoke else 28.0,
    )

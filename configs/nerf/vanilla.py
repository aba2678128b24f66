"""The original NeRF (Mildenhall et al. 2020) on the embedded scene: two networks of 8 x 256, coarse and fine.

    ./launch.sh run configs/nerf/vanilla.py            # `:smoke`: 4 x 64, two minutes

Measured, `:smoke` on 2 CPU cores: 18.6 dB on 8 held-out views after 600 steps, in 59 to 70 s; 26.2 dB on 4 of them
after 2,500 steps. The full form has not been run.
"""

from configs.nerf._scene import NARROW, adam, config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    return config(
        size=64 if smoke else 100,
        batch_size=256 if smoke else 1024,
        model=dict(name='nerf.nerf', **(NARROW if smoke else {})),
        render=dict(
            coarse=32 if smoke else 64,  # samples per ray of the coarse network
            fine=32 if smoke else 128,  # and those that the fine network adds
            background='white',
        ),
        tx=adam(3e-3 if smoke else 5e-4, eps=1e-7),
        steps=600 if smoke else 20_000,
        at_least=17.0 if smoke else 30.0,
    )

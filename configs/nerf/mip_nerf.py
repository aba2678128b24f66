"""mip-NeRF (Barron et al. 2021) casts cones instead of rays, against aliasing. One network serves both levels.

    ./launch.sh run configs/nerf/mip_nerf.py            # `:smoke`: two minutes

The evaluator `far` sees the held-out views at a quarter of the size, as if from four times the distance. Measured,
`:smoke` on 2 CPU cores: 18.0 dB on 8 held-out views and 20.5 dB on `far` after 600 steps, in 65 s. So short a run
proves nothing: NeRF's points came to 18.7 and 22.8 dB in as many steps, since neither had learnt detail that could
alias. The full form has not been run.
"""

from configs.nerf._scene import NARROW, adam, config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    size = 64 if smoke else 100
    return config(
        size=size,
        batch_size=256 if smoke else 1024,
        model=dict(name='nerf.mip_nerf', **(NARROW if smoke else {})),
        render=dict(
            coarse=32 if smoke else 128,  # conical frustums per ray of each level
            fine=32 if smoke else 128,
            shared=True,  # one network for both levels
            casting='cones',  # integrates the encoding over each frustum
            background='white',
        ),
        evals=dict(
            test=dict(split='test', views=8),
            far=dict(split='test', views=8, source=dict(size=size // 4, samples=8)),
        ),
        loss=dict(coarse=0.1),  # weight of the coarse level's error, as in the paper
        tx=adam(3e-3 if smoke else 5e-4, final=0.01, eps=1e-8),
        steps=600 if smoke else 20_000,
        at_least=17.0 if smoke else 30.0,
    )

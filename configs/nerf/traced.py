"""A hash grid on the embedded scene: balls and boxes that Canon traces itself, nothing to download.

    ./launch.sh run configs/nerf/traced.py            # `:smoke` shrunk to a minute
    ./launch.sh predict --workdir=runs/nerf/traced-smoke/default --input=60x128      # an orbit

instant-ngp's network and recipe (Müller et al. 2022) over a grid of 2^15 rows a level, of which the smoke run has 8
with 2^14. Neither form has been run as it stands: with 400 steps the shrunk one had 27.4 dB on 8 held-out views in
115 s, and with 200 steps 24.1 dB in 63 s of CPU time, on 2 cores that others shared and an earlier form of the scene.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    return ConfigDict(
        dict(
            experiment='view_synthesis',
            seed=0,
            data=dict(
                name='traced',
                path=placeholder(str),
                source=dict(size=64 if smoke else 100),
                batch_size=512 if smoke else 1024,
                pixel_center=0.5,
                train=dict(split='train', views=placeholder(int), frequencies_hidden=0, crop=0),
                evals=dict(test=dict(split='test', views=8)),
            ),
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
            render=dict(
                coarse=24 if smoke else 32,
                fine=24 if smoke else 32,
                shared=True,
                casting='intervals',
                background='random',
                box=(-1.3, 1.3),
            ),
            loss=dict(coarse=0.1, microbatch=0),
            tx=dict(
                name='adam',
                b2=0.99,
                eps=1e-15,
                learning_rate=dict(name='exponential', init=1e-2, decay=0.1, steps='100%'),
            ),
            run=dict(
                steps='300 steps' if smoke else '4000 steps',
                log_every='5%',
                evals=dict(test=dict(every='50%')),
                checkpoint=dict(every='50%'),
            ),
            target=dict(metric='test/psnr', at_least=24.0 if smoke else 30.0),
        )
    )

"""A transfer function from pictures of a known volume: the rings of Marschner and Lobb, with all values from 0 to 1.

    ./launch.sh run configs/volume_rendering/transfer.py            # `:smoke` takes half a minute

Measured on 2 shared CPU cores, whole commands. `:smoke`: held-out pictures 47.8 dB, the table's mean error
0.006, 10 to 15 s. The full form: 56.5 dB and 0.003, 256 s.
"""

from ml_collections import ConfigDict

from configs.volume_rendering._recipe import config

# Value, red, green, blue, and opacity over the length 0.1: transparent enough to see through.
TABLE = (
    (0.0, 0.1, 0.2, 0.8, 0.0),
    (0.3, 0.1, 0.6, 0.9, 0.08),
    (0.5, 0.2, 0.8, 0.3, 0.01),
    (0.7, 1.0, 0.7, 0.1, 0.15),
    (1.0, 0.9, 0.1, 0.1, 0.25),
)


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    return config(
        data=dict(
            name='marschner_lobb',
            source=dict(size=41),  # voxels per side
            views=8 if smoke else 16,  # pictures for training
            picture=48 if smoke else 96,  # pixels per side of each
            batch_size=512 if smoke else 2048,  # pixels per step
        ),
        model=dict(
            learn=('table',),  # 'volume', 'table' (the transfer function) or both
            rows=32 if smoke else 64,  # of the learned table
        ),
        render=dict(
            mode='emission',  # or 'xray', which has no transfer function
            count=48 if smoke else 128,  # intervals per ray
            reference=0.1,  # length over which the opacities of the table hold
            table=TABLE,  # control points of the true transfer function
        ),
        rate=0.1,
        steps=1000 if smoke else 2000,
        target=dict(metric='test/psnr', at_least=35.0),
    )

"""SRN (Sitzmann et al. 2019): a field of features and an LSTM that marches to where a ray ends, from pictures alone.

    ./launch.sh run configs/surfaces/srn.py            # `:smoke` shrunk to a minute or two
    ./launch.sh predict --workdir=runs/surfaces/srn-smoke/default --input=60x128      # an orbit

TODO
"""

from configs.surfaces._object import config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    return config(
        model=dict(name='srn.srn', width=64 if smoke else 256, start=2.5),
        render=dict(name='srn', background='white'),
        loss=dict(image=200.0, behind=10.0),
        rate=1e-3 if smoke else 5e-5,
        steps=1500 if smoke else 170_000,
        size=64 if smoke else 128,
        views=40 if smoke else 100,
        batch_size=512 if smoke else 2048,
        target=dict(metric='test/psnr', at_least=18.0),
    )

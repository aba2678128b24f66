"""SRN (Sitzmann et al. 2019): a field of features and an LSTM that marches to where a ray ends, from pictures alone.

    ./launch.sh run configs/surfaces/srn.py            # `:smoke` shrunk to a minute or two
    ./launch.sh predict --workdir=runs/surfaces/srn-smoke/default --input=60x128      # an orbit

Measured on 2 CPU cores: `:smoke`, 64 wide, has 22.4 dB on 6 held-out views, 55 s, and a depth that is off by 0.32: it
learns how things look before where they are. Marching from 2.0 in place of 0.05 came to 15.4 dB; a run with gradients
clipped at 10 in place of 1, from 2.5 and on 40 views, to 13.0 dB with a loss that rose. The full
form, the paper's network and rate, has not been run.
"""

from configs.surfaces._object import config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    return config(
        model=dict(name='srn.srn', width=64 if smoke else 256, start=0.05),
        render=dict(name='srn', background='white'),
        loss=dict(image=200.0, behind=10.0),
        rate=1e-3 if smoke else 5e-5,
        steps=1500 if smoke else 170_000,
        size=64 if smoke else 128,
        views=100,
        batch_size=512 if smoke else 2048,
        target=dict(metric='test/psnr', at_least=20.0),
        max_norm=1.0,
    )

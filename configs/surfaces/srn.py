"""SRN (Sitzmann et al. 2019): a field of features and an LSTM that marches to where a ray ends, from pictures alone.

    ./launch.sh run configs/surfaces/srn.py            # `:smoke`: a minute or two
    ./launch.sh predict --workdir=runs/surfaces/srn-smoke/default --input=60x128      # an orbit

Measured on 2 CPU cores: `:smoke`, 64 wide, has 22.4 dB on 6 held-out views in 55 s, and a depth error of 0.32: it
learns appearance before geometry. Marching that starts at 2.0 instead of 0.05 came to 15.4 dB; a run with gradients
clipped at 10 instead of 1, from 2.5 and on 40 views, came to 13.0 dB with a loss that rose. The full form, the paper's
network and rate, has not been run.
"""

from configs.surfaces._object import config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    return config(
        model=dict(
            name='srn.srn',
            width=64 if smoke else 256,  # of the field and of the pixel generator
            start=0.05,  # distance at which marching starts
        ),
        render=dict(name='srn', background='white'),
        loss=dict(
            image=200.0,  # weight of the squared error of colours
            behind=10.0,  # weight of the squared distance behind the camera
        ),
        rate=1e-3 if smoke else 5e-5,
        steps=1500 if smoke else 170_000,
        size=64 if smoke else 128,
        views=100,
        batch_size=512 if smoke else 2048,
        target=dict(metric='test/psnr', at_least=20.0),
        max_norm=1.0,
    )

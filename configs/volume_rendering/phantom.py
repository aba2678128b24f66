"""A head from its X-rays: the voxels of the Shepp-Logan phantom recovered from 32 pictures with exact integrals.

    ./launch.sh run configs/volume_rendering/phantom.py            # `:smoke` takes a minute
    ./launch.sh predict --workdir=runs/volume_rendering/phantom-smoke/default --input=learnt

Measured on 2 shared CPU cores, whole commands. `:smoke`, 40^3 voxels: held-out pictures 35.8 dB, the volume itself
25.5 dB (a root mean square error of 0.053), 13 to 35 s. The full form, 64^3 from 64 pictures: 39.1 and 28.3 dB, 506 s.
With a tenth of the total variation (0.0003) the volume of `:smoke` had 19.9 dB.
"""

from ml_collections import ConfigDict

from configs.volume_rendering._recipe import config


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    return config(
        data=dict(
            name='shepp_logan',
            source=dict(size=64),  # voxels per side
            views=32 if smoke else 64,  # pictures for training
            picture=48 if smoke else 96,  # pixels per side of each
            batch_size=1024 if smoke else 2048,  # pixels per step
        ),
        model=dict(
            learn=('volume',),  # 'volume', 'table' (the transfer function) or both
            vertices=40 if smoke else 64,  # of the learned volume along its longest side
            start=0.1,  # initial value of every voxel
        ),
        render=dict(
            mode='xray',  # or 'emission'
            count=64 if smoke else 96,  # intervals per ray
            absorption=1.0,  # attenuation of the value 1 over the length 1
        ),
        loss=dict(variation=3e-3),  # weight of the total variation
        rate=2e-2,
        steps=1000 if smoke else 4000,
        target=dict(metric='test/volume_psnr', at_least=24.0),
    )

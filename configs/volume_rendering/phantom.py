"""A head from its X-rays: the Shepp-Logan phantom's voxels recovered from 32 pictures, each pixel's integral exact.

    ./launch.sh run configs/volume_rendering/phantom.py            # `:smoke` shrunk to a minute
    ./launch.sh predict --workdir=runs/volume_rendering/phantom-smoke/default --input=learnt

Measured on 2 CPU cores that others shared, whole commands. `:smoke`, 40^3 voxels: held-out pictures 35.9 dB, the volume
itself 25.4 dB (a mean error of 0.054), 13 to 35 s. The full form, 64^3 from 64 pictures: 39.1 and 28.3 dB, 506 s.
With a tenth of the total variation (0.0003) the shrunk volume had 19.9 dB.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    return ConfigDict(
        dict(
            experiment='volume_rendering',
            seed=0,
            data=dict(
                name='shepp_logan',
                source=dict(size=64),
                path=placeholder(str),  # a .npy, .nii, .nii.gz; or raw voxels, with their shape and dtype
                shape=placeholder(tuple),
                dtype=placeholder(str),
                spacing=placeholder(tuple),
                frame=placeholder(int),
                fill=placeholder(float),
                views=32 if smoke else 64,
                picture=48 if smoke else 96,
                batch_size=1024 if smoke else 2048,
                evals=dict(test=dict(split='test', views=4)),
            ),
            model=dict(learn=('volume',), vertices=40 if smoke else 64, start=0.1),
            render=dict(mode='xray', count=64 if smoke else 96, absorption=1.0),
            loss=dict(variation=3e-3),
            tx=dict(
                name='adam',
                learning_rate=dict(name='exponential', init=2e-2, decay=0.1, steps='100%'),
            ),
            run=dict(
                steps='1000 steps' if smoke else '4000 steps',
                log_every='5%',
                evals=dict(test=dict(every='50%')),
                checkpoint=dict(every='50%'),
            ),
            target=dict(metric='test/volume_psnr', at_least=24.0),
        )
    )

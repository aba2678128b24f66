"""A hash grid on a capture of your own, whatever its layout: a folder of pictures with their cameras, and one command.

    ./launch.sh run configs/nerf/capture.py --config.data.path=FOLDER           # `:smoke`: the embedded scene
    ./launch.sh predict --workdir=runs/nerf/capture/default --input=60x240      # flies about it

Lens, near, far and size of the pictures are the layout's (`canon.data.scenes.layouts`). What is beyond the cameras'
distance is contracted (mip-NeRF 360, eq. 10), so that nothing need be known of the scene's walls. Measured on 50
photographs of 1080x1920 from one side (instant-ngp's fox), made 8 times smaller: 25.17 dB on 7 held-out views after
1,600 steps, in 171 s from the command to the report on 2 CPU cores (25.05 after 1,500 steps, 25.42 after 1,800).
`:smoke`: 23.8 dB on 8 held-out views of the embedded scene after 300 steps, in 56 s on the same shared cores.
"""

from ml_collections.config_dict import placeholder

from configs.nerf._scene import adam, config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    made = config(
        size=64,
        batch_size=1024 if smoke else 2048,
        model=dict(
            name='instant_ngp.hash_field',
            levels=8 if smoke else 12,
            features=2,
            size=2**14 if smoke else 2**16,
            coarsest=16,
            finest=256 if smoke else 1024,
            low=-2.0,
            high=2.0,
        ),
        render=dict(
            coarse=64 if smoke else 128,
            fine=0,
            shared=True,
            casting='intervals',
            background=None,
            contract=True,
            box=(-2.0, 2.0),
            cells=32,
            budget=16,
            thin=0.01,
            decay=0.8,
        ),
        tx=adam(1e-2, b2=0.99, eps=1e-15),
        steps=300 if smoke else 1600,
        every='100%',
        at_least=20.0 if smoke else 25.0,
    )
    if not smoke:
        made.data.name = 'capture'
        made.data.source = dict(
            layout=placeholder(str),  # 'blender', 'ngp', 'llff' or 'colmap'; None tells by the files
            factor=placeholder(int),  # pictures that many times smaller; None: at most 256 pixels on their longer side
            hold=8,  # each 8th view is held out, where the layout has no splits
            near=placeholder(float),  # in the capture's units; None derives both
            far=placeholder(float),
            images='images',  # COLMAP's folder of pictures
        )
    return made

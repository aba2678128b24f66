"""A hash grid on a capture of your own: a folder of pictures with their cameras, in any of four layouts.

    ./launch.sh run configs/nerf/capture.py --config.data.path=FOLDER           # `:smoke`: the embedded scene
    ./launch.sh predict --workdir=runs/nerf/capture/default --input=60x240      # an orbit

The layout determines the lens, near and far and the size of the pictures (`canon.data.scenes.layouts`). Space beyond
the cameras' distance is contracted (mip-NeRF 360, eq. 10), so the extent of the scene need not be known. Measured on 50
photographs of 1080x1920 from one side (instant-ngp's fox), reduced by 8: 25.17 dB on 7 held-out views after 1,600
steps, 171 s for the whole command on 2 CPU cores (25.05 dB after 1,500 steps, 25.42 after 1,800). `:smoke`: 23.8 dB on
8 held-out views of the embedded scene after 300 steps, in 56 s while other work shared the cores.
"""

from ml_collections.config_dict import placeholder

from configs.nerf._scene import adam, config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    result = config(
        size=64,
        batch_size=1024 if smoke else 2048,
        model=dict(
            name='instant_ngp.hash_field',
            levels=8 if smoke else 12,  # of the grid
            features=2,  # per vertex and level
            size=2**14 if smoke else 2**16,  # the most rows of a level
            coarsest=16,  # cells per axis of the first level
            finest=256 if smoke else 1024,  # and of the last
            low=-2.0,  # walls of contracted space
            high=2.0,
        ),
        render=dict(
            coarse=64 if smoke else 128,  # intervals per ray
            fine=0,
            shared=True,
            casting='intervals',
            background=None,  # 'random' for pictures with alpha, 'black' for those without
            contract=True,
            box=(-2.0, 2.0),
            cells=32,  # of the occupancy grid, per axis
            budget=16,  # samples per ray, on average
            thin=0.01,  # optical depth below which an interval is empty
            decay=0.8,  # of a cell's remembered density per update
        ),
        tx=adam(1e-2, b2=0.99, eps=1e-15),
        steps=300 if smoke else 1600,
        every='100%',
        at_least=20.0 if smoke else 25.0,
    )
    if not smoke:
        result.data.name = 'capture'
        result.data.source = dict(
            layout=placeholder(str),  # 'blender', 'ngp', 'llff' or 'colmap'; None: recognised by its files
            factor=placeholder(int),  # divides the size of the pictures; None: at most 256 pixels on the longer side
            hold=8,  # every 8th view is held out, if the layout has no splits
            near=placeholder(float),  # in the capture's units; None derives them
            far=placeholder(float),
            images='images',  # folder of the pictures, of COLMAP
        )
    return result

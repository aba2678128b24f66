"""NeRF on the synthetic scenes of its paper (Mildenhall et al. 2020), as its authors' code runs it.

    ./launch.sh run configs/nerf/blender.py --config.data.path=nerf_synthetic/lego      # or a capture of your own
    ./launch.sh run configs/nerf/blender.py:smoke                                       # the embedded scene

The constants are those of `paper_configs/blender_config.txt`: 64 + 128 samples, 1,024 rays a step (the paper's text
says 4,096), all of one picture, through the pixels' corners, between 2 and 6 before white, Adam at 5e-4 that falls to a
tenth in 500,000 steps. Besides, the first 500 steps take the middle of the pictures, as `config_lego.txt` of the same
code does: it keeps white from taking all. Pictures half as large: `--config.data.source.factor=2`. Published: lego
32.54 dB, the eight scenes 31.01 in the mean. Not run here. `:smoke`, measured on 2 CPU cores: 17.4 dB after 600 steps,
in 58 s.
"""

from configs.nerf._scene import NARROW, adam, config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    found = config(
        size=64,
        batch_size=256 if smoke else 1024,
        train=dict(crop_steps=50 if smoke else 500, single_view=True),
        model=dict(name='nerf.nerf', **(NARROW if smoke else {})),
        render=dict(coarse=32 if smoke else 64, fine=32 if smoke else 128, background='white', density_noise=0.0),
        tx=adam(3e-3 if smoke else 5e-4, eps=1e-7),
        steps=600 if smoke else 500_000,
        at_least=16.5 if smoke else 32.0,
    )
    found.data.pixel_center = 0.0
    if not smoke:
        found.data.name, found.data.source = 'blender', dict(near=2.0, far=6.0, factor=1)
        found.data.evals = dict(val=dict(split='val', views=4), test=dict(split='test', views=200))
        found.run.evals = dict(val=dict(every='2%'), test=dict(every='100%'))
        found.run.checkpoint.every = '1%'
    return found

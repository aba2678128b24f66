"""NeRF on the synthetic scenes of its paper (Mildenhall et al. 2020), as its authors' code runs it.

    ./launch.sh run configs/nerf/blender.py --config.data.path=nerf_synthetic/lego      # or a capture of your own
    ./launch.sh run configs/nerf/blender.py:smoke                                       # the embedded scene

The constants are those of `paper_configs/blender_config.txt`: 64 + 128 samples, 1,024 rays per step (the paper's text
says 4,096) of one picture, through pixel corners, between 2 and 6 over white, Adam at 5e-4 that decays to a tenth in
500,000 steps. In addition the first 500 steps sample the centre of the pictures, as `config_lego.txt` of the same code
does, which keeps white from taking over. For pictures of half the size: `--config.data.source.factor=2`. Published:
lego 32.54 dB, mean of the eight scenes 31.01 dB. Not run here. `:smoke`, measured on 2 CPU cores: 17.4 dB after 600
steps, in 58 s.
"""

from configs.nerf._scene import NARROW, adam, config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    result = config(
        size=64,
        batch_size=256 if smoke else 1024,
        # The first steps sample the centre of the pictures; all rays of a step are of one picture.
        train=dict(crop_steps=50 if smoke else 500, single_view=True),
        model=dict(name='nerf.nerf', **(NARROW if smoke else {})),
        render=dict(coarse=32 if smoke else 64, fine=32 if smoke else 128, background='white', density_noise=0.0),
        tx=adam(3e-3 if smoke else 5e-4, eps=1e-7),
        steps=600 if smoke else 500_000,
        at_least=16.5 if smoke else 32.0,
    )
    result.data.pixel_center = 0.0  # rays through pixel corners, as the authors' code casts them
    if not smoke:
        result.data.name, result.data.source = 'blender', dict(near=2.0, far=6.0, factor=1)
        result.data.evals = dict(val=dict(split='val', views=4), test=dict(split='test', views=200))
        result.run.evals = dict(val=dict(every='2%'), test=dict(every='100%'))
        result.run.checkpoint.every = '1%'
    return result

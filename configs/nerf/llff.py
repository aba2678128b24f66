"""NeRF on forward-facing captures (Mildenhall et al. 2020; LLFF's fern, flower, ...), as its authors' code runs it.

    ./launch.sh run configs/nerf/llff.py --config.data.path=nerf_llff_data/fern # or a capture of your own
    ./launch.sh run configs/nerf/llff.py:smoke                                  # the embedded scene, from one side

The constants are those of `paper_configs/llff_config.txt`: pictures reduced by 4, every 8th held out, normalised device
coordinates, 64 + 128 samples, 4,096 rays per step from all pictures, noise of standard deviation 1 on raw densities,
Adam at 5e-4 that decays to a tenth in 250,000 steps, of which 200,000 are run. Published: fern 25.17 dB, mean of the
eight scenes 26.50 dB. Not run here. `:smoke`, measured on 2 CPU cores: 20.3 dB after 600 steps, in 54 s.
"""

from configs.nerf._scene import NARROW, adam, config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    result = config(
        size=64,
        source=dict(facing=True, views=20),  # a forward-facing capture of the embedded scene
        batch_size=256 if smoke else 4096,
        model=dict(name='nerf.nerf', **(NARROW if smoke else {})),
        render=dict(
            coarse=32 if smoke else 64,  # samples per ray of the coarse level
            fine=32 if smoke else 128,  # further samples, where the coarse level has found density
            background='black',
            density_noise=1.0,  # standard deviation of the noise on raw densities
            ndc=True,  # normalised device coordinates
        ),
        tx=adam(3e-3 if smoke else 5e-4, eps=1e-7),
        steps=600 if smoke else 200_000,
        at_least=17.0 if smoke else 25.0,
    )
    result.data.pixel_center = 0.0
    if not smoke:
        result.tx.learning_rate.steps = '125%'  # the decay is over 250,000 steps, of which 200,000 are run
        result.data.name, result.data.source = 'llff', dict(factor=4, hold=8)
        result.data.evals.test.views = 8
        result.run.evals.test.every = '5%'
        result.run.checkpoint.every = '1%'
    return result

"""FreeNeRF (Yang et al. 2023), for few views: it reveals frequencies one by one and penalises density near the cameras.

    ./launch.sh run configs/nerf/free_nerf.py            # `:smoke`: two minutes

Eight views. Frequencies are revealed over 90 % of the run, and density in the first samples of a ray has the weight
0.01, as in the paper (eq. 3 and 4). Measured, `:smoke` on 2 CPU cores: 18.1 dB on 8 held-out views after 600 steps, in
60 s. So short a run proves nothing: NeRF without either came to 18.3 dB, as it had no time to overfit the eight views.
After 2,500 steps, with all frequencies after 1,250, FreeNeRF has 26.1 dB on 4 held-out views and NeRF 25.6 (one seed).
Evaluations before the end use frequencies that no step has seen. The full form has not been run.
"""

from configs.nerf._scene import NARROW, adam, config


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    steps = 600 if smoke else 20_000
    return config(
        size=64 if smoke else 100,
        batch_size=256 if smoke else 1024,
        train=dict(views=8),  # evenly spaced: too few to determine the scene
        model=dict(name='nerf.nerf', **(NARROW if smoke else {})),
        # Samples per ray of each level.
        render=dict(coarse=32 if smoke else 64, fine=32 if smoke else 128, background='white'),
        # Weight and samples of the occlusion penalty; steps until all frequencies are revealed.
        loss=dict(occlusion=0.01, occlusion_range=10 if smoke else 20, frequency_steps=int(0.9 * steps)),
        tx=adam(3e-3 if smoke else 5e-4, eps=1e-7),
        steps=steps,
        at_least=16.0 if smoke else 20.0,
    )

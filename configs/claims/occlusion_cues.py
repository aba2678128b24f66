"""A claim: motion bridges short occlusions, appearance long ones, and both together most (Wojke et al. 2017).

    ./launch.sh sweep configs/claims/occlusion_cues.py
    ./launch.sh table runs/claims/occlusion_cues

Digits that hide behind 0, 2 or 6 pillars. Motion: SORT that keeps a track for 30 frames. Appearance: DeepSORT without
its gate of motion. Both: DeepSORT. Appearances are simulated, noisy codes of the true identities, so that the claim is
about association and not about a network; `configs/tracking/deep_sort_learnt.py` has learnt ones.

AssA with 0, 2, 6 pillars, means over three sets of 8 sequences: motion 0.61, 0.57, 0.49; appearance 0.80, 0.76,
0.69; both 0.76, 0.73, 0.66: appearance helps; with codes this good the gate of motion may cost some of it.
"""

from configs.claims._tracking import compare, sweep_sequences

DEEP_SORT = dict(name='deep_sort', form='numpy', max_cosine_cost=0.3, gallery_size=30)
CODES = dict(size=16, noise=0.3)
FORMS = dict(
    motion=dict(tracker=dict(name='sort', form='numpy', max_age=30)),
    appearance=dict(tracker=dict(DEEP_SORT, max_motion_distance=1e9), simulated=CODES),
    both=dict(tracker=DEEP_SORT, simulated=CODES),
)


def get_config(arg: str = ''):
    return compare(arg == 'smoke', FORMS, occluders=2)


def sweep():
    for form in FORMS:
        for occluders in (0, 2, 6):
            yield from sweep_sequences(form=form, data__source__occluders=occluders)


def pictures(runs):
    from experiments.claims.tracking import draw_against

    return {'cues': draw_against(runs, 'occluders', lambda config: config['form'])}

"""A claim: trackers that see all frames are more accurate than online ones, and answer only after the last frame.

    ./launch.sh sweep configs/claims/online_batch_tracking.py
    ./launch.sh table runs/claims/online_batch_tracking

Zhang et al. 2008 solve all frames at once by min-cost flow; linking, interpolation and smoothing need later frames too.
An online tracker answers after the time of one frame, the others after the whole sequence.

Means over three sets of 8 sequences: HOTA of SORT 0.495, OC-SORT 0.500 and ByteTrack 0.660; of the flow 0.627 and, with
the steps after it, 0.749; the same steps lift ByteTrack to 0.745. 18 runs of about 3 s on a shared CPU core.
"""

from configs.claims._tracking import compare, sweep_sequences

OFFLINE = ('link', 'interpolate', 'smooth')
FORMS = dict(
    sort=dict(tracker=dict(name='sort', form='numpy')),
    oc_sort=dict(tracker=dict(name='oc_sort', form='numpy')),
    byte_track=dict(tracker=dict(name='byte_track', form='numpy')),
    byte_track_offline=dict(tracker=dict(name='byte_track', form='numpy'), steps=dict(chain=OFFLINE)),
    flow=dict(steps=dict(chain=('flow',))),
    flow_offline=dict(steps=dict(chain=('flow', *OFFLINE))),
)


def get_config(arg: str = ''):
    return compare(arg == 'smoke', FORMS, 0.4)


def sweep():
    for form in FORMS:
        yield from sweep_sequences(form=form)


def pictures(runs):
    from experiments.claims.tracking import draw_forms, draw_latency

    return {'accuracy': draw_forms(runs), 'latency': draw_latency(runs)}

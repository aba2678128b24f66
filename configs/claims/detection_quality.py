"""A claim: MOTA feels missed and false detections, IDF1 broken identities, and HOTA both, and alone imprecise boxes.

    ./launch.sh sweep configs/claims/detection_quality.py
    ./launch.sh table runs/claims/detection_quality

ByteTrack on detections of which a share is missed, some are of nothing, or whose edges are imprecise; one at a time.

From the best to the worst value, means over three sets of 8 sequences: misses of 0 to 40 % cost 38 points of MOTA, 29
of IDF1 and 34 of HOTA; jitter of 0 to 16 % 15, 10 and 25; clutter of 0 to 12 boxes per frame, which has low scores, 1
to 2.
"""

from configs.claims._tracking import compare, sweep_sequences

BASE = dict(miss=0.05, clutter=0.5, jitter=0.04)
VALUES = dict(miss=(0.0, 0.05, 0.2, 0.4), clutter=(0.0, 0.5, 4.0, 12.0), jitter=(0.0, 0.04, 0.1, 0.16))


def get_config(arg: str = ''):
    forms = dict(byte_track=dict(tracker=dict(name='byte_track', form='numpy')))
    return compare(arg == 'smoke', forms, 0.5, **BASE)


def sweep():
    yield from sweep_sequences()
    for name, values in VALUES.items():
        for value in values:
            if value != BASE[name]:
                yield from sweep_sequences(**{f'data__source__{name}': value})


def pictures(runs):
    from experiments.claims.tracking import PARTS, draw_changes

    return {'quality': draw_changes(runs, BASE), 'parts': draw_changes(runs, BASE, PARTS)}

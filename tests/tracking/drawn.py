"""Random sequences of detections, with misses, clutter and jitter."""

import numpy as np


def draw_detections(seed, frames=40, objects=8, slots=14, miss=0.15, clutter=0.05, jitter=2.0, width=400):
    """Returns detections [T, D, ...] of objects that move straight and cross, in random order within a frame.

    Scores of objects are in 0.05..1, so that all kinds of thresholds matter; embeddings of 8 numbers are noisy.
    """
    rng = np.random.default_rng(seed)
    start, velocity = rng.uniform(0, width, (objects, 2)), rng.normal(0, 4, (objects, 2))
    size, codes = rng.uniform(25, 70, (objects, 2)), rng.normal(size=(objects, 8))
    shape = frames, slots
    drawn = {
        'boxes': np.zeros((*shape, 4), np.float32),
        'scores': np.zeros(shape, np.float32),
        'labels': np.zeros(shape, np.int32),
        'valid': np.zeros(shape, bool),
        'embeddings': np.zeros((*shape, 8), np.float32),
    }
    for t in range(frames):
        center = start + velocity * t + rng.normal(0, jitter, (objects, 2))
        extent = size * rng.uniform(0.92, 1.08, (objects, 2))
        boxes = np.concatenate([center - extent / 2, center + extent / 2], 1)
        boxes = np.where(rng.random((objects, 1)) < clutter, boxes + rng.uniform(-200, 200), boxes)
        kept = np.flatnonzero(rng.random(objects) >= miss)
        if t % 17 == 16:
            kept = kept[:0]  # a frame without detections
        order = rng.permutation(kept)
        places = np.sort(rng.permutation(slots)[: len(order)])  # gaps between valid ones
        drawn['boxes'][t, places] = boxes[order]
        drawn['scores'][t, places] = np.where(rng.random(len(order)) < 0.3, rng.uniform(0.05, 0.7), rng.uniform(0.7, 1))
        drawn['labels'][t, places] = order % 2
        drawn['valid'][t, places] = True
        drawn['embeddings'][t, places] = codes[order] + rng.normal(0, 0.15, (len(order), 8))
    return drawn


def table_of(tracks):
    """Returns {(frame, id): box} of the tracks [T, S, ...] of a sequence."""
    frames, slots = np.nonzero(np.asarray(tracks['valid']))
    ids, boxes = np.asarray(tracks['ids'])[frames, slots], np.asarray(tracks['boxes'])[frames, slots]
    table = dict(zip(zip(frames.tolist(), ids.tolist(), strict=True), boxes, strict=True))
    assert len(table) == len(frames)  # no id twice in a frame
    return table


def assert_equal_tracks(tracks, expected, atol=0.02):
    """Compares tables of `table_of`: the same ids in the same frames, boxes within `atol` pixels."""
    assert tracks.keys() == expected.keys()
    for key, box in expected.items():
        np.testing.assert_allclose(tracks[key], box, atol=atol, rtol=1e-4, err_msg=str(key))


def canonical_ids(table):
    """Renames the ids of a table in the order in which they appear, by frame and then by box."""
    names = {}
    for _, id_ in sorted(table, key=lambda key: (key[0], *np.round(table[key], 2))):
        names.setdefault(id_, len(names) + 1)
    return {(frame, names[id_]): box for (frame, id_), box in table.items()}

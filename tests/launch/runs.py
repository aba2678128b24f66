"""Folders of runs as `fit` leaves them, made without training."""

import json

from PIL import Image

from canon.train.workdir import write_json


def make_run(
    folder, *, config='configs/a/b.py', state='done', overrides=None, settings=None, rows=(), picture=None, **status
):
    """Writes a run: `rows` are those of metrics.jsonl, and `picture` is (name, size, colour) of a figure."""
    folder.mkdir(parents=True)
    metrics = {k: v for row in rows for k, v in row.items() if k.startswith('test/')}
    target = {'metric': 'test/accuracy', 'at_least': 0.9}
    write_json(folder / 'run.json', {'config': config, 'overrides': overrides or {}})
    write_json(folder / 'config.json', {'seed': 0, 'target': target, **(settings or {})})
    write_json(folder / 'status.json', {'state': state, 'step': len(rows), 'steps': 9, 'metrics': metrics, **status})
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    if picture is not None:
        (folder / 'figures').mkdir()
        name, size, colour = picture
        Image.new('RGB', size, colour).save(folder / 'figures' / f'{name}.png')
    return folder


def make_curve(values, name='test/accuracy'):
    """Returns rows with the values at steps 1, 2, ..."""
    return [{'step': step, name: value} for step, value in enumerate(values, 1)]

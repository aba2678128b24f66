"""The figures of claims on texts, from the folders of runs that never ran."""

import json

import pytest
from matplotlib.text import Text

from canon.errors import CanonError
from canon.train.runs import find_runs
from configs.claims import learn_to_augment


def write_run(folder, mode, seed, accuracy, learns):
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text(json.dumps(dict(augment=dict(mode=mode), seed=seed)))
    (folder / 'run.json').write_text(json.dumps(dict(config='learn_to_augment.py')))
    metrics = {'test/word_accuracy': accuracy}
    (folder / 'status.json').write_text(json.dumps(dict(state='done', step=20, steps=20, metrics=metrics)))
    rows = [
        {'step': s, 'train/loss': 1.0, **({'train/agent_entropy': 0.69 - s / 100} if learns else {})} for s in (10, 20)
    ]
    rows[-1] |= {'test/edits': 0.2, 'test/edits_random': 0.5} | ({'test/edits_agent': 0.8} if learns else {})
    (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)))


def test_a_sweep_over_augmentations_draws_accuracies_and_what_the_agent_learns(tmp_path):
    points = list(learn_to_augment.sweep())
    assert [list(point.values()) for point in points[::3]] == [['none', 0], ['random', 0], ['learnt', 0]]
    for number, point in enumerate(points):
        mode = point['augment.mode']
        write_run(tmp_path / f'{number}', mode, point['seed'], number / 10, mode == 'learnt')
    figures = learn_to_augment.pictures(find_runs(tmp_path))
    assert set(figures) == {'accuracy', 'agent'}
    for figure in figures.values():
        figure.canvas.draw()
    labels = {t.get_text() for t in figures['accuracy'].findobj(Text)}
    assert {'none', 'random', 'learnt'} <= labels
    entropy, *_ = (axes for axes in figures['agent'].axes if 'entropy' in axes.get_title())
    assert entropy.lines[0].get_xdata().tolist() == [10, 20]
    assert entropy.lines[0].get_ydata() == pytest.approx([0.59, 0.49])
    edits, *_ = (axes for axes in figures['agent'].axes if 'edits' in axes.get_title())
    assert {line.get_label(): line.get_ydata()[0] for line in edits.lines} == pytest.approx(
        {'warped at random': 0.5, 'warped by the agent': 0.8, 'as they are': 0.2}
    )
    with pytest.raises(CanonError, match='no run of this sweep is done'):
        learn_to_augment.pictures([])

"""One page for several runs: their order, names, settings that differ, and its size."""

import json
import re

import pytest

from canon.errors import CanonError, UsageError
from canon.train.runs import find_runs
from launch import compare
from tests.launch.runs import make_curve, make_run


def read_constant(page, name):
    """The value of `NAME = ...` in the script of the page."""
    return json.JSONDecoder().raw_decode(page[page.index(f'{name} = ') + len(name) + 3 :])[0]


def test_runs_are_sorted_by_the_target_and_named_by_what_differs(tmp_path, capsys):
    for seed, best in ((0, 0.5), (1, 0.8)):
        overrides = {'seed': seed, 'tx.name': 'adam'}
        make_run(tmp_path / f's{seed}', overrides=overrides, settings=overrides, rows=make_curve([0.1, best]))
    make_run(tmp_path / 'bad', state='failed', overrides={'tx.name': 'adam'}, error='<b>the loss is NaN</b>')
    assert compare.main([str(tmp_path)]) == 0
    assert '3 runs' in capsys.readouterr().out
    page = (tmp_path / 'compare.html').read_text()
    assert [run['name'] for run in read_constant(page, 'RUNS')] == ['seed=1', 'seed=0', 'bad']
    assert '&lt;b&gt;the loss is NaN' in page
    assert '<b>the loss' not in page
    (panel,) = read_constant(page, 'PANELS')
    assert panel == {'name': 'test/accuracy', 'curves': [[0, [1, 2], [0.1, 0.8]], [1, [1, 2], [0.1, 0.5]]]}
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched


def test_settings_that_all_runs_share_are_left_out(tmp_path):
    make_run(tmp_path / 'a', settings={'model': {'depth': 3, 'width': 8}})
    make_run(tmp_path / 'b', settings={'model': {'depth': 4, 'width': 8}, 'extra': 1})
    differences = dict(compare.find_differences(find_runs(tmp_path)))
    assert differences == {'model.depth': [3, 4], 'extra': [None, 1]}


def test_a_long_curve_keeps_its_ends_and_its_spike():
    points = [(step, float(step % 7)) for step in range(10_000)]
    points[5000] = (5000, 1e6)
    steps, values = compare._thin(points, 400)
    assert len(steps) <= 402
    assert (steps[0], steps[-1]) == (0, 9999)
    assert values[steps.index(5000)] == 1e6
    assert steps == sorted(steps)


def test_values_that_are_not_finite_are_gaps():
    assert compare._thin([(1, float('nan')), (2, 0.5)], 400) == ([1, 2], [None, 0.5])


def test_a_run_in_stages_shows_the_curves_of_each(tmp_path):
    for stage, value in (('0-rpn', 0.25), ('1-head', 0.75)):
        make_run(tmp_path / 'run' / stage, rows=make_curve([value]))
    panels = compare.read_panels(find_runs(tmp_path), None)
    assert [(panel['name'], panel['curves'][0][2]) for panel in panels] == [
        ('0-rpn/test/accuracy', [0.25]),
        ('1-head/test/accuracy', [0.75]),
    ]


def test_sixty_runs_have_sixty_colours_and_fit_a_page(tmp_path):
    for i in range(60):
        picture = ('test-example', (300, 75), (4 * i, 0, 0))
        make_run(tmp_path / f'{i:02}', overrides={'seed': i}, rows=make_curve([0.001 * i] * 30), picture=picture)
    compare.main([str(tmp_path)])
    page = (tmp_path / 'compare.html').read_text()
    assert len({run['colour'] for run in read_constant(page, 'RUNS')}) == 60
    assert page.count('src="data:image/webp') == 60
    assert len(page) < 1e6


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(CanonError, match=f'no runs below {tmp_path}'):
        compare.main([str(tmp_path)])
    with pytest.raises(UsageError, match='no folder'):
        compare.main([str(tmp_path / 'absent')])
    make_run(tmp_path / 'run')
    with pytest.raises(UsageError, match='give the file of the page'):
        compare.main([str(tmp_path), f'--output={tmp_path}'])

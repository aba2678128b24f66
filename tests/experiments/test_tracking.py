"""The experiment `tracking`: runs with their files, predictions for a user's folder, and what it refuses."""

import csv
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from canon.data.tracking import flatten_frames, load_sequences, pad_frames, read_mot_results, write_mot_results
from canon.errors import UsageError
from canon.metrics.tracking import combine_scores, count_detections, integrate_along_pr, score_tracks
from canon.tasks import tracking as tasks
from canon.tasks.predictions import write_predictions
from canon.tracking import run, sort
from canon.train import fit
from experiments import configs, tracking

SOURCE = dict(num_sequences=2, length=20)


def load(root, name, **settings):
    config = configs.load(f'{root}/configs/tracking/{name}.py:smoke')
    with config.unlocked():
        config.data.source.update(SOURCE)
        config.data.evals.test.update(dict(split='test[:2]', video_frames=3))
        config.update(settings)
    return config


@pytest.fixture(scope='module')
def run_result(root, tmp_path_factory):
    config = load(root, 'sort')
    return fit(tracking.make(config), config, tmp_path_factory.mktemp('run'), quiet=True)


def test_a_run_scores_what_it_writes(run_result):
    folder = run_result.workdir / 'results' / 'test'
    for sequence in load_sequences('digit_sequences', 'test', **SOURCE):
        name = sequence.info.name
        detections = pad_frames(sequence.detections, 20)
        expected = flatten_frames(run(sort(form='numpy'), detections)[1])
        written = read_mot_results(folder / f'{name}.txt', 20)
        assert written.ids.tolist() == expected.ids.tolist()
        np.testing.assert_allclose(written.boxes, expected.boxes, atol=0.011)
        score = score_tracks(sequence.truth, expected, 20).summarise()
        assert run_result.metrics[f'test/{name}/HOTA'] == score['HOTA']
    rows = list(csv.DictReader((folder / 'scores.csv').open()))
    assert [row['sequence'] for row in rows] == ['test-0000', 'test-0001', 'combined']
    assert float(rows[-1]['MOTA']) == pytest.approx(run_result.metrics['test/MOTA'], abs=1e-5)
    assert {p.name for p in (run_result.workdir / 'figures').glob('test-*')} == {
        'test-identities.png',
        'test-tracks.gif',
    }


def test_causes_add_up_to_the_switches(run_result):
    causes = [value for key, value in run_result.metrics.items() if key.startswith('test/switches_')]
    assert len(causes) == 4
    assert sum(causes) == run_result.metrics['test/IDSW'] > 0


def test_the_compiled_form_has_the_same_metrics(root, run_result, tmp_path):
    config = load(root, 'sort')
    config.tracker.form = 'jax'
    config.data.evals.test.video_frames = 0
    metrics = fit(tracking.make(config), config, tmp_path, quiet=True).metrics
    for name in ('MOTA', 'IDF1', 'HOTA', 'IDSW'):
        assert metrics[f'test/{name}'] == pytest.approx(run_result.metrics[f'test/{name}'], abs=1e-4)


def write_mot_folder(path):
    sequence = load_sequences('digit_sequences', 'test', **SOURCE)[0]
    write_mot_results(path / 'det' / 'det.txt', sequence.detections, 'detections')
    return sequence


def test_predict_writes_the_results_and_a_video_of_a_folder_with_detections(root, tmp_path):
    write_mot_folder(tmp_path / 'mine')
    config = load(root, 'sort')
    config.data.evals.test.results = 'csv'
    experiment = tracking.make(config)
    made = tracking.predict(config, experiment, {}, {}, str(tmp_path / 'mine'))
    write_predictions(made, tmp_path / 'out')
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {'mine.csv', 'mine.mp4'}
    assert (tmp_path / 'out' / 'mine.csv').read_text().count('\n') > 20
    import imageio.v3 as imageio

    frames = imageio.imread(tmp_path / 'out' / 'mine.mp4')
    assert len(frames) == 20


def test_frames_without_a_detector_are_refused_in_one_line(root, tmp_path):
    import imageio.v3 as imageio

    imageio.imwrite(tmp_path / '000001.png', np.zeros((32, 48, 3), np.uint8))
    config = load(root, 'sort')
    with pytest.raises(UsageError, match=r'has no detections; .*--config.detector.run=FOLDER'):
        next(tracking.predict(config, tracking.make(config), {}, {}, str(tmp_path)))
    with pytest.raises(UsageError, match=r'neither a folder nor a .txt of detections nor a video'):
        tasks.read_user_sequence(str(tmp_path / '000001.png'))
    (tmp_path / 'broken.mp4').write_bytes(b'not a video')
    with pytest.raises(UsageError, match=r'broken.mp4 cannot be read as a video'):
        tasks.read_user_sequence(str(tmp_path / 'broken.mp4'))


def test_a_tracker_of_appearance_without_one_is_refused(root):
    config = load(root, 'deep_sort')
    with config.unlocked():
        del config.simulated
    sequence = load_sequences('digit_sequences', 'test', **SOURCE)[0]
    with pytest.raises(UsageError, match=r'compares appearances: give --config.appearance.run=FOLDER'):
        tasks.run_system(tracking._bind_system(config, {}), sequence)


@pytest.mark.parametrize(
    ('section', 'value', 'message'),
    [
        ('tracker', dict(name='sorted'), "no tracker is called 'sorted'; did you mean 'sort'"),
        ('tracker', dict(name='sort', min_iu=0.3), r'tracker.min_iu: .* takes no such key; did you mean .min_iou'),
        ('tracker', dict(name='sort', min_iou=2), r'tracker.min_iou=2 must be a number at least 0 and at most 1'),
        ('tracker', dict(name='byte_track', max_lost=-1), r'tracker.max_lost=-1 must be a whole number at least 0'),
        ('tracker', dict(name='oc_sort', slots=0), r'tracker.slots=0 must be a whole number at least 1'),
        ('tracker', dict(name='deep_sort', max_cosine_cost=3), r'tracker.max_cosine_cost=3 must be .* at most 2'),
        ('steps', dict(chain=('flow', 'link'), link=dict(max_gap=0)), r'steps.link.max_gap=0 must be a whole number'),
        ('steps', dict(chain=('links',)), "steps.links: there is no step 'links'; did you mean 'link'"),
        ('detector', dict(run='/nonexistent'), r'detector: /nonexistent holds no run'),
    ],
)
def test_settings_that_do_not_exist_are_named(root, section, value, message):
    from ml_collections import ConfigDict

    config = load(root, 'sort')
    with config.unlocked():
        config[section] = ConfigDict(value)
    with pytest.raises(UsageError, match=message):
        tracking.make(config)


def test_simulated_appearances_tell_objects_apart_as_well_as_they_are_told_to():
    sequence = load_sequences('digit_sequences', 'test', **SOURCE)[0]
    detections = pad_frames(sequence.detections, 20)
    objects = tasks.name_detections(sequence.truth, detections)
    settings = tasks.SimulatedAppearance(size=512, noise=0.5)
    embeddings = tasks.simulate_embeddings(settings, sequence, detections)['embeddings']
    known = objects >= 0
    unit = embeddings[known] / np.linalg.norm(embeddings[known], axis=-1, keepdims=True)
    same = objects[known][:, None] == objects[known]
    cosine = unit @ unit.T
    np.fill_diagonal(same, False)
    assert cosine[same].mean() == pytest.approx(1 / (1 + 0.25), abs=0.02)
    assert abs(cosine[~same & ~np.eye(len(same), dtype=bool)].mean()) < 0.1


def test_a_job_of_eight_devices_with_two_evaluators_has_the_metrics_of_one_device(run_result, root, tmp_path):
    """Two sequences are fewer than the eight rows of a batch, of which the others are masked."""
    source = textwrap.dedent(
        """
        import sys

        import jax

        from canon.train import fit
        from experiments import tracking
        from tests.experiments.test_tracking import load

        assert len(jax.devices()) == 8
        config = load(sys.argv[1], 'sort')
        with config.unlocked():
            config.data.evals.half = dict(split='test[:1]', preset='mot15', video_frames=0)
            config.run.evals.half = dict(every=1)
            config.data.evals.test.video_frames = 0
        metrics = fit(tracking.make(config), config, sys.argv[2], quiet=True).metrics
        print(json.dumps({key: value for key, value in metrics.items() if 'frames_per_second' not in key}))
        """
    )
    flags = {'XLA_FLAGS': '--xla_force_host_platform_device_count=8', 'JAX_PLATFORMS': 'cpu'}
    environment = {**os.environ, **flags, 'PYTHONPATH': f'{root}:{root}/lib'}
    command = [sys.executable, '-c', f'import json{source}', str(root), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout.splitlines()[-1])
    expected = {key: value for key, value in run_result.metrics.items() if key in metrics}
    assert {key: metrics[key] for key in expected} == expected
    assert 'test/test-0001/HOTA' in expected
    assert metrics['half/HOTA'] == run_result.metrics['test/test-0000/HOTA']


def test_pr_mota_is_the_integral_over_runs_at_each_threshold(root, tmp_path):
    thresholds = (0.0, 0.4, 0.8)
    config = load(root, 'sort')
    config.data.evals.test.update(dict(pr_thresholds=thresholds, video_frames=0))
    metrics = fit(tracking.make(config), config, tmp_path, quiet=True).metrics
    data, values, counts = load_sequences('digit_sequences', 'test', **SOURCE), [], 0
    for threshold in thresholds:
        scores = []
        for sequence in data:
            kept = sequence.detections.select(sequence.detections.scores >= threshold)
            tracks = flatten_frames(run(sort(form='numpy'), pad_frames(kept, 20))[1])
            scores.append(score_tracks(sequence.truth, tracks, 20))
        values.append(combine_scores(scores).clear['MOTA'])
    for sequence in data:
        table = sequence.detections
        counted = count_detections(sequence.truth, table, table.scores, 20, thresholds)
        counts = counts + np.stack([*counted[:2], np.full(3, counted[2])])
    curve = counts[0] / counts[1], counts[0] / counts[2]
    assert metrics['test/PR_MOTA'] == pytest.approx(integrate_along_pr(values, *curve))
    assert 0 < metrics['test/PR_MOTA'] < 1
    with config.unlocked():
        config.data.evals.test.pr_thresholds = (0.5, 0.1)
    with pytest.raises(UsageError, match=r'pr_thresholds=\(0.5, 0.1\) must be two or more ascending scores'):
        tracking.make(config)

"""From a detector to tracks: the stages of a run, then the same detector on a folder of frames and on a video."""

import imageio.v3 as imageio
import numpy as np
import pytest

from canon.data.images.videos import iterate_frames
from canon.data.tracking import SequenceInfo, load_sequences, make_table, read_mot_results
from canon.errors import CanonError, UsageError
from canon.tasks import tracking as tasks
from canon.tasks.predictions import write_predictions
from canon.tasks.tracking.detecting import map_classes
from canon.train import run_stages
from experiments import configs, staged, tracking
from tests.quick import quick_programs

SOURCE = dict(num_sequences=2, length=6, height=64, width=96, sizes=(20, 30), objects=(2, 3))
# A detector of four steps is sure of nothing.
UNSURE = dict(name='byte_track', form='numpy', high_score=0.05, low_score=0.04, new_score_margin=0.0, max_cost=0.99)


def load():
    config = configs.load(f'{configs.ROOT}/configs/tracking/detected_digits.py:smoke')
    with config.unlocked():
        config.data.source = SOURCE
        detector = config.stages.detector
        detector.model.backbone.width = 1 / 32
        detector.data.source.every = 2
        detector.data.batch_size = 2
        detector.data.evals.test.split = 'test[:1]'
        detector.run.update(dict(steps=4, log=()))
        config.stages.tracking.data.evals.test.update(dict(split='test[:1]', video_frames=2))
        config.stages.tracking.tracker = UNSURE
        config.stages.tracking.detections.most = 5
    return config


@pytest.fixture(scope='module')
def run_result(tmp_path_factory):
    config = load()
    with quick_programs():
        return run_stages(staged.make(config), config, tmp_path_factory.mktemp('run'), quiet=True)


@pytest.fixture(scope='module')
def system(run_result):
    """The config of a tracker with the detector of the run."""
    config = configs.load(f'{configs.ROOT}/configs/tracking/byte_track.py:smoke')
    with config.unlocked():
        config.data.source = SOURCE
        config.detector.run = str(run_result.workdir.parent / '0-detector')
        config.detections.most = 5
        config.tracker = UNSURE
        config.data.evals.test.results = 'csv'
    return config


@pytest.fixture(scope='module')
def sequence():
    return load_sequences('digit_sequences', 'test[:1]', **SOURCE)[0]


def test_what_the_detector_sees_is_tracked_and_scored(run_result, system, sequence):
    assert run_result.status == 'done'
    written = read_mot_results(run_result.workdir / 'results' / 'test' / f'{sequence.info.name}.txt', 6)
    tracks, _ = tasks.run_system(tracking._bind_system(system, {}), sequence)
    assert written.ids.tolist() == tracks.ids.tolist() != []
    np.testing.assert_allclose(written.boxes, tracks.boxes, atol=0.011)
    assert np.bincount(tracks.frames).max() <= 5
    # The tracks are of the detector, and not of the detections of the data set.
    given, _ = tasks.run_system(tracking._bind_system(system, {})._replace(detect=None), sequence)
    assert given.boxes.tolist() != tracks.boxes.tolist()
    assert np.isfinite(run_result.metrics['test/HOTA'])


def test_a_folder_of_frames_and_a_video_have_the_same_tracks(system, sequence, tmp_path):
    """A GIF of the frames loses colours, so the folder has the frames of the GIF."""
    pictures = [sequence.read_frame(t) for t in range(6)]
    imageio.imwrite(tmp_path / 'mine.gif', np.stack(pictures), duration=40, loop=0)
    (tmp_path / 'mine').mkdir()
    for t, picture in enumerate(iterate_frames(tmp_path / 'mine.gif')):
        imageio.imwrite(tmp_path / 'mine' / f'{t:03d}.png', picture)
    experiment, tables = tracking.make(system), {}
    for name in ('mine', 'mine.gif'):
        made = tracking.predict(system, experiment, {}, {}, str(tmp_path / name))
        write_predictions(made, tmp_path / f'{name}.out')
        assert {p.name for p in (tmp_path / f'{name}.out').iterdir()} == {'mine.csv', 'mine.mp4'}
        tables[name] = (tmp_path / f'{name}.out' / 'mine.csv').read_text()
        assert len(imageio.imread(tmp_path / f'{name}.out' / 'mine.mp4')) == 6
    assert tables['mine'] == tables['mine.gif']
    assert tables['mine'].count('\n') > 6


def test_a_video_is_read_one_frame_after_the_other(sequence, tmp_path, monkeypatch):
    imageio.imwrite(tmp_path / 'mine.gif', np.stack([sequence.read_frame(t) for t in range(6)]), duration=40, loop=0)
    expected, decoded = list(iterate_frames(tmp_path / 'mine.gif')), []
    original = imageio.imiter
    monkeypatch.setattr(imageio, 'imiter', lambda path: (decoded.append(1) or frame for frame in original(path)))
    video = tasks.read_user_sequence(str(tmp_path / 'mine.gif'))
    assert (video.info.length, video.info.height, video.info.width) == (6, 64, 96)
    decoded.clear()
    for t in (0, 1, 2, 5):
        np.testing.assert_array_equal(video.read_frame(t), expected[t])
    assert len(decoded) == 6  # each once
    np.testing.assert_array_equal(video.read_frame(0), expected[0])
    assert len(decoded) == 6  # the last ones are remembered
    with pytest.raises(IndexError, match='no frame 6'):
        video.read_frame(6)


def test_more_boxes_than_slots_are_a_clear_line(system, sequence):
    config = system.copy_and_resolve_references()
    with config.unlocked():
        config.tracker = dict(name='sort', form='numpy', slots=4)
    with pytest.raises(CanonError, match=r'slots were taken; set --config.tracker.slots=8, or .*detections.min_score'):
        tasks.run_system(tracking._bind_system(config, {}), sequence)


def test_only_the_best_detections_of_a_frame_are_given():
    boxes = np.tile([0.0, 0, 4, 4], (5, 1))
    table = make_table([0, 0, 0, 2, 2], boxes=boxes, scores=[0.2, 0.9, 0.5, 0.1, 0.3], labels=[0, 1, 2, 3, 4])
    given = tasks.select_detections(table, 3, tasks.DetectionInput(min_score=0.2, most=2))
    assert given.labels.tolist() == [1, 2, 4]
    assert given.frames.tolist() == [0, 0, 2]


def test_no_detection_is_dropped_unasked_and_dropped_ones_are_counted():
    table = make_table([0, 0, 1], boxes=np.tile([0.0, 0, 4, 4], (3, 1)), scores=[-2.5, 0.9, -0.1])
    assert tasks.select_detections(table, 2, tasks.DetectionInput()).scores.tolist() == [-2.5, 0.9, -0.1]
    assert tasks.describe_dropped(tasks.DetectionInput(), 3, 3) == ''
    line = tasks.describe_dropped(tasks.DetectionInput(min_score=0.25, most=2), 1, 3)
    assert line == 'detections.min_score=0.25 and detections.most=2 dropped 2 of 3 detections'


def test_a_file_of_detections_is_a_sequence(tmp_path):
    (tmp_path / 'mine.txt').write_text('1,-1,5,6,10,12,0.75,-1,-1,-1\n3,-1,5,6,10,12,-2.5,-1,-1,-1\n')
    sequence = tasks.read_user_sequence(str(tmp_path / 'mine.txt'))
    assert sequence.info[:2] == ('mine', 3)
    assert sequence.detections is not None
    assert sequence.detections.scores.tolist() == [0.75, -2.5]
    (tmp_path / 'mine.txt').write_text('')
    with pytest.raises(UsageError, match=r'mine.txt is empty; a sequence has at least one detection'):
        tasks.read_user_sequence(str(tmp_path / 'mine.txt'))


def test_predicting_with_a_benchmark_needs_none():
    config = configs.load(f'{configs.ROOT}/configs/tracking/mot17.py')
    with pytest.raises(UsageError, match=r'give --config.data.source.path=FOLDER'):
        tracking.make(config)
    assert 'test' in tracking.without_data(config, {}).evals


def test_classes_of_a_detector_are_those_of_the_sequence_by_name():
    info = SequenceInfo('0000', 1, class_names=('car', 'van', 'pedestrian'))
    assert map_classes(('dog', 'Person', 'Car'), info).tolist() == [-1, 2, 0]
    with pytest.raises(UsageError, match=r'the detector has no class of 0000 \(car, van, pedestrian\), only dog'):
        map_classes(('dog',), info)

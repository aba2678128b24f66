"""Files of tracking benchmarks, written byte by byte with the quirks of their formats, and tables of boxes."""

import doctest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from canon.data import tracking
from canon.data.tracking import tables
from canon.errors import UsageError
from canon.metrics.tracking import presets

# --- tables ----------------------------------------------------------------------------------------------------------


def draw_table(seed=0, length=12, count=40):
    """A table of boxes at multiples of 1/4, several of some frames and none of others, without doubled ids."""
    rng = np.random.default_rng(seed)
    places = rng.choice(length * 9, count, replace=False)
    places[places // 9 == 5] += 9 * length  # frame 5 is empty, and these are dropped
    places = places[places < length * 9]
    count = len(places)
    low = rng.integers(0, 400, (count, 2)) / 4
    boxes = np.concatenate([low, low + rng.integers(1, 200, (count, 2)) / 4], 1)
    labels, scores = rng.integers(0, 3, count), rng.integers(0, 64, count) / 64
    return tracking.make_table(places // 9, places % 9, boxes, scores, labels, rng.random(count) < 0.2)


def check_equal(a, b, but=()):
    for name, x in a._asdict().items():
        if name not in but:
            np.testing.assert_array_equal(x, getattr(b, name), err_msg=name)


def test_frames_are_padded_and_flattened_again():
    table = draw_table()
    counts = tracking.count_rows(table, 12)
    assert counts.min() == 0, 'a frame without rows'
    padded = tracking.pad_frames(table, 12)
    assert padded['boxes'].shape == (12, counts.max(), 4)
    np.testing.assert_array_equal(padded['valid'].sum(1), counts)
    assert (padded['ids'][~padded['valid']] == -1).all()
    assert {x.dtype.name for x in padded.values()} == {'float32', 'int32', 'bool'}
    check_equal(tracking.flatten_frames(padded), table, but=('ignored',))
    wide = tracking.pad_frames(table, 14, slots=20)
    check_equal(tracking.flatten_frames(wide), table, but=('ignored',))
    empty = tracking.pad_frames(tracking.make_table([]), 3)
    assert empty['boxes'].shape == (3, 1, 4)
    assert not empty['valid'].any()


def test_more_rows_than_slots_is_an_error_or_counted():
    table = draw_table()
    counts = tracking.count_rows(table, 12)
    with pytest.raises(UsageError, match=f'frame {counts.argmax()} has {counts.max()} rows and there are 3 slots'):
        tracking.pad_frames(table, 12, slots=3)
    padded = tracking.pad_frames(table, 12, slots=3, overflow='count')
    np.testing.assert_array_equal(padded['dropped'], np.maximum(counts - 3, 0))
    for t in range(12):
        rows = np.flatnonzero(table.frames == t)
        kept = np.sort(rows[np.argsort(-table.scores[rows], kind='stable')][:3])
        np.testing.assert_array_equal(padded['ids'][t][padded['valid'][t]], table.ids[kept])
    with pytest.raises(UsageError, match='a row is of frame 11, and the frames are 0 to 9'):
        tracking.pad_frames(table, 10)
    with pytest.raises(UsageError, match=r"columns of different lengths: \{'frames': 2, 'ids': 1"):
        tracking.make_table([0, 1], [3], np.zeros((2, 4)))


# --- MOTChallenge ----------------------------------------------------------------------------------------------------

SEQINFO = '[Sequence]\nname=MOT17-02\nimDir=img1\nframeRate=30\nseqLength=4\nimWidth=64\nimHeight=48\nimExt=.jpg\n'
# Sorted by id and then by frame, as those of MOT17 are, with the line ends of Windows.
TRUTH = b'1,5,10.5,20,30,40.25,1,1,1\r\n4,5,11,20,30,40,1,1,.5\r\n2,12,1,1,9,9,0,8,0\r\n'
# A byte order mark, spaces, commas at the ends of lines, an empty line.
DETECTIONS = b'\xef\xbb\xbf1, -1, 5, 6, 10, 12, 0.75, -1, -1, -1,\n\n3, -1, 5, 6, 10, 12, -2.5, -1, -1, -1,\n'


def make_mot(root, name='MOT17-02'):
    folder = root / name
    for part in ('gt', 'det', 'img1'):
        (folder / part).mkdir(parents=True)
    (folder / 'seqinfo.ini').write_text(SEQINFO)
    (folder / 'gt/gt.txt').write_bytes(TRUTH)
    (folder / 'det/det.txt').write_bytes(DETECTIONS)
    for i in range(1, 5):
        cv2.imwrite(str(folder / f'img1/{i:06d}.jpg'), np.zeros((48, 64, 3), np.uint8))
    return folder


def test_a_sequence_of_mot17(tmp_path):
    make_mot(tmp_path / 'train')
    sequence = tracking.load_sequences('mot_challenge', 'train', path=str(tmp_path))[0]
    info = sequence.info
    assert info[:5] == ('MOT17-02', 4, 30.0, 48, 64)
    assert info.class_names == tracking.MOT_CLASSES
    truth = sequence.truth
    assert truth is not None
    assert truth.frames.tolist() == [0, 1, 3]
    assert truth.ids.tolist() == [5, 12, 5]
    assert truth.boxes[0].tolist() == [9.5, 19, 39.5, 59.25]
    assert truth.labels.tolist() == [0, 7, 0]
    assert truth.ignored.tolist() == [False, True, False]
    detections = sequence.detections
    assert detections is not None
    assert detections.frames.tolist() == [0, 2]
    assert detections.ids.tolist() == [-1, -1]
    assert detections.scores.tolist() == [0.75, -2.5]
    assert detections.boxes[0].tolist() == [4, 5, 14, 17]
    assert isinstance(sequence.frames, list)
    assert [p.name for p in sequence.frames] == [f'{i:06d}.jpg' for i in range(1, 5)]
    # The labels that the rules of the benchmarks drop are those of these names.
    dropped = {presets._ON_VEHICLE: 'person_on_vehicle', presets._VEHICLE: 'non_mot_vehicle'}
    dropped |= {presets._STATIC: 'static_person', presets._DISTRACTOR: 'distractor', presets._REFLECTION: 'reflection'}
    assert {label: tracking.MOT_CLASSES[label] for label in dropped} == dropped
    assert tracking.MOT_CLASSES[presets._PEDESTRIAN] == 'pedestrian'


def test_a_sequence_of_mot15_without_seqinfo(tmp_path):
    """Ten columns, of which the last three are places in the world; flags may be 0; no images."""
    folder = tmp_path / 'TUD-Campus/gt'
    folder.mkdir(parents=True)
    (folder / 'gt.txt').write_bytes(
        b'1,1,399,182,121,229,1,4.4,-5.5,0\n1,2,282,201,92,184,0,-1,-1,-1\n9,1,3,4,5,6,1,1,1,1'
    )
    sequence = tracking.read_mot_sequence(tmp_path / 'TUD-Campus')
    assert sequence.info.length == 9
    assert sequence.info.class_names == ('pedestrian',)
    truth = sequence.truth
    assert truth is not None
    assert truth.labels.tolist() == [0, 0, 0]
    assert truth.ignored.tolist() == [False, True, False]
    assert sequence.frames is sequence.detections is None


def test_results_and_detections_of_mot_are_written_and_read(tmp_path):
    table = draw_table()
    plain = table._replace(labels=0 * table.labels, ignored=table.ignored & False)
    tracking.write_mot_results(tmp_path / 'a/S.txt', table)
    first = (tmp_path / 'a/S.txt').read_text().splitlines()[0].split(',')
    assert first[:2] == [str(table.frames[0] + 1), str(table.ids[0])]
    assert float(first[2]) == table.boxes[0, 0] + 1
    check_equal(tracking.read_mot_results(tmp_path / 'a/S.txt', 12), plain)
    tracking.write_mot_results(tmp_path / 'det.txt', table, 'detections')
    check_equal(tracking.read_mot_detections(tmp_path / 'det.txt', 12), plain._replace(ids=0 * table.ids - 1))
    tracking.write_mot_results(tmp_path / 'empty.txt', tracking.make_table([]))
    assert not len(tracking.read_mot_results(tmp_path / 'empty.txt').frames)
    sequence = tracking.TrackSequence(tracking.SequenceInfo('S', 12), table)
    check_equal(tracking.read_mot_folder_of_results(tmp_path / 'a', [sequence])['S'], plain)
    tracking.write_mot_folder_of_results({'S': table, 'T': table}, tmp_path / 'a')
    with pytest.raises(UsageError, match=r'a/T.txt is of none of the sequences S'):
        tracking.read_mot_folder_of_results(tmp_path / 'a', [sequence])


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'1,1,nan,2,3,4,1\n', r'line 1: a value is not a finite number'),
        (b'1,1,2,2,3,4,1\n\n2,1,2,2,-3,4,1\n', r'line 3: the box has the size -3 x 4; sizes must not be negative'),
        (b'0,1,2,2,3,4,1\n', r'line 1: frame 0; the format counts frames from 1'),
        (b'1,1,2,2,3,4,1\n11,1,2,2,3,4,1\n', r'line 2: frame 11, and the sequence has frames 1 to 10; is the file of'),
        (b'1,1,2,2,3,4,1\n1,2,2,2,3,4,1\n1,1,5,2,3,4,1\n', r'line 3: id 1 is a second time in frame 1'),
        (b'5,1,2,2,3,4,1\n6,1,2,2,3,4,1\n2,1,5,2,3,4,1\n', r'line 3: id 1 goes back from frame 6 to frame 2; sort'),
        (b'1,-1,2,2,3,4,1\n', r'line 1: all ids are -1: these are detections'),
        (b'1,1.5,2,2,3,4,1\n', r'line 1: the id 1.5 is not an integer'),
        (b'1,1,2,2,3,4,1\n2,1,2,2,x,4,1\n', r"line 2: 'x' is not a number"),
        (b'1,1,2,2,3,4,1\n2,1,2,2,3,4\n', r'line 2 has 6 columns, and the lines before have 7'),
        (b'1,2,3\n', r"has 3 columns, and MOTChallenge's result has 6 to 10; it looks like 3 numbers between commas"),
        (b'0 1 Car 0 0 -1 1 2 3 4 1 1 1 1 1 1 1\n', r"looks like KITTI's tracking labels"),
        (b'0 0.5 0.5 0.1 0.1\n', r"looks like YOLO's labels"),
        (b'<?xml version="1.0"?>\n<sequence name="M">\n', r"looks like UA-DETRAC's XML"),
        (b'{"images": []}\n', r'looks like JSON'),
        (b'frame,id,x0,y0,x1,y1\n', r'looks like a CSV with a line of names'),
        (b'1 1 2 2 3 4 1\n', r'looks like numbers between spaces, and commas are expected'),
        (b'\xff\xfe1', r'is not text'),
    ],
)
def test_bad_results_are_named(tmp_path, content, message):
    (tmp_path / 'S.txt').write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        tracking.read_mot_results(tmp_path / 'S.txt', 10)
    assert str(tmp_path / 'S.txt') in str(caught.value)
    assert '\n' not in str(caught.value)


def test_bad_truth_and_detections_of_mot_are_named(tmp_path):
    path = tmp_path / 'f.txt'
    path.write_bytes(b'1,1,2,2,3,4,1,14,1\n')
    with pytest.raises(UsageError, match='line 1: the class 14 is not 1 to 13'):
        tracking.read_mot_truth(path)
    path.write_bytes(b'1,3,2,2,3,4,1,-1,-1,-1\n')
    with pytest.raises(UsageError, match='has the id 3 where detections have -1: it looks like truth or results'):
        tracking.read_mot_detections(path)
    path.write_bytes(b'2,-1,2,2,3,4,1,-1,-1,-1\n1,-1,2,2,3,4,1,-1,-1,-1\n')
    with pytest.raises(UsageError, match='line 2: frame 1 follows frame 2; detections are in order of frames'):
        tracking.read_mot_detections(path)
    path.write_bytes(b'999999999,-1,2,2,3,4,1,-1,-1,-1\n')
    with pytest.raises(UsageError, match='line 1: frame 999999999; sequences have at most 10000000 frames'):
        tracking.read_mot_detections(path)
    with pytest.raises(UsageError, match='there is no file'):
        tracking.read_mot_detections(tmp_path / 'g.txt')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda p: (p / 'seqinfo.ini').write_text(SEQINFO.replace('=4', '=3')), 'frame 4, and the sequence has frames'),
        (lambda p: (p / 'seqinfo.ini').write_text(SEQINFO.replace('=4\n', '=5\n')), 'has 4 images, and the sequence'),
        (lambda p: (p / 'seqinfo.ini').write_text(SEQINFO.replace('=48', '=64')), 'is 64x48, and seqinfo.ini says'),
        (lambda p: (p / 'seqinfo.ini').write_text('[Sequence]\nname=x\n'), r"expected \[Sequence\] with seqLength"),
        (lambda p: (p / 'seqinfo.ini').write_text(SEQINFO.replace('=64', '=-64')), 'imWidth=-64 must be above 0'),
        (lambda p: (p / 'seqinfo.ini').write_text(SEQINFO.replace('=30', '=0')), 'frameRate=0 must be above 0'),
        (lambda p: (p / 'seqinfo.ini').write_text('seqLength=3\n'), r'expected \[Sequence\] with seqLength'),
        (lambda p: [(p / f).unlink() for f in ('gt/gt.txt', 'det/det.txt')], 'neither gt/gt.txt nor det/det.txt'),
    ],
)  # fmt: skip
def test_a_contradictory_sequence_is_named(tmp_path, change, message):
    change(make_mot(tmp_path))
    with pytest.raises(UsageError, match=message):
        tracking.mot_challenge(str(tmp_path))[0]


def test_sequences_are_listed_by_split(tmp_path):
    for name in ('A-FRCNN', 'B-DPM', 'C-FRCNN'):
        make_mot(tmp_path / 'train', name)
    (tmp_path / 'train/notes.txt').write_text('x')
    names = [s.info.name for s in tracking.mot_challenge(str(tmp_path), 'train')]
    assert names == ['A-FRCNN', 'B-DPM', 'C-FRCNN']
    assert [s.info.name for s in tracking.mot_challenge(str(tmp_path / 'train'), 'train[1:]')] == names[1:]
    assert len(tracking.mot_challenge(str(tmp_path), detector='FRCNN')) == 2
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (tmp_path / 'x', {}, 'there is no folder'),
        (tmp_path / 'train/A-FRCNN/img1', {}, 'has no sequences'),
        (tmp_path, dict(detector='SDP'), 'ends with detector'),
        (tmp_path, dict(split='train[3:]'), 'selects none of the 3 sequences'),
    ]
    for path, arguments, message in cases:
        with pytest.raises(UsageError, match=message):
            tracking.mot_challenge(str(path), **arguments)
    with pytest.raises(UsageError, match="no tracking data set is called 'mot_chalenge'; did you mean"):
        tracking.load_sequences('mot_chalenge')
    sequences = list(tracking.mot_challenge(str(tmp_path)))
    (tmp_path / 'results').mkdir()
    with pytest.raises(UsageError, match=r'has no results of 3 sequences, first A-FRCNN\.txt; it has no \.txt files'):
        tracking.read_mot_folder_of_results(tmp_path / 'results', sequences)


def write_flat_files(root, parts=('gt', 'det'), nested=False):
    """Writes gt/NAME.txt and det/NAME.txt of two sequences, or NAME/gt.txt and NAME/det.txt."""
    content = {'gt': TRUTH, 'det': DETECTIONS}
    for name in ('A', 'B'):
        for part in parts:
            path = root / name / f'{part}.txt' if nested else root / part / f'{name}.txt'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[part])


@pytest.mark.parametrize('nested', [False, True])
def test_flat_files_of_sequences_are_read(tmp_path, nested):
    write_flat_files(tmp_path / 'train', nested=nested)
    expected = tracking.read_mot_sequence(make_mot(tmp_path / 'whole'), check_images=False)
    sequences = list(tracking.mot_challenge(str(tmp_path), 'train'))
    assert [(s.info.name, s.info.length) for s in sequences] == [('A', 4), ('B', 4)]
    for sequence in sequences:
        check_equal(sequence.truth, expected.truth)
        check_equal(sequence.detections, expected.detections)
        assert sequence.frames is None
    write_flat_files(tmp_path / 'test', ('det',), nested)
    assert tracking.mot_challenge(str(tmp_path), 'test[1:]')[0].truth is None
    if nested:  # the folder of a sequence is all of its split
        (sequence,) = tracking.mot_challenge(str(tmp_path / 'train/B'))
        check_equal(sequence.truth, expected.truth)
        assert tracking.is_mot_sequence(tmp_path / 'train/B')
        assert not tracking.is_mot_sequence(tmp_path / 'train')


def test_a_sequence_of_empty_files_needs_its_length(tmp_path):
    write_flat_files(tmp_path, ('det',))
    (tmp_path / 'det/A.txt').write_bytes(b'')
    with pytest.raises(UsageError, match=r'A: its files are empty, so that seqinfo.ini must state seqLength'):
        tracking.mot_challenge(str(tmp_path))[0]


# --- KITTI -----------------------------------------------------------------------------------------------------------

KITTI = (
    b'0 -1 DontCare -1 -1 -10 219.31 188.49 245.5 218.56 -1000 -1000 -1000 -10 -1 -1 -1\n'
    b'0 0 Van 0 0 -1.793451 296.744956 161.752147 455.226042 292.372804 2.0 1.8 4.4 -4.5 1.8 13.4 -2.115488\n'
    b'2 3 Pedestrian 1 0 -2.5 1 2 11 32.5 1 1 1 1 1 1 1\n'
    b'2 2 Person_sitting 0 3 -2.5 1 2 11 32.5 1 1 1 1 1 1 1\n'
    b'1 -1 DontCare -1 -1 -10 1 2 3 4 -1000 -1000 -1000 -10 -1 -1 -1\n'
)


def test_kitti_labels(tmp_path):
    (tmp_path / 'training/label_02').mkdir(parents=True)
    (tmp_path / 'training/label_02/0000.txt').write_bytes(KITTI)
    sequence = tracking.load_sequences('kitti_tracking', 'training', path=str(tmp_path))[0]
    assert sequence.info.length == 3
    truth = sequence.truth
    assert truth is not None
    assert truth.frames.tolist() == [0, 2, 2]
    assert truth.ids.tolist() == [0, 3, 2]
    assert [tracking.KITTI_CLASSES[i] for i in truth.labels] == ['van', 'pedestrian', 'person']
    assert truth.boxes[0].tolist() == [296.744956, 161.752147, 455.226042, 292.372804]
    assert truth.ignored.tolist() == [False, True, True]
    regions = sequence.ignored_regions
    assert regions is not None
    assert regions.frames.tolist() == [0, 1]
    assert regions.boxes[1].tolist() == [1, 2, 3, 4]
    (tmp_path / 'training/evaluate_tracking.seqmap.training').write_text('0000 empty 000000 000154\n')
    assert tracking.kitti_tracking(str(tmp_path))[0].info.length == 154
    (tmp_path / 'training/evaluate_tracking.seqmap.training').write_text('0000 empty 000000 000000\n')
    with pytest.raises(UsageError, match='line 1: expected a name, a word, 000000 and the number of frames'):
        tracking.kitti_tracking(str(tmp_path))
    for name, neighbours in (('car', ('car', 'van')), ('pedestrian', ('pedestrian', 'person'))):
        assert tuple(tracking.KITTI_CLASSES[i] for i in presets._KITTI_NEIGHBOURS[name]) == neighbours


def test_kitti_results_are_written_and_read(tmp_path):
    table = draw_table()
    tracking.write_kitti_results(tmp_path / 'x/0000.txt', table, ('Car', 'Pedestrian', 'Cyclist'))
    result = tracking.read_kitti_results(tmp_path / 'x/0000.txt', 12)
    check_equal(result, table._replace(labels=np.array([0, 3, 5], np.int32)[table.labels]), but=('ignored',))
    with pytest.raises(UsageError, match="KITTI has no class 'object'"):
        tracking.write_kitti_results(tmp_path / 'y.txt', table, ('object',))


KITTI_DETECTIONS = (
    b'0 -1 Car -1 -1 -10 1 2 11 32.5 -1 -1 -1 -1000 -1000 -1000 -10 1.75\n'
    b'1 -1 Car -1 -1 -10 3 4 9 12.5 -1 -1 -1 -1000 -1000 -1000 -10 -0.25\n'
    b'1 -1 Pedestrian -1 -1 -10 1 2 11 32.5 -1 -1 -1 -1000 -1000 -1000 -10 0.5\n'
)


def test_kitti_sequences_have_the_detections_of_a_folder(tmp_path):
    (tmp_path / 'training/label_02').mkdir(parents=True)
    (tmp_path / 'training/label_02/0000.txt').write_bytes(KITTI)
    (tmp_path / 'det_02').mkdir()
    (tmp_path / 'det_02/0000.txt').write_bytes(KITTI_DETECTIONS)
    arguments = dict(path=str(tmp_path), detections=str(tmp_path / 'det_02'))
    (sequence,) = tracking.load_sequences('kitti_tracking', 'training', **arguments)
    table = sequence.detections
    assert table is not None
    assert table.frames.tolist() == [0, 1, 1]
    assert table.ids.tolist() == [-1, -1, -1]
    assert table.scores.tolist() == [1.75, -0.25, 0.5]
    assert [tracking.KITTI_CLASSES[i] for i in table.labels] == ['car', 'car', 'pedestrian']
    assert table.boxes[0].tolist() == [1, 2, 11, 32.5]
    # Without labels, as of the test split, a sequence is as long as its detections.
    (tmp_path / 'testing').mkdir()
    (sequence,) = tracking.load_sequences('kitti_tracking', 'testing', **arguments)
    assert sequence.truth is None
    assert sequence.info.length == 2
    with pytest.raises(UsageError, match=r'there is no folder .*testing/label_02'):
        tracking.kitti_tracking(str(tmp_path), 'testing')
    with pytest.raises(UsageError, match=r"detections='.*/none' is not a folder"):
        tracking.kitti_tracking(str(tmp_path), detections=str(tmp_path / 'none'))
    (tmp_path / 'det_02/0000.txt').write_bytes(KITTI)
    with pytest.raises(UsageError, match=r'0000\.txt has 17 columns, as labels have; detections have a score'):
        tracking.kitti_tracking(**arguments)[0]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (KITTI.replace(b'Van', b'Bus'), r"line 2: KITTI has no type 'Bus'; it has Car"),
        (KITTI.replace(b'455.226042', b'255.226042'), r'line 2: the box has the size -41.5189 x 130.621'),
        (KITTI.replace(b'296.744956', b'abc'), r"line 2: could not convert string to float: 'abc'"),
        (KITTI.replace(b'2 2 Person', b'2 3 Person'), r'line 4: id 3 is a second time in frame 2'),
        (KITTI.replace(b' -2.115488', b''), r'line 2 has 16 columns; expected rows with 17'),
        (b'1,-1,5,6,10,12,0.75,-1,-1,-1\n', r'looks like detections of MOTChallenge'),
        (b'Car 0 0 -1 1 2 3 4 1 1 1 1 1 1 1\n', r"looks like KITTI's object labels, which have no frames and ids"),
    ],
)
def test_bad_labels_of_kitti_are_named(tmp_path, content, message):
    (tmp_path / '0000.txt').write_bytes(content)
    with pytest.raises(UsageError, match=message):
        tracking.read_kitti_labels(tmp_path / '0000.txt')
    (tmp_path / '0000.txt').write_bytes(KITTI)
    with pytest.raises(UsageError, match='line 1: DontCare is no result; are these labels'):
        tracking.read_kitti_results(tmp_path / '0000.txt')


# --- UA-DETRAC -------------------------------------------------------------------------------------------------------

DETRAC = b"""<?xml version="1.0" encoding="utf-8"?>
<sequence name="MVI_1">
   <sequence_attribute camera_state="unstable" sence_weather="sunny"/>
   <ignored_region><box left="0.5" top="0.5" width="960" height="40"/></ignored_region>
   <frame density="1" num="2">
      <target_list>
         <target id="9">
            <box left="100.5" top="50" width="20" height="30.25"/>
            <attribute orientation="1" speed="2" trajectory_length="3" truncation_ratio="0" vehicle_type="Bus"/>
            <occlusion>
               <region_overlap occlusion_id="4" occlusion_status="1" left="1" top="1" width="2" height="2"/>
            </occlusion>
         </target>
         <target id="4"><box left="1" top="2" width="3" height="4"/><attribute vehicle_type="van"/></target>
      </target_list>
   </frame>
   <frame density="1" num="5">
      <target_list><target id="9"><box left="1" top="2" width="3" height="4"/></target></target_list>
   </frame>
</sequence>
"""


def test_detrac_truth_and_detections(tmp_path):
    (tmp_path / 'xml').mkdir()
    (tmp_path / 'det').mkdir()
    (tmp_path / 'xml/MVI_1.xml').write_bytes(DETRAC)
    (tmp_path / 'det/MVI_1_Det_R-CNN.txt').write_bytes(b'1,1,10.5,20.5,30,40,.98\n1,2,1,2,3,4,.5\n7,1,1,2,3,4,.4\n')
    sets = tracking.load_sequences('ua_detrac', path=str(tmp_path / 'xml'), detections=str(tmp_path / 'det'))
    sequence = sets[0]
    assert sequence.info[:5] == ('MVI_1', 7, 25.0, 540, 960)
    truth = sequence.truth
    assert truth is not None
    assert truth.frames.tolist() == [1, 1, 4]
    assert truth.ids.tolist() == [9, 4, 9]
    assert truth.boxes[0].tolist() == [100, 49.5, 120, 79.75]
    assert [tracking.DETRAC_CLASSES[i] for i in truth.labels] == ['bus', 'van', 'others']
    regions = sequence.ignored_regions
    assert regions is not None
    assert regions.frames.tolist() == [-1]
    assert regions.boxes.tolist() == [[0, 0, 960, 40]]
    detections = sequence.detections
    assert detections is not None
    assert detections.frames.tolist() == [0, 0, 6]
    assert detections.boxes[0].tolist() == [10, 20, 40, 60]
    assert detections.scores.tolist() == [0.98, 0.5, 0.4]


def test_a_missing_folder_of_detections_of_detrac_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"detections='.*/none' is not a folder"):
        tracking.ua_detrac(str(tmp_path), detections=str(tmp_path / 'none'))


def test_detrac_results_are_written_and_read(tmp_path):
    table = draw_table()
    paths = tracking.write_detrac_results(tmp_path / '0.3/MVI_1', table, 12)
    assert [p.name for p in paths] == ['MVI_1_LX.txt', 'MVI_1_LY.txt', 'MVI_1_W.txt', 'MVI_1_H.txt']
    result = tracking.read_detrac_results(tmp_path / '0.3/MVI_1')
    order = np.lexsort((table.ids, table.frames))
    np.testing.assert_array_equal(result.frames, table.frames[order])
    np.testing.assert_array_equal(np.unique(table.ids)[result.ids - 1], table.ids[order])
    np.testing.assert_array_equal(result.boxes, table.boxes[order])
    paths[0].write_text('1,2\n')
    with pytest.raises(UsageError, match=r'a row per frame and a column per track; got MVI_1_LX.txt \(1, 2\)'):
        tracking.read_detrac_results(tmp_path / '0.3/MVI_1')


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        (b'width="20"', b'width="-20"', r'target 9 of frame 2: the box has the size -20 x 30.25'),
        (b'id="4"', b'id="9"', r'target 9 of frame 2: id 9 is a second time in frame 2'),
        (b'top="50"', b'', r'a <box> has top=None; expected a number'),
        (b'vehicle_type="Bus"', b'vehicle_type="boat"', r"frame 2 has a vehicle_type 'boat'"),
        (b'</sequence>', b'', r"is not UA-DETRAC's XML \(no element found"),
        (b'sequence', b'annotation', r'begins with <annotation> and not with <sequence>'),
    ],
)
def test_bad_truth_of_detrac_is_named(tmp_path, old, new, message):
    (tmp_path / 'a.xml').write_bytes(DETRAC.replace(old, new))
    with pytest.raises(UsageError, match=message):
        tracking.read_detrac_truth(tmp_path / 'a.xml')


# --- CSV -------------------------------------------------------------------------------------------------------------


def test_a_csv_is_written_and_read(tmp_path):
    table = draw_table()
    table = table._replace(boxes=table.boxes / 3)  # to the last bit, whatever the fraction
    names = ('car', 'bus', 'van, large')
    tracking.write_track_csv(tmp_path / 's.csv', table, names, first_frame=1)
    result, found = tracking.read_track_csv(tmp_path / 's.csv', names, first_frame=1)
    check_equal(result, table)
    assert found == names
    detections = table._replace(ids=0 * table.ids - 1)
    tracking.write_track_csv(tmp_path / 'd.csv', detections, names)
    check_equal(tracking.read_track_csv(tmp_path / 'd.csv', names)[0], detections)
    sequences = list(tracking.load_sequences('track_csv', path=str(tmp_path), class_names=names))
    assert [(s.truth is None, s.detections is None) for s in sequences] == [(True, False), (False, True)]
    (tmp_path / 'w.csv').write_bytes(
        b'height, Width,left,top,frame,note,label\r\n4,3,1,2,0,hm,b\r\n\r\n4,3,5,2,2,,a\r\n'
    )
    result, found = tracking.read_track_csv(tmp_path / 'w.csv')
    assert result.boxes.tolist() == [[1, 2, 4, 6], [5, 2, 8, 6]]
    assert result.labels.tolist() == [1, 0]
    assert found == ('a', 'b')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'frame,id,x0,y0,x1\n', "has no column 'left'|has no column 'y1'"),
        (b'1,1,2,2,3,4,1,-1,-1,-1\n', 'has no line of names .* looks like truth of MOT15 or results'),
        (b'frame,id,x0,y0,x1,y1\n0,1,0,0,4\n', 'line 2 has 5 columns, and the first has 6'),
        (b'frame,id,x0,y0,x1,y1\n0,1,0,0,4,x\n', "line 2: y1 'x' is not a number"),
        (b'frame,id,x0,y0,x1,y1\n0,1,0,0,4,4\n0,1,0,0,4,4\n', 'line 3: id 1 is a second time in frame 0'),
        (b'frame,id,x0,y0,x1,y1\n0.5,1,0,0,4,4\n', 'line 2: the frame 0.5 is not an integer'),
        (b'frame,id,x0,y0,x1,y1,label\n0,1,0,0,4,4,dog\n', "line 2: the label 'dog' is not in class_names"),
    ],
)
def test_a_bad_csv_is_named(tmp_path, content, message):
    (tmp_path / 'x.csv').write_bytes(content)
    with pytest.raises(UsageError, match=message):
        tracking.read_track_csv(tmp_path / 'x.csv', ('cat',))


def test_examples_of_docstrings():
    results = doctest.testmod(tables)
    assert results.attempted
    assert not results.failed

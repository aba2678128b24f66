"""`data`: sheets of training batches and the table of their keys, for every family of experiments."""

import numpy as np
import pytest
from PIL import Image

from canon import plots
from canon.errors import CanonError, UsageError
from canon.train.stages import find_finished, run_stages
from experiments import configs, overrides, protocol, staged
from launch import data


def call(capsys, tmp_path, source, *flags):
    assert data.main([f'{configs.ROOT}/configs/{source}', f'--output={tmp_path}', *flags]) == 0
    return capsys.readouterr().out


def test_images_are_drawn_with_their_classes(capsys, tmp_path):
    out = call(capsys, tmp_path, 'classification/lenet_digits.py:smoke', '--batches=2', '--config.data.batch_size=16')
    head, image, _, mask, classes = out.splitlines()[1:6]
    assert head.split() == ['key', 'shape', 'dtype', 'min', 'max', 'contents']
    assert image.split()[:7] == ['image', '[16,', '32,', '32,', '1]', 'uint8', '0']
    assert image.endswith('levels 0..255; the task scales and standardises them')  # of docs/batches.md
    assert mask.split()[:5] == ['mask', '[16]', 'bool', 'true', 'true']
    assert sum(int(pair.rpartition(': ')[2]) for pair in classes.partition('label: ')[2].split(', ')) == 16
    assert sorted(p.name for p in tmp_path.iterdir()) == ['batch_0_images.png', 'batch_1_images.png']
    with Image.open(tmp_path / 'batch_0_images.png') as sheet:
        pixels = np.asarray(sheet.convert('L'))
    assert (pixels < 10).mean() > 0.2  # the black ground of the digits


@pytest.mark.parametrize(
    ('source', 'files'),
    [
        ('translation/catalogue.py', ['sentences']),
        ('adaptation/dann_digits.py', ['source', 'target']),
        ('shapes/igr.py', ['points']),
        ('claims/attention_scale.py', ['arrays']),
        *(
            pytest.param(source, files, marks=pytest.mark.slow)
            for source, files in (
                ('detection/ssd_digits.py', ['images']),
                ('segmentation/digit_scenes.py', ['images']),
                ('text_recognition/crnn_digits.py', ['images']),
                ('text_recognition/mjsynth_char.py', ['images']),
                ('language_modelling/pydoc_characters.py', ['streams']),
                ('nerf/traced.py', ['rays']),
                ('shapes/deepsdf.py', ['points']),
                ('shapes/occupancy.py', ['points']),
                ('volume_rendering/phantom.py', ['rays']),
                ('tracking/embedding_digits.py', ['crops']),
                ('tracking/affinity_digits.py', ['pairs']),
                ('tracking/sort.py', ['test-0000']),
                ('adaptation/rotated_gradual.py', ['source']),
                ('claims/memory.py', ['arrays']),
                ('optimizer_lab/digits.py', ['images']),
            )
        ),
    ],
)
def test_every_family_has_a_sheet(capsys, tmp_path, source, files):
    call(capsys, tmp_path, f'{source}:smoke')
    assert sorted(p.name for p in tmp_path.iterdir()) == [f'batch_0_{name}.png' for name in files]


def test_every_experiment_draws_its_batches():
    """All but those that only put together stages of others."""
    for name in set(protocol.names()) - {'staged', 'gradual_adaptation', 'images'}:
        assert isinstance(protocol.load(name), protocol.DrawsBatches), name


def test_boxes_and_padding(tmp_path):
    batch = {
        'image': np.zeros((1, 20, 40, 3), np.uint8), 'boxes': np.array([[[2, 3, 10, 15], [0, 0, 0, 0]]], np.float32),
        'labels': np.zeros((1, 2), np.int32), 'valid': np.array([[True, False]]),
    }  # fmt: skip
    axes = plots.draw_object_batch(batch, ('cat',)).axes[0]
    assert axes.get_title() == '1 objects'
    named = plots.draw_object_batch({**batch, 'image_id': np.array([4])}, ('cat',), names={4: 'a.jpg'})
    assert named.axes[0].get_title() == 'a.jpg: 1 objects'
    (frame,) = axes.patches
    assert frame.get_path().transformed(frame.get_patch_transform()).get_extents().bounds == (2, 3, 8, 12)
    assert [t.get_text() for t in axes.texts] == ['cat']
    lines = data.describe_batch(batch, ('cat', 'dog'))
    assert lines[-1] == '  classes of labels: cat: 1, dog: 0'  # padding is not counted
    assert data.describe_batch(batch, ('cat', *map(str, range(20))))[-1] == '  classes of labels: cat: 1'


@pytest.mark.parametrize(
    ('source', 'flags', 'error', 'message'),
    [
        ('detection/rcnn_digits.py:smoke', ['--runs=none'], CanonError, "'finetune' reads .* stage 'proposals' leaves"),
        ('detection/rcnn_digits.py:smoke', ['--stage=tune'], UsageError, "--stage=tune: .*did you mean 'finetune'"),
        ('classification/lenet_digits.py:smoke', ['--stage=a'], UsageError, 'the config has no stages'),
        ('classification/lenet_digits.py:smoke', ['--workdir=x'], UsageError, 'the config has no stages'),
        ('classification/lenet_digits.py:smoke', ['--batches=0'], UsageError, 'at least 1'),
        ('optimizer_lab/paths.py:smoke', [], CanonError, 'reads no data'),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, source, flags, error, message):
    with pytest.raises(error, match=message):
        data.main([f'{configs.ROOT}/configs/{source}', f'--output={tmp_path}', *flags])


def test_a_stage_is_drawn_from_the_run_of_the_finished_ones(capsys, tmp_path):
    source = 'detection/rcnn_digits.py:smoke'
    values = {'data.source.num_examples': '6', 'data.evals.test.split': 'test[:2]', 'data.batch_size': '16'}
    config = overrides.load(f'{configs.ROOT}/configs/{source}')
    overrides.apply(config, list(values.items()))
    config.lock()
    stages, run = staged.make(config), tmp_path / 'run'
    assert find_finished(stages, 'features', run) == ({}, ['proposals', 'finetune'])
    fitted = run_stages(stages[:1], config, run, quiet=True)
    assert find_finished(stages, 'features', run) == ({'proposals': fitted.workdir}, ['finetune'])
    flags = [f'--config.{key}={value}' for key, value in values.items()]
    out = call(capsys, tmp_path / 'sheets', source, *flags, f'--workdir={run}', '--stage=finetune')
    assert out.splitlines()[2].split()[:6] == ['image', '[16,', '32,', '32,', '3]', 'uint8']
    assert (tmp_path / 'sheets' / 'batch_0_images.png').is_file()
    (run / '0-proposals' / 'status.json').write_text('{"state": "running"}')
    with pytest.raises(CanonError, match=rf"stage 'proposals' leaves, which is not finished in {run}; run the config"):
        call(capsys, tmp_path / 'sheets', source, *flags, f'--workdir={run}')

"""Detection from a config: a run is resumed bitwise, predicts folders of images, is exported; and refusals."""

import csv
import json
import sys

import jax
import numpy as np
import pytest
from ml_collections.config_dict import placeholder
from PIL import Image

from canon.errors import CanonError, UsageError
from canon.tasks import predictions
from canon.weights.stablehlo import export_stablehlo
from experiments import configs, detection
from tests.experiments import job

CHAIN = dict(chain=('letterbox',), letterbox=dict(size=64))


def config(system='ssd', **changes):
    """A few scenes with a network that compiles in seconds."""
    made = configs.load(f'{configs.ROOT}/configs/detection/{system}_digits.py:smoke')
    with made.unlocked():
        made.data.source = dict(num_examples=12, height=64, width=64, sizes=(16, 40), most=3)
        made.data.objects.most = 3
        made.data.batch_size = 4
        made.data.evals.test = dict(split='test[:6]', coco=False, transforms=CHAIN)
        made.detect = dict(per_class=8, max_detections=6)
        made.run = dict(
            steps=4,
            log_every=1,
            evals=dict(test=dict(every='100%')),
            checkpoint=dict(every=2, keep=2),
            log=(),
            stop_after=placeholder(int),
        )
        if system == 'ssd':
            backbone = dict(name='vgg.vgg11', width=1 / 32, batch_norm=True, init='he')
            small = dict(backbone=backbone, stages=('conv3', 'conv4'), extras=(), sizes=(0.2, 0.35, 0.6))
            made.model.update(small | dict(aspect_ratios=((1.8,),) * 2))
        else:
            made.model.update(dict(size=64, channels=(8,), hidden=(16,), dropout=0.2))
            made.model.backbone.width = 1 / 32
        made.update_from_flattened_dict(changes)
    return made


@pytest.mark.slow  # three runs are compiled, and two draw their figures
@pytest.mark.parametrize('system', ['ssd', 'yolo'])
def test_a_resumed_run_is_bitwise_the_one_that_never_stopped(system, tmp_path):
    """With dropout and statistics of BatchNorm; evaluated on six images in batches of four."""
    job.check_resumed_run(detection, config(system), tmp_path)
    names = {path.stem.rpartition('_')[2] for path in (tmp_path / 'b/figures').glob('*.png')}
    assert len(names) >= 6


@pytest.mark.slow  # a process with eight devices compiles twice
def test_one_device_learns_what_eight_do(tmp_path):
    job.train_on_one_and_on_eight_devices('tests.experiments.test_detection', tmp_path)


@pytest.fixture(scope='module')
def untrained():
    made = config()
    experiment = detection.without_data(made, detection.make(made).about)
    variables = dict(jax.jit(experiment.task.init)(jax.random.key(0, impl='rbg'), experiment.train[0]))
    return made, experiment, variables.pop('params'), variables


def test_a_folder_of_images_is_predicted(untrained, tmp_path):
    """Boxes are in pixels of the files, whatever the size of the files."""
    made, experiment, params, mutable = untrained
    rng = np.random.default_rng(0)
    (tmp_path / 'images/more').mkdir(parents=True)
    sizes = {'a': (50, 100), 'b': (64, 64), 'more/a': (160, 40)}
    for name, size in sizes.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f'images/{name}.png')
    with made.unlocked():
        made.predict.min_score = 0.0
    (tmp_path / 'images/broken.png').write_bytes(b'no image')
    predicted = detection.predict(made, experiment, params, mutable, str(tmp_path / 'images'))
    with pytest.raises(
        predictions.SkippedInputs, match=r'^18 rows in .*; 1 of 4 images cannot be read: .*broken\.png; repair'
    ):
        predictions.write_predictions(predicted, tmp_path / 'out')
    with (tmp_path / 'out/predictions.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ['file', 'image_id', 'class', 'score', 'x0', 'y0', 'x1', 'y1']
    results = json.loads((tmp_path / 'out/detections.json').read_text())
    assert len(results) == len(rows) == 18  # six of each image
    for number, (name, (height, width)) in enumerate(sizes.items()):
        assert (tmp_path / f'out/{name}_boxes.png').stat().st_size > 0
        own = [row for row in rows if row['file'] == str(tmp_path / f'images/{name}.png')]
        corners = np.array([[float(row[k]) for k in ('x0', 'y0', 'x1', 'y1')] for row in own])
        assert (corners >= 0).all()
        assert (corners <= (width, height, width, height)).all()
        # A letterbox of 64 pixels: the largest side is scaled to it, so wide images have boxes beyond 64.
        boxes = np.array([r['bbox'] for r in results if r['image_id'] == number])
        np.testing.assert_allclose(corners[:, :2], boxes[:, :2], atol=0.06)
        np.testing.assert_allclose(corners[:, 2:] - corners[:, :2], boxes[:, 2:], atol=0.12)
    assert max(float(row['x1']) for row in rows) > 64


def test_the_exported_model_takes_any_number_of_images(untrained, tmp_path):
    made, experiment, params, mutable = untrained
    served = detection.served(made, experiment)
    lines = export_stablehlo(served, params, mutable, tmp_path)
    assert float(lines[0].rpartition(' ')[2]) < 1e-3  # pixels
    exported = jax.export.deserialize(bytearray((tmp_path / 'model.stablehlo').read_bytes()))
    images = np.random.default_rng(1).integers(0, 256, (5, 64, 64, 3), np.uint8)
    packed = np.asarray(exported.call(images))
    assert packed.shape == (5, 6, 6)
    found = experiment.task.predict(params, mutable, {'image': images})
    np.testing.assert_allclose(packed[..., 4], found['scores'], atol=1e-5)
    assert json.loads((tmp_path / 'model.json').read_text())['columns'][4:] == ['score', 'label']


def test_batches_of_several_sizes():
    """One size per batch, drawn in training and the nearest in evaluation; the model takes each."""
    made = config()
    with made.unlocked():
        made.data.sizes = ((64, 64), (96, 96))
        made.data.train.transforms = dict(chain=('letterbox',), letterbox=dict(size='batch'))
        made.data.evals.test.transforms = made.data.train.transforms
    with pytest.raises(UsageError, match='have one aspect; an evaluation needs one size per aspect'):
        detection.make(made)
    made.data.evals = {}
    experiment = detection.make(made)
    assert experiment.about['image_shape'] == (64, 64, 3)
    shapes = {experiment.train[step]['image'].shape for step in range(12)}
    assert shapes == {(4, 64, 64, 3), (4, 96, 96, 3)}
    for shape in shapes:
        outputs = jax.eval_shape(experiment.task.predict, *_abstract(experiment), {'image': np.zeros(shape, np.uint8)})
        assert outputs['boxes'].shape == (4, 6, 4)


def _abstract(experiment):
    variables = dict(jax.eval_shape(experiment.task.init, jax.random.key(0), experiment.train[0]))
    return variables.pop('params'), variables


def test_what_is_refused(tmp_path):
    def check(text, error=UsageError, **changes):
        made = config()
        with made.unlocked(), made.ignore_type():
            made.update_from_flattened_dict({key.replace('__', '.'): value for key, value in changes.items()})
        with pytest.raises(error, match=text):
            detection.make(made)

    check(r'model\.num_classes=10, but the data have 10 classes: set it to 11', model__num_classes=10)
    check(r"no detector is called system\.name='ssb'; did you mean 'ssd'", system__name='ssb')
    check(r'system\.threshold=2\.0 must be a number at least 0 and at most 1', system__threshold=2.0)
    check(r'detect\.per_class=0 must be a whole number at least 1', detect__per_class=0)
    check(r'predict\.min_score=3\.0 must be a number at least 0 and at most 1', predict__min_score=3.0)
    check(r'data\.objects\.most=0 must be a whole number at least 1', data__objects__most=0)
    check(r'give --config\.data\.source\.path=FOLDER_OR_TAR', data__name='voc_detection', data__source={})
    check('shares images with data.train.split', data__evals=dict(x=dict(split='train[:2]')))
    paper = dict(name='ssd.ssd300', num_classes=11, width=1 / 16)
    check(r'has 3 boxes, more than count=1; increase count, or set overflow', CanonError, data__objects__most=1)
    made = config()
    with made.unlocked():
        made.model = paper
    experiment = detection.make(made)
    with pytest.raises(UsageError, match='the priors of this SSD are made for images of 300x300, not 64x64'):
        jax.eval_shape(experiment.task.init, jax.random.key(0), experiment.train[0])


if __name__ == '__main__':
    from tests import conftest  # noqa: F401  (the tests' compilation cache)

    job.train_on_devices(detection, config(**{'data.batch_size': 8}), sys.argv[1])

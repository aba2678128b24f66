"""Segmentation from a config: a run is resumed bitwise, predicts images of any size, is exported; and refusals."""

import csv

import jax
import numpy as np
import pytest
from ml_collections.config_dict import placeholder
from PIL import Image

from canon.errors import CanonError, UsageError
from canon.tasks import predictions
from canon.train import fit
from canon.train.init_from import init_from, read_model
from canon.train.settings import InitFrom
from canon.train.types import State
from canon.weights.stablehlo import export_stablehlo
from experiments import configs, segmentation
from tests.experiments import job


def config(**source):
    made = configs.load(f'{configs.ROOT}/configs/segmentation/digit_scenes.py:smoke')
    small = dict(target='segmentation', num_examples=12, height=64, width=64, sizes=(16, 40), most=3)
    with made.unlocked():
        made.data.source = small | source
        made.data.batch_size = 4
        # Stages beyond stride 4 lead to no scores: they are not compiled.
        backbone = dict(name='vgg.vgg11', width=1 / 32, batch_norm=True)
        made.model = dict(name='fcn.skip_fcn', num_classes=11, backbone=backbone, strides=(2, 4), dropout=0.5)
        made.data.evals.test.split = 'test[:6]'
        made.run = dict(
            steps=4,
            log_every=1,
            evals=dict(test=dict(every='100%')),
            checkpoint=dict(every=2, keep=2),
            log=(),
            stop_after=placeholder(int),
        )
    return made


@pytest.mark.slow  # three runs are compiled, and two draw their figures
def test_a_resumed_run_is_bitwise_the_one_that_never_stopped(tmp_path):
    """With dropout and statistics of BatchNorm; evaluated on six images in batches of four."""
    metrics = job.check_resumed_run(segmentation, config(), tmp_path)
    assert not any(np.isnan(value) for value in metrics.values())
    assert (tmp_path / 'b/figures').is_dir()


def variables(experiment):
    batch = experiment.train[0]
    made = dict(jax.jit(experiment.task.init)(jax.random.key(0, impl='rbg'), batch))
    return made.pop('params'), made


def test_images_of_any_size_are_labelled_and_the_model_is_exported(tmp_path):
    made = config()
    experiment = segmentation.without_data(made, segmentation.make(made).about)
    params, mutable = variables(experiment)
    rng = np.random.default_rng(0)
    (tmp_path / 'images/more').mkdir(parents=True)
    sizes = {'a': (50, 70), 'b': (64, 64), 'more/a': (33, 40)}
    for name, size in sizes.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f'images/{name}.png')
    (tmp_path / 'images/broken.png').write_bytes(b'no image')
    predicted = segmentation.predict(made, experiment, params, mutable, str(tmp_path / 'images'))
    with pytest.raises(
        predictions.SkippedInputs, match=r'^3 rows in .*; 1 of 4 images cannot be read: .*broken\.png; repair'
    ):
        predictions.write_predictions(predicted, tmp_path / 'out')
    with (tmp_path / 'out/predictions.csv').open() as file:
        head, *rows = csv.reader(file)
    assert head == ['file', 'background', *'0123456789']
    assert len(rows) == 3
    for name, size in sizes.items():
        with Image.open(tmp_path / f'out/{name}_labels.png') as image:
            assert image.mode == 'P'
            labels = np.asarray(image)
        assert labels.shape == size
        with Image.open(tmp_path / f'out/{name}_overlay.png') as image:
            assert np.asarray(image).shape == (*size, 3)
        (row,) = [r for r in rows if r[0] == str(tmp_path / f'images/{name}.png')]
        shares = np.bincount(labels.ravel(), minlength=11) / labels.size
        np.testing.assert_allclose([float(x) for x in row[1:]], shares, atol=1e-4)
    served = segmentation.served(made, experiment)
    lines = export_stablehlo(served, params, mutable, tmp_path / 'export')
    assert float(lines[0].rpartition(' ')[2]) < 1e-5
    exported = jax.export.deserialize(bytearray((tmp_path / 'export/model.stablehlo').read_bytes()))
    probabilities = exported.call(rng.integers(0, 256, (5, 64, 64, 3), np.uint8))
    assert probabilities.shape == (5, 64, 64, 11)
    np.testing.assert_allclose(np.asarray(probabilities).sum(-1), 1, rtol=1e-5)


def test_weights_of_the_classes_are_those_of_the_training_data():
    made = config()
    with made.unlocked():
        made.loss.balance = 0.5
    weights = segmentation.make(made).about['class_weights']
    assert len(weights) == 11
    assert weights[0] == min(weights)  # the ground has most pixels


class Painted:
    """Images of one size with label maps of classes 0 .. 3 and void."""

    def __init__(self, split, size=40, highest=3, field='segmentation'):
        self.size, self.highest, self.field = size, highest, field

    def __len__(self):
        return 8

    def __getitem__(self, index):
        labels = np.full((self.size, self.size), 255, np.uint8)
        labels[:20] = index % (self.highest + 1)
        return {'image': np.zeros((self.size, self.size, 3), np.uint8), self.field: labels}


def painted(**options):
    made = config()
    with made.unlocked():
        made.data.name, made.data.source = f'{__name__}:Painted', options
        made.data.evals = dict(test=dict(split='test', trained_on=True))
        made.model.num_classes = 4
    return made


def test_any_source_with_label_maps_is_read():
    batch = segmentation.make(painted()).evals['test'].data[0]
    assert set(batch) == {'image', 'segmentation', 'mask'}
    assert batch['segmentation'].shape == (4, 40, 40)


def test_batches_of_several_sizes():
    """One size per batch, drawn in training and the nearest in evaluation; label maps have it too."""
    made = config()
    with made.unlocked():
        made.data.sizes = ((64, 64), (80, 80))
        fields = dict(fields=('image', 'segmentation'))
        transforms = dict(chain=('letterbox', 'keep_fields'), letterbox=dict(size='batch'), keep_fields=fields)
        made.data.train.transforms = made.data.evals.test.transforms = transforms
    with pytest.raises(UsageError, match='have one aspect; an evaluation needs one size per aspect'):
        segmentation.make(made)
    made.data.sizes = ((48, 80), (64, 64))  # the scenes are square
    held_out = segmentation.make(made).evals['test'].data
    assert {held_out[i]['segmentation'].shape for i in range(2)} == {(4, 64, 64)}
    made.data.evals, made.data.sizes = {}, ((64, 64), (80, 80))
    experiment, again = segmentation.make(made), segmentation.make(made)
    assert experiment.about['image_shape'] == (64, 64, 3)
    batches = [experiment.train[step] for step in range(8)]
    np.testing.assert_equal(again.train[5], batches[5])
    assert {batch['image'].shape for batch in batches} == {(4, 64, 64, 3), (4, 80, 80, 3)}
    params, mutable = jax.eval_shape(lambda: variables(experiment))
    for batch in batches:
        assert batch['segmentation'].shape == batch['image'].shape[:3]
    logits = jax.eval_shape(experiment.task.predict, params, mutable, {'image': np.zeros((4, 80, 80, 3), np.uint8)})
    assert logits.shape == (4, 80, 80, 11)


def test_what_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no field 'segmentation', a label map; they have image, labels"):
        segmentation.make(painted(field='labels'))
    with pytest.raises(CanonError, match=r'the label map has class 4, but model.num_classes=4; raise it'):
        segmentation.make(painted(highest=4)).train[0]
    small = segmentation.make(painted(size=24))
    with pytest.raises(UsageError, match='VGG takes images of at least 32x32, not 24x24; resize them'):
        jax.eval_shape(small.task.init, jax.random.key(0), small.train[0])
    wrong = config()
    wrong.model.num_classes = 10
    with pytest.raises(UsageError, match=r'model\.num_classes=10, but the data have 11 classes; set it to that'):
        segmentation.make(wrong)
    for name in ('label_maps', 'voc_segmentation'):
        wrong = painted()
        wrong.data.name = name
        with pytest.raises(UsageError, match=r'give --config\.data\.source\.path=FOLDER_OR_TAR'):
            segmentation.make(wrong)
    wrong = config()
    with wrong.unlocked():
        wrong.data.evals.test = dict(split='test', transforms=dict(chain=('resize',), resize=dict(size=20)))
    with pytest.raises(UsageError, match=r'data\.evals\.test: VGG takes images of at least 32x32'):
        segmentation.make(wrong)
    for key, value in (('loss.reduction', 'max'), ('loss.balance', 2.0), ('predict.multiple', 0)):
        wrong = config()
        with wrong.unlocked(), wrong.ignore_type():
            wrong.update_from_flattened_dict({key: value})
        with pytest.raises(UsageError, match=key):
            build_and_predict(wrong, tmp_path)


def build_and_predict(made, folder):
    next(segmentation.predict(made, segmentation.make(made), {}, {}, str(folder)))


@pytest.mark.slow
def test_networks_are_trained_one_after_the_other(tmp_path):
    """FCN-16s takes all of a run of FCN-32s but the scores of pool4, which start at zero."""
    made = config()
    with made.unlocked():
        made.model = dict(name='fcn.fcn32s', num_classes=11, width=1 / 64, border=1)
        made.tx = dict(name='momentum', learning_rate=0.1)
        made.run = dict(steps=1, log_every=1, evals={}, checkpoint=dict(every=1), log=())
    fit(segmentation.make(made), made, tmp_path, quiet=True)
    made.model.name = 'fcn.fcn16s'
    experiment = segmentation.make(made)
    params, mutable = variables(experiment)
    start = State(0, params, mutable, ())
    taken = init_from(start, InitFrom(path=str(tmp_path), new='^score_pool4/'), experiment.read).params
    stored = read_model(tmp_path)
    for path, leaf in jax.tree_util.tree_leaves_with_path(taken):
        name = '/'.join(key.key for key in path)
        expected = np.zeros_like(leaf) if name.startswith('score_pool4') else stored[name]
        np.testing.assert_array_equal(np.asarray(leaf), expected, err_msg=name)
    assert np.any(stored['score_fr/kernel'])  # which the step has moved

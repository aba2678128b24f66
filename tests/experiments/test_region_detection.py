"""Detection by regions from a config: resumed bitwise, in four steps with shared features, and on stored proposals."""

import sys

import numpy as np
import pytest
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder
from PIL import Image

from canon.data import Arrays, Once
from canon.data.detection.proposals import make_proposer
from canon.errors import UsageError
from canon.metrics import Mean
from canon.named import to_plain
from canon.tasks import predictions
from canon.train import Evaluator, Experiment, Task, run_stages
from canon.train.artefacts import Artefacts
from canon.train.init_from import read_model
from experiments import configs, detection, regions, staged, svd_ranks
from tests.experiments import job
from tests.quick import quick_programs
from tests.two_processes import pretend_to_be_the_first

NARROW = dict(name='vgg.vgg11', width=1 / 32, batch_norm=True, init='he')


def load(name, stages=None):
    """A few scenes and a network that compiles in seconds: four steps, two images without a digit among the first."""
    made = configs.load(f'{configs.ROOT}/configs/detection/{name}.py:smoke')
    with made.unlocked():
        made.data.source = dict(num_examples=12, height=64, width=64, sizes=(16, 40), most=3)
        made.data.objects.most = 3
        made.data.batch_size = 4
        made.data.evals.test = dict(split='test[:6]', coco=False)
        counts = dict(pre_nms=30, post_nms=12, test_pre_nms=30, test_post_nms=8, per_image=24)
        made.rpn = dict(counts, inside_only=False, min_size=2.0)
        made.regions, made.detect = dict(per_image=12), dict(per_class=8, max_detections=6)
        made.model.units = (16, 16)
        evals, checkpoint = dict(test=dict(every='100%')), dict(every=2, keep=2)
        made.run = dict(steps=4, log_every=1, evals=evals, checkpoint=checkpoint, log=())
        made.run.stop_after = placeholder(int)
        if stages:
            for stage in made.stages.chain:
                made.stages[stage].update(dict(run=dict(steps=2, evals=None)))
    return made


@pytest.mark.slow  # three runs are compiled, and two draw their figures
def test_a_resumed_run_is_bitwise_the_one_that_never_stopped(tmp_path):
    """With samples of anchors and of proposals, and a pyramid."""
    made = load('faster_rcnn_digits')
    made.model.backbone.update(dict(backbone=NARROW, channels=8))
    metrics = job.check_resumed_run(detection, made, tmp_path)
    assert {'test/map50', 'test/missed'} <= metrics.keys()


@pytest.mark.slow  # a process with eight devices compiles twice
def test_one_device_samples_and_learns_what_eight_do(tmp_path):
    """The samples of anchors and of proposals are drawn per image, whatever device has it."""
    job.train_on_one_and_on_eight_devices('tests.experiments.test_region_detection', tmp_path)


@pytest.mark.slow  # four networks are compiled
def test_both_networks_share_their_features_after_four_steps(tmp_path):
    """Features of step 2 are, bit for bit, those of steps 3 and 4; each step learns what it is for and nothing else."""
    made = load('faster_rcnn_alternating_digits', stages=True)
    made.model.backbone = NARROW
    with quick_programs():
        fitted = run_stages(staged.make(made), made, tmp_path, quiet=True)
    assert fitted.status == 'done'
    names = made.stages.chain
    assert names == ('rpn', 'proposals', 'fast', 'shared_rpn', 'shared_fast')
    networks = {
        name: read_model(tmp_path / f'{number}-{name}') for number, name in enumerate(names) if name != 'proposals'
    }

    def find_changes(before, after):
        parts = {'features': 'backbone/', 'rpn': 'rpn/', 'second': ('head/', 'logits/', 'offsets/')}
        return {
            part
            for part, prefixes in parts.items()
            for key, value in networks[before].items()
            if key.removeprefix('batch_stats/').startswith(prefixes) and not np.array_equal(value, networks[after][key])
        }

    # Both begin with the same initialisation, and what they do not train keeps it.
    assert find_changes('rpn', 'fast') == {'features', 'rpn', 'second'}
    assert find_changes('fast', 'shared_rpn') == {'rpn'}
    assert find_changes('shared_rpn', 'shared_fast') == {'second'}
    assert any(key.startswith('batch_stats/backbone/') for key in networks['fast'])


@pytest.fixture(scope='module')
def proposed():
    """Fast R-CNN on scenes that sliding windows search as they are read."""
    made = detection.offline(load('fast_rcnn_digits'))
    made.model.backbone.update(dict(backbone=NARROW, channels=8))
    made.data.proposals.most = 20
    return made


def test_images_of_a_batch_have_proposals(proposed):
    experiment = detection.make(proposed)
    batch, zeros = experiment.train[0], detection.without_data(proposed, experiment.about).train[0]
    assert {key: (x.shape, x.dtype) for key, x in batch.items() if key in zeros} == {
        key: (x.shape, x.dtype) for key, x in zeros.items()
    }
    proposer = make_proposer(**to_plain(proposed.proposals))
    for image, boxes, valid in zip(batch['image'], batch['proposals'], batch['proposals_valid'], strict=True):
        np.testing.assert_array_equal(boxes[valid], proposer(image)[:20])
    assert next(iter(experiment.evals['test'].data.iterate()))['proposals'].shape == (4, 20, 4)


def test_new_images_are_searched_before_they_are_predicted(proposed, tmp_path):
    made = detection.make(proposed)
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / 'a.png')

    def predict(params, mutable, batch):
        boxes, valid = batch['proposals'], batch['proposals_valid']
        return dict(boxes=boxes, valid=valid, scores=0.5 * valid, labels=np.zeros(valid.shape, np.int32))

    experiment = made._replace(task=made.task._replace(predict=predict))
    predicted = detection.predict(proposed, experiment, {}, {}, str(tmp_path / 'a.png'))
    predictions.write_predictions(predicted, tmp_path / 'out')
    rows = (tmp_path / 'out/predictions.csv').read_text().splitlines()[1:]
    windows = make_proposer('sliding_windows')(np.zeros((64, 64, 3), np.uint8))[:20]
    found = np.array([[float(x) for x in row.split(',')[4:]] for row in rows])
    np.testing.assert_allclose(found, windows, atol=0.051)


def test_stages_read_images_without_the_transforms_of_batches():
    """Those of an evaluator may need the size of its batches, which a search of whole images has none of."""
    made = configs.load(f'{configs.ROOT}/configs/detection/fast_rcnn_voc.py:smoke')
    assert made.data.evals.test.transforms.letterbox.size == 'batch'
    assert regions.load_split(made, 'test')[0]['image'].shape[0] == made.data.source.height


def test_ranks_are_compared_by_one_process_of_a_job(monkeypatch, tmp_path):
    """Each with the detector's own evaluator and weights; the table is written once."""
    images = np.arange(5 * 12, dtype=np.uint8).reshape(5, 2, 2, 3)
    seen = []

    def make_stage(config, stages):
        seen.append(config.model.get('svd_ranks'))

        def measure(params, mutable, batch):
            return Mean.of(batch['image'].mean((1, 2, 3)) * params['head']['w'], batch['mask'])

        evaluator = Evaluator(Once(Arrays({'image': images}), 2, threads=0), measure, lambda m: {'map50': m.value})
        task = Task(None, None, lambda params, mutable, batch: batch['image'] * params['head']['w'])
        return Experiment(task, None, None, {'test': evaluator})

    monkeypatch.setattr(svd_ranks.detection, 'make_stage', make_stage)
    weights = {'params': {'head': {'w': np.float32(0.5)}}}
    monkeypatch.setattr(svd_ranks.regions, 'read_variables', lambda stages, name: weights)
    monkeypatch.setattr(svd_ranks, 'truncate_svd', lambda variables, ranks: {'params': {'head': {'w': np.float32(2)}}})
    monkeypatch.setattr(svd_ranks.regions, 'save_figures', lambda artefacts, figures: None)
    made = ConfigDict(dict(svd=dict(ranks=(None, (8, 4)), network='fast'), model=dict(svd_ranks=placeholder(dict))))
    pretend_to_be_the_first(monkeypatch)
    metrics = svd_ranks.compute(made, {'fast': tmp_path}, Artefacts(tmp_path, str, bool))
    assert seen == [None, ConfigDict({'fc6': 8, 'fc7': 4})]
    assert metrics['rank_full/map50'] == metrics['test/map50'] == pytest.approx(images.mean() / 2)
    assert metrics['rank_8_4/map50'] == pytest.approx(images.mean() * 2)
    assert {'rank_full/seconds_per_image', 'rank_8_4/seconds_per_image'} <= metrics.keys()


def test_what_is_refused():
    made = load('fast_rcnn_digits')
    made.model.backbone.update(dict(backbone=NARROW, channels=8))
    with pytest.raises(UsageError, match=r"data\.proposals\.stage='proposals' is not a finished stage; put it before"):
        detection.make(made)
    with made.unlocked():
        made.data.proposals.stage = None
        del made.proposals
    with pytest.raises(UsageError, match='these images have no proposals; name what searches them in the section'):
        detection.make(made)


if __name__ == '__main__':
    from tests import conftest  # noqa: F401  (the tests' compilation cache)

    made = load('faster_rcnn_digits')
    made.model.backbone.update(dict(backbone=NARROW, channels=8))
    made.data.batch_size = 8
    job.train_on_devices(detection, made, sys.argv[1])

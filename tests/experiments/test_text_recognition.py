"""Text recognition from a config: a model that can read runs through all modes; overrides and refusals."""

import csv
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections.config_dict import placeholder
from PIL import Image

from canon import data, plots
from canon.errors import CanonError, UsageError
from canon.tasks import predictions
from experiments import configs, images, overrides, text_recognition


def config(**source):
    config = configs.load(f'{configs.ROOT}/configs/text_recognition/crnn_digits.py:smoke')
    with config.unlocked():
        config.data.source = dict(num_examples=64, **source)
        config.data.train.split = 'train'
        config.data.evals = {name: dict(split='test') for name in config.data.evals}
        config.data.batch_size = 4
        config.model.update(features=(2, 2, 2, 2, 2, 2, 2), hidden=2)
    return config


def test_images_of_a_folder_are_read_and_the_model_is_exported(tmp_path):
    digits_config = config()
    experiment = text_recognition.make(digits_config)
    lines = data.load_source('digit_lines', 'test', num_examples=5)
    (tmp_path / 'images').mkdir()
    for i in range(5):
        Image.fromarray(lines[i]['image'][..., 0]).save(tmp_path / 'images' / f'{i}.png')
    (tmp_path / 'images/broken.png').write_bytes(b'no image')
    batch = {name: jnp.asarray(x) for name, x in experiment.train[0].items()}
    variables = dict(jax.jit(experiment.task.init)(jax.random.key(0), batch))
    params = variables.pop('params')
    without = text_recognition.without_data(digits_config, experiment.about)
    predicted = text_recognition.predict(digits_config, without, params, variables, str(tmp_path / 'images'))
    with pytest.raises(
        predictions.SkippedInputs, match=r'^5 rows in .*; 1 of 6 images cannot be read: .*broken\.png; repair'
    ):
        predictions.write_predictions(predicted, tmp_path / 'out')
    with (tmp_path / 'out' / 'predictions.csv').open() as file:
        head, *rows = csv.reader(file)
    assert head == ['file', 'text', 'probability']
    assert [row[0] for row in rows] == [str(tmp_path / 'images' / f'{i}.png') for i in range(5)]
    assert all(0 <= float(p) <= 1 and set(text) <= set('0123456789') for _, text, p in rows)
    assert (tmp_path / 'out' / 'predictions.png').stat().st_size > 1000
    images = np.stack([lines[i]['image'] for i in range(3)])
    probabilities = text_recognition.served(digits_config, without).function(params, variables, images)
    assert probabilities.shape == (3, 26, 11)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize('mode', ['none', 'random', 'learnt'])
def test_images_are_augmented_as_the_config_says(mode):
    augmented = config()
    augmented.augment.update(mode=mode, patches=1)
    with augmented.unlocked():
        augmented.augment.agent = dict(features=(2, 2, 2, 2, 2, 2))
    experiment = text_recognition.make(augmented)
    batch = experiment.train[0]
    variables = dict(jax.eval_shape(experiment.task.init, jax.random.key(0), batch))
    params = variables.pop('params')
    assert 'lstm1' in params  # the recogniser's names are the same in all modes
    assert ('agent' in params) == (mode == 'learnt')
    counted = jax.eval_shape(experiment.evals['test'].measure, params, variables, batch)
    if mode != 'none':
        counted, edits = counted
        assert set(edits) == {'edits', 'edits_random'} | ({'edits_agent'} if mode == 'learnt' else set())
    assert set(counted) == {'loss', 'word_accuracy', 'character_error_rate'}
    assert experiment.task.gradient is None or mode == 'learnt'
    # A run is read again without its data, by the same parts.
    without = text_recognition.without_data(augmented, experiment.about)
    assert jax.eval_shape(without.task.predict, params, variables, batch).shape == (4, 26, 11)


def test_an_augmentation_that_does_not_exist_is_refused():
    wrong = config()
    wrong.augment.mode = 'learned'
    with pytest.raises(UsageError, match=r"augment\.mode='learned'"):
        text_recognition.make(wrong)


class Captions:
    """Images with a field 'text', as a data set of one's own would have them."""

    def __init__(self, split, texts=('12', b'345'), field='text'):
        self.texts, self.field = texts, field

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        return {'image': np.zeros((32, 100, 1), np.uint8), self.field: self.texts[index], 'writer': 'somebody'}


def captions_config(**options):
    changed = config()
    changed.data.name = f'{__name__}:Captions'
    with changed.unlocked():
        changed.data.source = options
        changed.data.evals = dict(test=dict(split='test'))
    return changed


def test_any_source_with_images_and_texts_is_read():
    batch = text_recognition.make(captions_config()).evals['test'].data[0]
    assert batch['label'].tolist() == [[2, 3, 0, 0, 0], [4, 5, 6, 0, 0], [0] * 5, [0] * 5]
    assert batch['label_length'].tolist() == [2, 3, 0, 0]
    assert batch['mask'].tolist() == [True, True, False, False]
    assert set(batch) == {'image', 'label', 'label_length', 'mask'}
    with pytest.raises(UsageError, match=r"has examples of image, caption, writer; text recognition needs 'image' and"):
        text_recognition.make(captions_config(field='caption'))
    with pytest.raises(CanonError, match=r"example 1: the text 'x' cannot be a label: 'x' is not in the alphabet"):
        text_recognition.make(captions_config(texts=('1', 'x'))).evals['test'].data[0]


def test_keys_that_the_config_leaves_to_their_defaults_can_be_set():
    digits_config = overrides.load(f'{configs.ROOT}/configs/text_recognition/crnn_digits.py:smoke')
    del (
        digits_config.text['ignore_case'],
        digits_config.input['std'],
        digits_config.data.train['sampler'],
        digits_config.data.evals.test['beam'],
    )
    pairs = {
        'text.ignore_case': True,
        'input.std': 0.25,
        'data.train.sampler': 'in_order',
        'data.evals.test.beam': 3,
        'data.evals.test.lexicon': 'words.txt',
        'data.evals.test.lexicon_distance': 3,
        'data.evals.test.trained_on': True,
        'data.reading.memory_limit': 1000,
        'data.source.least': 2,
    }
    assert overrides.apply(digits_config, [(key, str(value)) for key, value in pairs.items()]) == pairs
    assert (digits_config.text.ignore_case, digits_config.data.evals.test.beam, digits_config.data.source.least) == (
        True,
        3,
        2,
    )
    for key, near in (('text.ignore_cas', 'text.ignore_case'), ('data.evals.test.bean', 'data.evals.test.beam')):
        with pytest.raises(UsageError, match=f"no key '{key}'; did you mean '{near}'"):
            overrides.apply(digits_config, [(key, '1')])
    with pytest.raises(UsageError, match=r'data\.evals\.test\.beam=wide: must be a whole number'):
        overrides.apply(digits_config, [('data.evals.test.beam', 'wide')])


def test_an_evaluator_on_lines_of_the_training_split_is_refused_unless_it_says_so():
    digits_config = config()
    with digits_config.unlocked():
        digits_config.data.train.split = 'train[:48]'
        digits_config.data.evals = dict(validation=dict(split='train[40:]'))
    message = r"data\.evals\.validation\.split='train\[40:\]' shares images with data\.train\.split='train\[:48\]'"
    with pytest.raises(UsageError, match=message):
        text_recognition.make(digits_config)
    digits_config.data.evals.validation.split = 'train[48:]'
    assert len(text_recognition.make(digits_config).evals['validation'].data) == 4
    with digits_config.unlocked():
        digits_config.data.evals.validation = dict(split='train[40:]', trained_on=True)
    assert len(text_recognition.make(digits_config).evals['validation'].data) == 6


def test_what_is_refused():
    name = next(iter(config().data.evals))
    for key, value in (('text.max_length', 'abc'), ('data.batch_size', 0), (f'data.evals.{name}.beam', 1.5)):
        wrong = config()
        with wrong.ignore_type():
            wrong.update_from_flattened_dict({key: value})
        with pytest.raises(UsageError, match=f'{key}={value!r} must be a whole number'):
            text_recognition.make(wrong)
    wrong = config()
    wrong.model.num_classes = 9
    with pytest.raises(UsageError, match=r'model\.num_classes=9, but text\.characters has 10; set it to that'):
        text_recognition.make(wrong)
    wrong = config()
    wrong.data.name, wrong.data.source = 'fake', {}
    with pytest.raises(UsageError, match=r"data\.name='fake' has examples of image, label; text recognition needs"):
        text_recognition.make(wrong)
    wrong.data.name = 'words'
    with pytest.raises(UsageError, match=r"'words' is read from files: give --config\.data\.source\.path=FOLDER"):
        text_recognition.make(wrong)


def test_evaluators_and_predictions_read_with_a_lexicon(tmp_path):
    (tmp_path / 'words.txt').write_text('12\n345\n6789\n')
    lexical = config()
    with lexical.unlocked():
        lexical.data.evals = dict(
            test=dict(split='test', lexicon=str(tmp_path / 'words.txt'), lexicon_distance=9),
            whole=dict(split='test[:9]', lexicon='full'),
        )
    experiment = text_recognition.make(lexical)
    assert [e.on_host for e in experiment.evals.values()] == [True, True]
    (tmp_path / 'images').mkdir()
    for i in range(3):
        Image.fromarray(np.zeros((32, 100), np.uint8)).save(tmp_path / f'images/{i}.png')
    scores = np.full((4, 6, 11), -9, np.float32)
    scores[:, :4, [4, 5, 6]], scores[..., 0] = -1, -1.5  # 3, 4 and 5 in any order
    task = experiment.task._replace(predict=lambda params, mutable, batch: scores)
    read = text_recognition.predict(lexical, experiment._replace(task=task), {}, {}, str(tmp_path / 'images'))
    assert [row.row['text'] for row in read if row.row] == ['345'] * 3
    lexical.data.evals.whole.lexicon = 'own'
    with pytest.raises(UsageError, match=r'data\.evals\.whole has no lexicon of its own for every image'):
        text_recognition.make(lexical)


# --- images of several widths, benchmarks ----------------------------------------------------------------------------


@pytest.fixture
def folder_config(tmp_path):
    """Eight words of two widths, in buckets, and benchmarks of them and of a set without a path."""
    for number, word in enumerate(('to', 'be', 'or', 'not', 'Withered', 'is', 'the', "flower's"), 1):
        for split in ('train', 'test'):
            for name in ('IMG', 'label'):
                (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
            pixels = np.full((16, 8 * len(word)), number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / f'IMG/{number}.png')
            (tmp_path / split / f'label/{number}.txt').write_text(word)
    folder_config = configs.load(f'{configs.ROOT}/configs/text_recognition/crnn.py')
    fit, source = dict(chain=('fit_line',), fit_line=dict(size='batch')), dict(path=str(tmp_path))
    sets = dict(
        folder=dict(data='word_folder', source=source), icdar=dict(data='icdar2013', source=dict(path=placeholder(str)))
    )
    with folder_config.unlocked(), folder_config.ignore_type():
        folder_config.data = dict(
            name='word_folder', source=source, batch_size=4, sizes=((32, 64), (32, 160)), reading=dict(threads=0),
            train=dict(split='train', transforms=fit), evals=dict(val=dict(split='test', transforms=fit)),
            benchmarks=dict(sets=sets, transforms=fit),
        )  # fmt: skip
    return folder_config


def test_wide_images_have_batches_of_their_own(folder_config, caplog):
    with caplog.at_level(logging.INFO, 'canon'):
        experiment = text_recognition.make(folder_config)
    assert (
        'benchmarks without a path are left out: icdar; set data.benchmarks.path or data.benchmarks.sets.icdar.'
        in caplog.text
    )
    assert experiment.about['image_shape'] == (32, 160, 3)
    assert {experiment.train[step]['image'].shape for step in range(3)} == {(4, 32, 64, 3), (4, 32, 160, 3)}
    widths = {name: [e.data[i]['image'].shape[2] for i in range(len(e.data))] for name, e in experiment.evals.items()}
    assert widths == {'val': [64, 64, 160], 'benchmarks': [64, 64, 160]}
    # The images that predict reads have the widest size.
    _, transforms = images.first_settings(folder_config, text_recognition.RecognitionEvaluation)
    read = transforms[0].apply({'image': np.zeros((16, 8, 3), np.uint8)}, data.Key(0, 0, 0))['image']
    assert read.shape == (32, 160, 3)


def test_benchmarks_are_only_read_from_a_path(folder_config):
    with folder_config.unlocked():
        folder_config.data.benchmarks.sets.folder.source = dict(path=placeholder(str))
    assert set(text_recognition.make(folder_config).evals) == {'val'}
    pairs = {'compare': 'exact', 'sets.folder.lexicon': 'full', 'sets.folder.source.path': '/x'}
    with folder_config.unlocked():
        set_values = overrides.apply(folder_config, [(f'data.benchmarks.{key}', value) for key, value in pairs.items()])
    assert list(set_values.values()) == list(pairs.values())
    assert 'benchmarks' not in text_recognition.offline(folder_config).data


def test_readings_of_several_widths_are_drawn():
    figure = plots.draw_text_images([np.zeros((8, 12, 1), np.uint8), np.zeros((8, 40, 1), np.uint8)], ['a', 'b'])
    assert [image.get_array().shape for axes in figure.axes for image in axes.images] == [(8, 12), (8, 40)]

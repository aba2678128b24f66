"""Recipes of handwriting and of Chinese characters: partitions, widths, and data that draw themselves."""

import numpy as np
import pytest
from PIL import Image

from canon.data import Alphabet, load_source
from canon.data.text.engine import fonts
from canon.errors import UsageError
from experiments import classification, configs, text_recognition
from tests.data.test_text_readers import gnt

RECIPES = f'{configs.ROOT}/configs/text_recognition'
# Form: (text, width of its line); 64 rows become 128, so that widths double.
LINES = {
    'a01-000': ('A|MOVE|to|stop', 200),
    'a01-003': ('Mr|.|Gaitskell', 600),
    'b01-004': ('from', 40),
    'c02-000': ('nominating', 1500),
}


@pytest.fixture
def iam(tmp_path):
    """A folder in IAM's form with four lines, and the lists of both partitions."""
    rows = ['# a comment']
    for form, (text, width) in LINES.items():
        folder = tmp_path / 'lines' / form[:3] / form
        folder.mkdir(parents=True)
        Image.fromarray(np.full((64, width), 200, np.uint8)).save(folder / f'{form}-00.png')
        rows.append(f'{form}-00 ok 154 19 408 746 1661 89 {text}')
    (tmp_path / 'ascii').mkdir()
    (tmp_path / 'ascii/lines.txt').write_text('\n'.join(rows))
    lists = {
        'train.uttlist': ('a01-000', 'a01-003'),
        'validation.uttlist': ('b01-004',),
        'test.uttlist': ('c02-000',),
        'trainset.txt': ('c02-000-00',),
        'validationset1.txt': ('a01-000-00',),
        'validationset2.txt': ('b01-004-00',),
        'testset.txt': ('a01-003-00',),
    }
    for name, ids in lists.items():
        (tmp_path / name).write_text('\n'.join(ids))
    return str(tmp_path)


def read_texts(batches, alphabet):
    """{text: width of its batch} of the rows that count."""
    return {
        alphabet.decode(label): batch['image'].shape[2]
        for batch in (batches[i] for i in range(len(batches)))
        for label in batch['label'][batch['mask']]
    }


def test_lines_of_each_partition_go_to_their_widths(iam):
    config = configs.load(f'{RECIPES}/iam.py')
    with pytest.raises(UsageError, match=r'--config\.data\.source\.path=FOLDER_OR_TAR'):
        text_recognition.make(config)
    config.data.source.path = iam
    expected = {
        'rwth': ({'A MOVE to stop': 512, 'Mr . Gaitskell': 1536}, {'from': 512}, {'nominating': 3328}),
        'lwitlrt': ({'nominating': 3328}, {'A MOVE to stop': 512, 'from': 512}, {'Mr . Gaitskell': 1536}),
    }
    alphabet = Alphabet('printable_ascii')
    for partition, (train, valid, test) in expected.items():
        config.data.source.partition = partition
        experiment = text_recognition.make(config)
        widths = {}
        for step in range(8):  # batches of each width take turns
            batch = experiment.train[step]
            assert batch['image'].shape[:2] == (16, 128)
            widths |= {alphabet.decode(label): batch['image'].shape[2] for label in batch['label']}
        assert widths == train
        assert read_texts(experiment.evals['valid'].data, alphabet) == valid
        assert read_texts(experiment.evals['test'].data, alphabet) == test


@pytest.mark.parametrize('name', ['iam', 'rimes'])
def test_drawn_lines_have_their_words_and_widths(name, caplog):
    config = configs.load(f'{RECIPES}/{name}.py:smoke')
    config.data.source.num_examples, config.data.reading.threads = 96, 0
    config.data.evals.valid.split = config.data.evals.test.split = 'test[:32]'
    assert text_recognition.offline(config) is config
    experiment = text_recognition.make(config)
    alphabet = Alphabet(config.text.characters)
    texts = set()
    for step in range(4):
        batch = experiment.train[step]
        assert batch['image'].shape[1:] in {(24, 128, 1), (24, 256, 1)}
        assert batch['image'].std((1, 2, 3)).min() > 10  # no line is blank
        texts |= {alphabet.decode(label) for label in batch['label']}
    assert {text.count(' ') for text in texts} == {0, 1, 2}
    assert {word for text in texts for word in text.split()} <= set(config.data.source.words)
    # Few lines, if any, are longer than the widest size.
    squeezed = [int(record.args[0]) for record in caplog.records if 'are squeezed' in record.msg]
    assert sum(squeezed) <= 10  # of 160


@pytest.fixture
def no_chinese_fonts(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, '_DEBIAN', tmp_path / 'none')


@pytest.mark.parametrize(('name', 'module'), [('gb2312', classification), ('gb2312_lines', text_recognition)])
def test_a_run_without_chinese_fonts_ends_with_the_command_that_installs_them(name, module, no_chinese_fonts):
    config = configs.load(f'{RECIPES}/{name}.py:smoke')
    packages = 'fonts-arphic-gbsn00lp fonts-arphic-gkai00mp fonts-wqy-zenhei'
    with pytest.raises(UsageError, match=f'^no Chinese font is installed: apt-get install {packages}'):
        module.make(config)
    # To build the program, other data do.
    replaced = module.offline(config)
    assert replaced.data.name in ('fake', 'digit_lines')
    assert module.make(replaced).train[0]['image'].dtype == np.uint8


def test_characters_are_classes(tmp_path):
    """The order of the classes is that of the table, whatever the files have; others are left out, and counted."""
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for split in ('trn', 'tst'):
        folder = tmp_path / f'HWDB1.1{split}_gnt'
        folder.mkdir()
        (folder / '1001-c.gnt').write_bytes(gnt('座', image) + gnt('亍', image) + gnt('啊', image.T))
    source = load_source('casia_classes', 'train', path=str(tmp_path))
    assert [int(source[i]['label']) for i in range(len(source))] == [3754, 0]
    np.testing.assert_array_equal(source[1]['image'][..., 0], image.T)
    assert source.dropped.total() == 1
    assert (source.info.num_classes, source.info.class_names[3754]) == (3755, '座')
    config = configs.load(f'{RECIPES}/gb2312.py')
    config.data.source.path, config.data.batch_size = str(tmp_path), 2
    config.data.train.split, config.data.evals.validation.split = 'train[:1]', 'train[1:]'
    experiment = classification.make(config)
    assert experiment.evals['test'].data[0]['image'].shape == (2, 96, 96, 1)
    assert experiment.evals['test'].data[0]['label'].tolist() == [3754, 0]
    # The image of 3x4 is in the middle of white paper.
    assert (experiment.evals['test'].data[0]['image'][0, :12] == 255).all()


def test_drawn_characters_are_classes():
    options = dict(
        characters='edcba',
        count=4,
        fonts=None,
        size=24,
        num_examples=60,
        stages=dict(chain=('render_text', 'merge_layers')),
    )
    source = load_source('rendered_characters', 'test', **options)
    assert source.info.class_names == ('e', 'd', 'c', 'b')
    examples = [source[i] for i in range(60)]
    assert {int(example['label']) for example in examples} == {0, 1, 2, 3}
    assert {example['image'].shape for example in examples} == {(24, 24, 1)}
    # A letter with a stem fills fewer columns of a square than one without.
    ink = {
        label: np.mean([(e['image'] < 128).any(0).sum() for e in examples if e['label'] == label]) for label in range(4)
    }
    assert min(ink[0], ink[2]) > max(ink[1], ink[3])


def test_drawn_chinese_characters():
    """The first 200 of the recipe are drawn, none blank, and no two renderings alike."""
    config = configs.load(f'{RECIPES}/gb2312.py:smoke')
    config.data.source.num_examples, config.data.reading.threads = 128, 0
    for settings in config.data.evals.values():
        settings.split = 'test[:64]'
    try:
        experiment = classification.make(config)
    except UsageError as error:
        pytest.skip(str(error))
    images = np.concatenate([experiment.train[step]['image'] for step in range(2)])
    assert images.shape == (128, 48, 48, 1)
    assert images.std((1, 2, 3)).min() > 20
    assert len({image.tobytes() for image in images}) == 128

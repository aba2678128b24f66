"""TFDS sets on disk, made here by real builders, read in a process that has no TensorFlow."""

import io
import json
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from canon.data import Batches, Key, labels, load_source, transforms
from canon.errors import CanonError, UsageError

F = tfds.features
CLASSES = ('aeroplane', 'bicycle', 'bird')


def rgb(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 215, (2, 3, 3), np.uint8).repeat(8, 0).repeat(8, 1)


def jpeg(seed: int, mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb(seed)).convert(mode).save(buffer, 'JPEG', quality=95)
    return buffer.getvalue()


def example(i: int) -> dict:
    """Example i as the builder below is given it: i boxes, i + 1 tokens, and a JPEG in one of three colour modes."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5), 1000 * i, np.uint16)).save(buffer, 'PNG')
    return {
        'id': i,
        'image': jpeg(i, ('RGB', 'L', 'CMYK')[i % 3]),
        'mask': Image.fromarray(rgb(i)[..., 0]),
        'depth': buffer.getvalue(),
        'label': CLASSES[i % 3],
        'caption': f'写真 {i}',
        'tokens': [f'w{k}' for k in range(i + 1)],
        'spectrum': np.arange(6, dtype=np.float32).reshape(2, 3) + i,
        'lengths': np.arange(i),
        'objects': [
            {'bbox': F.BBox(ymin=0.1, xmin=0.2, ymax=0.3, xmax=(k + 5) / 20), 'label': CLASSES[k % 3]} for k in range(i)
        ],
        'nested': {'en': 'yes', 'score': i / 2},
    }


class CanonFabricated(tfds.core.GeneratorBasedBuilder):
    """A bit of everything that detection, segmentation and translation sets hold."""

    VERSION = tfds.core.Version('1.2.0')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name, description=name) for name in ('few', 'more')]  # noqa: RUF012

    def _info(self):
        features = F.FeaturesDict(
            {
                'id': np.int64,
                'image': F.Image(shape=(None, None, 3), encoding_format='jpeg'),
                'mask': F.Image(shape=(None, None, 1), encoding_format='png'),
                'depth': F.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format='png'),
                'label': F.ClassLabel(names=CLASSES),
                'caption': F.Text(),
                'tokens': F.Sequence(F.Text()),
                'spectrum': F.Tensor(shape=(2, 3), dtype=np.float32),
                'lengths': F.Sequence(np.int32),
                'objects': F.Sequence({'bbox': F.BBoxFeature(), 'label': F.ClassLabel(names=CLASSES)}),
                'nested': {'en': F.Text(), 'score': F.Scalar(np.float32)},
            }
        )
        return tfds.core.DatasetInfo(builder=self, description='fabricated', features=features)

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples(range(12)), 'test': self._generate_examples(range(12, 15))}

    def _generate_examples(self, ids):
        for i in ids:
            yield i, {**example(i), 'image': io.BytesIO(example(i)['image']), 'depth': io.BytesIO(example(i)['depth'])}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp('tfds')
    for config in ('few', 'more'):
        CanonFabricated(data_dir=root, config=config, file_format='array_record').download_and_prepare()
    return root


@pytest.fixture(scope='module')
def source(data_dir):
    return load_source('canon_fabricated/few', data_dir=data_dir)


def by_id(source):
    return {int(e['id']): e for e in source.__getitems__(range(len(source)))}


def test_every_feature_comes_back_as_it_went_in(source):
    examples = by_id(source)
    assert sorted(examples) == list(range(12))
    for i, e in examples.items():
        written = example(i)
        assert e['caption'] == written['caption']
        assert e['label'] == i % 3
        assert list(e['tokens']) == written['tokens']
        np.testing.assert_array_equal(e['mask'], rgb(i)[..., :1])
        np.testing.assert_array_equal(e['spectrum'], written['spectrum'])
        np.testing.assert_array_equal(e['lengths'], np.arange(i))
        assert e['lengths'].dtype == np.int32
        assert e['objects/bbox'].shape == (i, 4)
        assert e['objects/bbox'].dtype == np.float32
        assert e['objects/label'].shape == (i,)
        np.testing.assert_allclose(e['objects/bbox'][:, 3], [(k + 5) / 20 for k in range(i)], rtol=1e-6)
        np.testing.assert_array_equal(e['objects/label'], [k % 3 for k in range(i)])
        assert (e['nested/en'], e['nested/score']) == ('yes', i / 2)
        assert e['depth'].dtype == np.uint16
        np.testing.assert_array_equal(e['depth'], np.full((4, 5, 1), 1000 * i))


def test_jpegs_have_the_channels_that_the_feature_promises(source):
    for i, e in by_id(source).items():
        assert e['image'].shape == (16, 24, 3)
        expected = rgb(i) if i % 3 != 1 else np.asarray(Image.fromarray(rgb(i)).convert('L'))[..., None]
        assert abs(e['image'].astype(int) - expected).mean() < 6, i


def test_images_may_stay_as_in_their_files(data_dir, source):
    lazy = by_id(load_source('canon_fabricated/few', data_dir=data_dir, decode=False))
    for i, e in by_id(source).items():
        assert lazy[i]['image'] == example(i)['image']
        decoded = transforms.decode().apply(lazy[i], Key(0, 0, 0))
        np.testing.assert_array_equal(decoded['image'], e['image'])
        np.testing.assert_array_equal(decoded['mask'], e['mask'])  # only the field 'image' waits
    with pytest.raises(UsageError, match=r"'digits': decode=False is for images of 3 channels"):
        load_source('digits', data_dir=data_dir, decode=False)


def test_info_and_labels(source):
    assert source.info.class_names == CLASSES
    assert source.info.num_classes == 3
    assert labels(source).tolist() == [int(source[i]['label']) for i in range(12)]


def test_configs_versions_splits_and_slices(data_dir):
    def read(name, split='train'):
        return load_source(name, split, data_dir)

    assert len(read('canon_fabricated/more:1.2.0')) == 12
    parts = [read('canon_fabricated/few', s) for s in ('train[:75%]', 'train[75%:]', 'train+test', 'test')]
    assert [len(p) for p in parts] == [9, 3, 15, 3]
    assert by_id(parts[0]).keys() | by_id(parts[1]).keys() == set(range(12))
    for name, split, message in [
        ('canon_fabricated', 'train', 'several forms; say canon_fabricated/few or canon_fabricated/more'),
        ('canon_fabricated/few:2.0.0', 'train', 'holds no version 2.0.0; there are 1.2.0'),
        ('canon_fabricated/few', 'trian', r"no split 'trian'; did you mean 'train'\?"),
        ('canon_fabricated/few', 'train[a]', 'no split .*train'),
    ]:
        with pytest.raises(UsageError, match=message) as error:
            read(name, split)
        assert '\n' not in str(error.value)


def test_a_missing_set_is_answered_with_the_command(data_dir, monkeypatch):
    with pytest.raises(UsageError) as error:
        load_source('canon_fabricate', data_dir=data_dir)
    call = f"tfds.builder('canon_fabricate', data_dir='{data_dir}', file_format='array_record').download_and_prepare()"
    command = f'`./launch.sh prepare canon_fabricate --data_dir {data_dir}` (in Python: `{call}`)'
    assert str(error.value) == (
        f"data set 'canon_fabricate' is not in {data_dir}; did you mean 'canon_fabricated'?"
        f' If not, {command} puts it there'
    )
    monkeypatch.setenv('HOME', str(data_dir))
    with pytest.raises(UsageError, match=r'is not in .*/tensorflow_datasets; `./launch.sh prepare voc/2007` .* puts'):
        load_source('voc/2007')


def test_a_set_in_tfrecord_is_answered_with_the_command(data_dir, tmp_path):
    folder = tmp_path / 'canon_fabricated' / 'few' / '1.2.0'
    folder.mkdir(parents=True)
    for file in (data_dir / 'canon_fabricated' / 'few' / '1.2.0').iterdir():
        (folder / file.name.replace('array_record', 'tfrecord')).write_bytes(file.read_bytes())
    info = json.loads((folder / 'dataset_info.json').read_text())
    (folder / 'dataset_info.json').write_text(json.dumps({**info, 'fileFormat': 'tfrecord'}))
    with pytest.raises(UsageError, match=r'as tfrecord, which has no random access; `./launch.sh prepare canon_fabr'):
        load_source('canon_fabricated/few', data_dir=tmp_path)


@pytest.mark.parametrize('file', ['dataset_info.json', 'features.json'])
@pytest.mark.parametrize('stored', [b'', b'{}', b'null', b'\xff\xfe', b'{"fileFormat": 5}'])
def test_damaged_descriptions_of_a_set_are_one_line(data_dir, tmp_path, file, stored):
    made = tmp_path / 'canon_fabricated' / 'few' / '1.2.0'
    shutil.copytree(data_dir / 'canon_fabricated' / 'few' / '1.2.0', made)
    (made / file).write_bytes(stored)
    with pytest.raises(CanonError, match=r'1\.2\.0 is damaged \(.*\); delete it, then `./launch.sh prepare') as error:
        load_source('canon_fabricated/few', data_dir=tmp_path)
    assert '\n' not in str(error.value)


def test_a_damaged_set_is_named(data_dir, tmp_path):
    folder = tmp_path / 'canon_fabricated' / 'few' / '1.2.0'
    folder.mkdir(parents=True)
    for file in (data_dir / 'canon_fabricated' / 'few' / '1.2.0').iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    shard = next(folder.glob('*train*'))
    for broken in (shard.read_bytes()[:300], None):
        if broken is None:
            shard.unlink()
        else:
            shard.write_bytes(broken)
        with pytest.raises(CanonError, match=f'{folder}.*prepare canon_fabricated/few') as error:
            load_source('canon_fabricated/few', data_dir=tmp_path)[0]
        assert '\n' not in str(error.value)


def test_batches_of_it_in_worker_processes_without_tensorflow(data_dir):
    source = load_source('canon_fabricated/few', data_dir=data_dir)
    spec = dict(keep_fields=dict(fields=('id', 'image')), resize=dict(size=8))
    chain = transforms.make_transforms(dict(chain=('keep_fields', 'resize', 'random_flip'), **spec))
    plain, workers = Batches(source, 5, 1, chain), Batches(source, 5, 1, chain, workers=1)
    for step, batch in zip(range(2, 5), workers.iterate(2), strict=False):
        assert all(np.array_equal(batch[k], plain[step][k]) for k in ('id', 'image', 'mask'))
    assert 'tensorflow' not in sys.modules


def test_a_label_out_of_range_stops_the_run(source):
    chain = (transforms.check_label(2), transforms.keep_fields(('label',)))
    with pytest.raises(CanonError, match=r'example \d+: label 2 is not in 0..1'):
        Batches(source, 12, transforms=chain)[0]

"""Large folders are checked once: what is opened again at the next start, and what is not."""

import os
import time

import numpy as np
import pytest
from PIL import Image

from canon.data.images import checked, image_files
from canon.data.images.folder import folder
from canon.errors import CanonError

LONG_AGO = time.time() - 1000


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder of two classes that changed long ago, large by a lower bound; the record is in another folder."""
    monkeypatch.setattr(checked, 'MIN_FILES', 4)
    monkeypatch.setattr(checked, 'FOLDER', str(tmp_path / 'records'))
    root = tmp_path / 'images'
    for i in range(6):
        write(root / 'ab'[i % 2] / f'{i}.png')
    return settle(root)


@pytest.fixture
def opening_log(monkeypatch):
    """The names of the files that are opened."""
    names = []
    explain = image_files.explain_unreadable

    def spy(file, **options):
        names.append(os.path.basename(file))
        return explain(file, **options)

    monkeypatch.setattr('canon.data.images.folder.explain_unreadable', spy)
    return names


def write(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(file)


def settle(root):
    for path in (root, *root.iterdir()):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return root


def read(root, **options):
    return folder(str(root), 'all', **options)


def test_an_unchanged_folder_is_opened_once(root, opening_log):
    first = read(root)
    assert len(opening_log) == 6
    opening_log.clear()
    second = read(root)
    assert not opening_log
    assert second.files == first.files
    assert len(second) == 6
    assert list(second[0]['image'].shape) == [4, 5, 3]


def test_only_directories_that_changed_are_opened_again(root, opening_log):
    read(root)
    write(root / 'b' / 'new.png')
    opening_log.clear()
    assert len(read(root)) == 7
    assert sorted(opening_log) == ['1.png', '3.png', '5.png', 'new.png']
    opening_log.clear()
    read(root)  # it changed seconds ago: a file may have come after the directory was listed
    assert len(opening_log) == 4


def test_what_could_not_be_read_is_tried_again(root, opening_log):
    (root / 'a' / '0.png').write_bytes(b'no image')
    settle(root)
    skipped = read(root, unreadable='skip')
    assert [file.name for file in skipped.skipped] == ['0.png']
    assert len(skipped) == 5
    opening_log.clear()
    assert len(read(root, unreadable='skip')) == 5
    assert opening_log == ['0.png']
    with pytest.raises(CanonError, match='1 of 6 images'):
        read(root)
    with pytest.raises(CanonError, match='1 of 6 images'):
        read(root)
    write(root / 'a' / '0.png')  # repaired in place
    settle(root)
    assert len(read(root, unreadable='skip')) == 6


def test_what_is_checked_is_not_taken_for_something_else(root, opening_log):
    read(root)
    for options in ({'unreadable': 'skip'}, {'max_pixels': 20}, {'unreadable': 'skip', 'max_pixels': 30}):
        opening_log.clear()
        read(root, **options)
        assert len(opening_log) == 6
    for split, count in (('train', 4), ('test', 2)):  # of an undivided folder, whose directories they share
        opening_log.clear()
        folder(str(root), split)
        assert len(opening_log) == count


def test_a_folder_may_be_named_in_two_ways(root, opening_log, monkeypatch):
    (root / 'a' / '0.png').write_bytes(b'no image')
    settle(root)
    read(root, unreadable='skip')
    monkeypatch.chdir(root.parent)
    for name in (root.name, str(root), root.name, str(root)):
        assert len(read(name, unreadable='skip')) == 5
    opening_log.clear()
    read(root, unreadable='skip')
    read(root.name, unreadable='skip')
    assert opening_log == ['0.png', '0.png']


def test_a_file_that_is_damaged_in_place_is_named_when_it_is_read(root):
    read(root)
    (root / 'a' / '2.png').write_bytes(b'no image')
    settle(root)
    source = read(root)
    with pytest.raises(CanonError, match=r'2\.png cannot be read'):
        [example for example in source]


def test_a_damaged_record_and_a_home_that_cannot_be_written(root, opening_log, monkeypatch, tmp_path):
    read(root)
    (record,) = (tmp_path / 'records').iterdir()
    record.write_text('{"directories": 3}')
    opening_log.clear()
    read(root)
    assert len(opening_log) == 6
    (tmp_path / 'file').write_text('')
    monkeypatch.setattr(checked, 'FOLDER', str(tmp_path / 'file' / 'records'))
    for _ in range(2):
        opening_log.clear()
        assert len(read(root)) == 6
        assert len(opening_log) == 6


def test_small_folders_leave_no_record(root, monkeypatch, tmp_path):
    monkeypatch.setattr(checked, 'MIN_FILES', 7)
    read(root)
    assert not (tmp_path / 'records').exists()

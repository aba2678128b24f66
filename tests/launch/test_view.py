"""`view` of a folder that has nothing to look at: one line, before JAX is imported."""

import json
import subprocess
import sys

import pytest

from canon.errors import UsageError
from experiments import configs
from launch import view


@pytest.fixture
def make_run(tmp_path):
    """Returns a function that writes the config of a run of an experiment, and returns its folder."""

    def write(experiment, name='run', checkpoint=None, init_from=None):
        folder = tmp_path / name
        (folder / 'checkpoints').mkdir(parents=True)
        config = dict(experiment=experiment, run=dict(init_from=dict(path=init_from)))
        (folder / 'config.json').write_text(json.dumps(config))
        if checkpoint is not None:
            (folder / 'checkpoints' / str(checkpoint)).mkdir()
        return folder

    return write


def test_other_experiments_are_refused_with_those_that_can_be_viewed(make_run):
    message = "a run of 'classification' cannot be viewed; those of shapes, view_synthesis, volume_rendering can"
    with pytest.raises(UsageError, match=message):
        view.check_viewable(make_run('classification', checkpoint=10))


def test_a_run_without_a_checkpoint_is_named_with_the_command_that_continues_it(make_run):
    folder = make_run('shapes')
    with pytest.raises(UsageError, match=rf'has no checkpoint yet; ./launch.sh run --workdir={folder} continues'):
        view.check_viewable(folder)
    view.check_viewable(make_run('shapes', 'trained', checkpoint=10))
    view.check_viewable(make_run('shapes', 'published', init_from='weights.npz'))


def test_a_folder_of_runs_names_its_newest_run(make_run, tmp_path):
    with pytest.raises(UsageError, match=r'holds no run \(no config.json\); give the folder of a run$'):
        view.check_viewable(tmp_path)
    folder = make_run('shapes', 'task/config/default')
    with pytest.raises(UsageError, match=rf'{tmp_path} holds no run .*; runs are below it: give {folder}$'):
        view.check_viewable(tmp_path)


def test_wrong_usage_imports_no_jax(make_run):
    code = f"""
import sys
from launch import view
try:
    view.main(['--workdir={make_run('classification')}'])
except view.UsageError as error:
    print(error, 'jax' in sys.modules, 'numpy' in sys.modules)
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=configs.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith('can False False\n')

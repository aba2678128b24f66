"""What a command reports: one line and an exit status for every error that a user may meet."""

import pytest

from canon.errors import CanonError, UsageError, run_command


def raise_error(error):
    raise error


@pytest.mark.parametrize(
    ('error', 'status', 'line'),
    [
        (UsageError('no such key'), 2, 'error: no such key'),
        (CanonError('the run failed'), 1, 'error: the run failed'),
        (KeyboardInterrupt(), 130, 'interrupted'),
        (MemoryError(), 1, 'error: there is not enough memory: for one more array'),
        (OSError(28, 'No space left on device'), 1, 'error: [Errno 28] No space left on device'),
        (
            RuntimeError('RESOURCE_EXHAUSTED: 3 GB\nmore'),
            1,
            'error: there is not enough memory: RESOURCE_EXHAUSTED: 3 GB',
        ),
    ],
    ids=repr,
)
def test_an_expected_error_is_one_line(capsys, error, status, line):
    assert run_command(lambda: raise_error(error)) == status
    assert capsys.readouterr().err == f'{line}\n'


def test_an_unforeseen_error_has_its_traceback(capsys):
    assert run_command(lambda: raise_error(ValueError('x'))) == 1
    assert capsys.readouterr().err.startswith('Traceback')


@pytest.mark.parametrize(('returned', 'status'), [(None, 0), (0, 0), (1, 1)])
def test_a_command_may_return_its_status(returned, status):
    assert run_command(lambda: returned) == status

"""`./launch.sh bench`: turns of processes, noisy rounds, the page, and what is asked for by name."""

import pytest

from benchmarks import comparison, profile
from benchmarks.comparison import Row, Turn
from canon.errors import UsageError
from launch import bench
from tests.launch import small_benchmark


def make_row(side: str, seconds: float, aim: float | None = None, noise: float = 0.0, work: str = 'lstm_256') -> Row:
    turns = tuple(Turn(seconds * factor, 2 * seconds, noise) for factor in (1, 1.5, 1))
    return Row(work, side, 'default', f'{side} 1.0', turns, (Turn(0.5, 1.0, 0.0),) * 3, aim)


@pytest.mark.slow
def test_sides_take_turns_and_the_best_settings_are_chosen(capsys):
    canon, longer = comparison.measure(small_benchmark.BENCHMARK, 'nap', None, rounds=2, trials=1)
    assert (canon.side, longer.side, longer.aim) == ('canon', 'longer', 0.5)
    assert all(turn.wall >= 0.02 for turn in canon.turns)
    assert all(turn.wall >= 0.2 for turn in longer.turns)
    assert longer.ratios('wall') == [a.wall / b.wall for a, b in zip(canon.turns, longer.turns, strict=True)]
    assert 'longer (jax' in capsys.readouterr().out


def test_a_noisy_round_is_repeated_and_the_quiet_ones_count(capsys):
    class Side:
        def __init__(self, noises):
            self.noises = iter(noises)

        def take_turn(self, work, calls):
            return Turn(1.0, 1.0, next(self.noises))

    quiet, disturbed = Side([0.01] * 9), Side([0.0, 0.3, 0.02, 0.04])
    turns = comparison._take_rounds([quiet, disturbed], 'work', 1, 3)  # ty: ignore[invalid-argument-type]
    assert [turn.noise for turn in turns[1]] == [0.0, 0.02, 0.04]
    assert 'other processes took 30% of the machine in this round' in capsys.readouterr().out
    always = [Side([0.01] * 9), Side([0.5, 0.4, 0.3, 0.2])]
    turns = comparison._take_rounds(always, 'work', 1, 2)  # ty: ignore[invalid-argument-type]
    assert sorted(turn.noise for turn in turns[1]) == [0.2, 0.3]  # the quietest of twice as many


def test_noise_is_what_others_took():
    assert comparison._measure_noise((1000, 500, 100), (1200, 680, 270)) == pytest.approx(10 / 200)
    assert comparison._measure_noise(None, (1, 1, 1)) == 0.0


def test_the_page_replaces_the_rows_of_what_was_measured(tmp_path):
    page, rows = tmp_path / 'benchmarks.md', bench.make_page(bench.load_benchmarks())
    first = [make_row('canon', 0.5), make_row('linen', 1.0, aim=0.75), make_row('torch', 0.4, aim=1.1, noise=0.2)]
    rows.write(page, bench.describe('recurrence', first))
    rows.write(page, bench.describe('recurrence', [make_row('canon', 0.5), make_row('torch', 0.5)]))
    rows.write(page, bench.describe('gone', [make_row('canon', 0.5)]))
    lines = [line for line in page.read_text().splitlines() if line.startswith('| recurrence')]
    assert len(lines) == 2
    assert '| recurrence.lstm_256 | 500 | linen (linen 1.0) | 0.50 (0.33-0.50) | 0.50 (0.50-0.50) | 0.75 |' in lines[0]
    assert '| torch (torch 1.0) | 1.00 (0.67-1.00) |' in lines[1]
    assert 'noisy' not in lines[1]
    rows.write(page, bench.describe('recurrence', first))
    assert 'noisy: others took 20%' in page.read_text()
    assert 'gone' not in page.read_text()  # of works that no longer exist nothing stays
    rows.write(page, bench.describe('recurrence', [make_row('canon', 0.5)]))
    assert '| alone |' in page.read_text()
    bench.make_page(bench.load_benchmarks(), {'recurrence.lstm_256'}).write(page, bench.describe('recurrence', first))
    assert '| alone |' not in page.read_text()


def test_works_are_chosen_by_module_or_name_and_misses_are_counted():
    benchmarks = bench.load_benchmarks()
    assert bench.choose_works(['recurrence.gru_650', 'adaptation'], benchmarks)[-1] == ('recurrence', 'gru_650')
    assert {module for module, _ in bench.choose_works([], benchmarks)} == set(benchmarks)
    with pytest.raises(UsageError, match="there is no 'recurence'; did you mean 'recurrence'"):
        bench.choose_works(['recurence'], benchmarks)
    assert bench.misses(make_row('torch', 0.4, aim=1.1))
    assert not bench.misses(make_row('torch', 0.5, aim=1.1))
    assert not bench.misses(make_row('canon', 0.5, aim=0.1))


def test_the_arithmetic_of_a_step():
    """The LSTM's layer: two products of 3,200 rows with [256, 1024], and all gradients but that of its inputs."""
    assert profile.count_flop('recurrence.lstm_256') == 5 * 2 * 3200 * 256 * 1024


def test_instructions_have_a_class():
    names = ('dot_general.3', 'ffi_call.9', 'ynn_fusion.1', 'transpose_copy_fusion', 'add_select_fusion.2')
    assert [profile.classify(name) for name in names] == [*profile.CLASSES, 'elementwise']
    assert {profile.classify(name) for name in ('$api.py:2 wait', 'ThunkExecutor::Execute', 'PjitFunction(f)')} == {
        None
    }

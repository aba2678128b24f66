"""A small form of the campaign of bad inputs (tools/campaign.py; docs/reliability.md has the whole one)."""

import re
import subprocess
import sys

import pytest


def run_campaign(root, *arguments: str) -> str:
    """The campaign's output; fails with it where a case fails."""
    command = [sys.executable, '-m', 'tools.campaign', '--verbose', *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    return done.stdout


@pytest.mark.parametrize(
    ('families', 'count'), [('settings', 6), pytest.param('settings,files', 24, marks=pytest.mark.slow)]
)
def test_bad_settings_and_files_are_one_clear_line_each(root, families, count):
    output = run_campaign(root, '--seed=1', f'--count={count}', f'--only={families}', '--jobs=1')
    assert int(re.search(r'(\d+) refused', output)[1]) >= count / 2


@pytest.mark.slow
def test_a_longer_campaign(root):
    run_campaign(root, '--seed=2', '--count=50')


def test_the_campaign_finds_a_traceback_and_silence(root):
    """It can fail: a command that raises, and one that accepts what it must refuse."""
    script = """
from tools import campaign
from experiments import main

def fail():
    raise KeyError('a traceback')

cases = [campaign.Case('raises', ()), campaign.Case('accepts', (), must_refuse=True)]
main.main = fail
print(campaign.judge_case(cases[0]).verdict)
main.main = lambda: None
print(campaign.judge_case(cases[1]).verdict)
"""
    done = subprocess.run([sys.executable, '-c', script], cwd=root, capture_output=True, text=True)
    assert done.stdout.split() == ['traceback', 'silent'], done.stderr

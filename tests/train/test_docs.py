"""The page about training: its examples, in order, in one process."""

import re


def test_the_examples_of_the_page_run(root, tmp_path):
    blocks = re.findall(r'```python\n(.*?)```', (root / 'docs' / 'training.md').read_text(), re.DOTALL)
    assert len(blocks) >= 4
    names = {'workdir': tmp_path}
    for block in blocks:
        exec(block, names)

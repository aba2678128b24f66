"""Domains as data: sources of the same classes by the name of their domain, their splits, and batches of several.

    >>> from canon.data import domains
    >>> pair = domains.rotated_digits('train', angles=(0, 90), size=8)
    >>> source, target = pair['0'], pair['90']
    >>> batches = domains.make_domain_batches({'source': source}, {'target': target}, batch_size=4, seed=0)
    >>> {name: sorted(batch) for name, batch in batches[0].items()}
    {'source': ['angle', 'image', 'label', 'mask'], 'target': ['image', 'mask']}

The labels of the target are not in the batch, so that no training step can read them.
"""

from canon.data.domains.digit_domains import (
    coloured_digits,
    digit_styles,
    hog_digits,
    label_shifted_digits,
    rotated_digits,
)
from canon.data.domains.digit_images import DIGIT_STYLES, load_digit_images
from canon.data.domains.domain_batches import Unlabelled, make_domain_batches
from canon.data.domains.domain_folders import domain_folder, domain_lists
from canon.data.domains.domain_sets import DOMAIN_SETS, Domains, load_domains, named_sources
from canon.data.domains.domain_splits import (
    check_selection_split,
    divide_by_class,
    draw_label_shift,
    show_few,
    split_rows,
)
from canon.data.domains.relabelled import Relabelled, relabel

__all__ = [
    'DIGIT_STYLES', 'DOMAIN_SETS', 'Domains', 'Relabelled', 'Unlabelled', 'check_selection_split', 'coloured_digits',
    'digit_styles', 'divide_by_class', 'domain_folder', 'domain_lists', 'draw_label_shift', 'hog_digits',
    'label_shifted_digits', 'load_digit_images', 'load_domains', 'make_domain_batches', 'named_sources', 'relabel',
    'rotated_digits', 'show_few', 'split_rows',
]  # fmt: skip

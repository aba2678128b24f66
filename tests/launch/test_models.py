"""`canon.models.tabulate` against what is published, and against receptive fields that others computed."""

import pkgutil
import re

import pytest

from canon import models
from canon.errors import UsageError
from launch.models import list_others, main, other_cells
from launch.network_inputs import INPUTS, count_network

# Araujo, Norris, Sim 2019, "Computing receptive fields of convolutional neural networks", Table 1.
FIELDS = {
    'alexnet.alexnet_one_tower': 195, 'vgg.vgg16': 212, 'mobilenet.mobilenet_v1': 315, 'inception.bn_inception': 699,
    'inception.inception_v3': 1311, 'inception.inception_v4': 2071, 'resnet.resnet50 stride_at=1x1': 483,
    'resnet.resnet101 stride_at=1x1': 1027, 'resnet.resnet152 stride_at=1x1': 1507,
}  # fmt: skip


def one(text: str) -> models.NetworkRow:
    name, _, arguments = text.partition(' ')
    wanted = dict(pair.split('=') for pair in arguments.split())
    found = (row for row in models.tabulate(name) if row.name == name)
    return next(row for row in found if {k: str(v) for k, v in row.arguments.items()} == wanted)


def test_multiply_adds_of_mobilenets():
    """Tables 6 and 7 of the paper, which round down or to the nearest; here to a tenth of a million."""
    rows = {(r.arguments.get('width_multiplier', 1.0), r.size): r for r in list(models.tabulate('mobilenet_v1'))[:7]}
    assert {k: round(r.multiply_adds / 1e6, 1) for k, r in rows.items()} == {
        (1.0, 224): 568.7, (0.75, 224): 325.4, (0.5, 224): 149.5, (0.25, 224): 41.0,
        (1.0, 192): 418.1, (1.0, 160): 290.7, (1.0, 128): 186.4,
    }  # fmt: skip
    for row in rows.values():
        assert row.published_multiply_adds is not None
        assert abs(row.multiply_adds - row.published_multiply_adds) < 1e6
        assert row.parameters == row.published_parameters


@pytest.mark.parametrize('name', ['resnet.resnet18', 'resnet.resnet34', 'resnet.resnet50'])
def test_multiply_adds_of_resnets(name):
    """torchvision's to three digits; the paper's Table 1 cuts to one (34 layers have 3.64e9 there, 3.6 printed)."""
    for row in models.tabulate(name):
        published = row.published_multiply_adds
        assert published is not None
        if 'torchvision' in str(row.source):
            assert abs(row.multiply_adds - published) < 0.0005e9
        else:
            assert -0.01e9 < row.multiply_adds - published < 0.1e9


@pytest.mark.parametrize('text', ['alexnet.alexnet_one_tower', 'vgg.vgg16', 'mobilenet.mobilenet_v1'])
def test_receptive_fields(text):
    assert one(text).field == (FIELDS[text], FIELDS[text])


@pytest.mark.slow
def test_every_row():
    every = list(models.tabulate())
    assert {row.name.partition('.')[0] for row in every} >= {
        'lenet', 'alexnet', 'zfnet', 'nin', 'vgg', 'googlenet', 'inception', 'resnet', 'mobilenet'
    }  # fmt: skip
    for row in every:
        assert row.published_parameters in (None, row.parameters), row
        text = ' '.join((row.name, *(f'{k}={v}' for k, v in row.arguments.items() if k != 'auxiliary')))
        if text in FIELDS:
            assert row.field == (FIELDS[text], FIELDS[text]), row
        if row.source == 'torchvision V1' and row.published_multiply_adds:
            assert abs(row.multiply_adds - row.published_multiply_adds) <= 0.0005e9, row


def test_the_table_of_networks_is_printed(capsys):
    assert main(['lenet', '--markdown']) == 0
    head, _, first, *_ = capsys.readouterr().out.splitlines()
    assert head.startswith('| network | size | parameters |')
    assert first.startswith('| lenet.lenet5 | 32 | 61,706 | = | 0.4 |')
    assert main(['lenet5_1998']) == 0
    _, row = capsys.readouterr().out.splitlines()
    assert row.split()[:4] == ['lenet.lenet5_1998', '32', '60,000', '=']


def test_an_unknown_network_is_refused():
    with pytest.raises(UsageError, match="no network is called 'resnt'; did you mean 'resnet'"):
        list(models.tabulate('resnt'))


def test_every_network_is_counted_or_cited_and_on_the_page(root):
    """One list: functions of `canon.models`, the inputs at which they are counted, and docs/networks.md."""
    assert set(list_others()) == set(INPUTS)
    cited = {row['name'] for row in models.list_citations()}
    modules = {entry.name for entry in pkgutil.iter_modules(models.__path__)} - {'protocols'}  # which are types
    assert {name.partition('.')[0] for name in {*INPUTS, *cited}} == modules
    page = (root / 'docs/networks.md').read_text()
    on_page = set(re.findall(r'^\| (\w+\.\w+)', page.partition('## Stages of the backbones')[0], re.MULTILINE))
    assert on_page == {*INPUTS, *cited}


@pytest.mark.parametrize('name', ['igr.igr', 'nerf.nerf', 'pair_affinity.pair_affinity', 'rnn_lm.language_model'])
def test_a_network_of_other_data_is_counted_as_the_page_says(root, name):
    assert f'| {" | ".join(other_cells(name))} |' in (root / 'docs/networks.md').read_text()


@pytest.mark.slow
def test_every_network_of_other_data_is_counted_as_the_page_says(root):
    page = (root / 'docs/networks.md').read_text()
    assert [name for name in INPUTS if f'| {" | ".join(other_cells(name))} |' not in page] == []


def test_multiply_adds_of_loops():
    """An LSTM layer has (inputs + hidden) x 4 hidden products per token, in a scan over tokens; the logits follow."""
    costs = count_network('rnn_lm.language_model')
    assert costs.multiply_adds == 35 * (2 * 4 * 200 * (200 + 200) + 200 * 10_000)
    # NeRF: 63 -> 256, four layers, the skip's 63 + 256, two more, density and feature, then the colour's two layers.
    assert count_network('nerf.nerf').multiply_adds == (
        63 * 256 + 6 * 256 * 256 + (256 + 63) * 256 + 256 + 256 * 256 + (256 + 27) * 128 + 128 * 3
    )


def test_the_table_of_other_networks_is_printed(capsys):
    assert main(['igr']) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ['network', 'parameters', 'M']
    assert row.split()[:3] == ['igr.igr', '1,839,614', '1.836']
    with pytest.raises(UsageError, match="no network is called 'igx'"):
        main(['igx'])

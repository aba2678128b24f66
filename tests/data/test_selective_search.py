"""Selective search: against a literal implementation of the paper, its invariances, and what it refuses."""

import numpy as np
import pytest
from scipy import ndimage

from canon.data.detection import selective_search as search
from canon.data.detection.digit_scenes import digit_scenes
from canon.errors import UsageError


def draw_image(seed, shape=(37, 53)):
    """Draws rectangles of random colours under noise."""
    rng = np.random.default_rng(seed)
    image = np.full((*shape, 3), 90, np.uint8)
    for _ in range(9):
        y, x = rng.integers(0, shape[0] - 6), rng.integers(0, shape[1] - 6)
        image[y : y + rng.integers(4, 20), x : x + rng.integers(4, 20)] = rng.integers(0, 230, 3)
    return image + rng.integers(0, 20, image.shape, np.uint8)


def group_literally(labels, colours, textures, letters):
    """Algorithm 1 on sets of pixels: every measure is taken from the pixels of both regions, every pair is compared."""
    area = labels.size
    regions = {i: labels == i for i in range(labels.max() + 1)}
    cross = np.ones((3, 3), bool)

    def count_bins(maps, bins, mask):
        counts = np.concatenate([np.bincount(values[mask], minlength=bins) for values in maps])
        return counts / counts.sum()

    def bound(mask):
        y, x = np.nonzero(mask)
        return x.min(), y.min(), x.max() + 1, y.max() + 1

    def measure(a, b):
        x0, y0, x1, y1 = bound(a | b)
        sizes = a.sum() + b.sum()
        parts = {
            'C': np.minimum(count_bins(colours, 25, a), count_bins(colours, 25, b)).sum(),
            'T': np.minimum(count_bins(textures, 10, a), count_bins(textures, 10, b)).sum(),
            'S': 1 - sizes / area,
            'F': 1 - ((x1 - x0) * (y1 - y0) - sizes) / area,
        }
        return sum(parts[letter] for letter in letters)

    def touch(a, b):
        return (ndimage.binary_dilation(a, cross) & b).any()

    boxes = [bound(mask) for mask in regions.values()]
    similar = {(i, j): measure(regions[i], regions[j]) for i in regions for j in regions if i < j}
    similar = {pair: value for pair, value in similar.items() if touch(*(regions[k] for k in pair))}
    margins = []
    while similar:
        order = sorted(similar, key=lambda pair: (-similar[pair], pair))
        margins.append(similar[order[0]] - similar[order[1]] if len(order) > 1 else 1.0)
        i, j = order[0]
        new, mask = len(boxes), regions.pop(i) | regions.pop(j)
        similar = {pair: value for pair, value in similar.items() if not {i, j} & {*pair}}
        similar |= {(k, new): measure(other, mask) for k, other in regions.items() if touch(other, mask)}
        regions[new] = mask
        boxes.append(bound(mask))
    return np.array(boxes), min(margins, default=1.0)


@pytest.mark.parametrize('colour', ['lab', 'h'])
def test_hierarchies_are_those_of_the_literal_algorithm(colour):
    """Several similarities and scales at once, so that hierarchies of different lengths advance together."""
    checked, space = 0, search.COLOUR_SPACES[colour](draw_image(len(colour)))
    colours, textures = search.bin_colours(space), search.bin_textures(space)
    labels = [search._segment(space, scale, 0.8, 12) for scale in (20, 60)]
    graphs = [search.measure_regions(values, colours, textures) for values in labels]
    similarities = ('CTSF', 'TSF', 'F', 'S')
    grouped = list(search.group_regions(graphs, similarities, space.shape[0] * space.shape[1]))
    assert len(grouped) == 8
    for i, boxes in enumerate(grouped):
        expected, margin = group_literally(labels[i // 4], colours, textures, similarities[i % 4])
        assert len(boxes) == 2 * len(graphs[i // 4].sizes) - 1
        # Where two pairs are equally similar, rounding decides, and the literal sums round otherwise.
        if margin > 1e-9:
            np.testing.assert_array_equal(boxes, expected)
            checked += len(boxes) > 15
    assert checked >= 3


def test_textures_are_slopes_in_eight_directions():
    """On a ramp of slope s in direction t the response in direction u is s cos(t - u), and the negative part is 0."""
    y, x = np.mgrid[:40, :40]
    ramp = (0.5 + 0.01 * (np.cos(np.pi / 4) * x + np.sin(np.pi / 4) * y) - 0.3)[..., None]
    bins = search.bin_textures(ramp.astype(np.float32))[:, 12:-12, 12:-12]
    assert bins.shape == (8, 16, 16)
    cosines = np.cos(np.arange(8) * np.pi / 4 - np.pi / 4)
    # cos 0 reaches the last bin, cos 45 degrees lies in bin 7, and what is not positive in bin 0.
    expected = np.where(cosines > 0.99, 9, np.where(cosines > 0.1, 7, 0))
    np.testing.assert_array_equal(bins.reshape(8, -1).max(1), expected)
    np.testing.assert_array_equal(bins.reshape(8, -1).min(1), expected)
    assert not search.bin_textures(np.full((9, 7, 2), 0.4, np.float32)).any()


def test_colour_spaces_are_within_0_and_1_and_grey_has_no_hue():
    corners = np.array(np.meshgrid(*[[0, 128, 255]] * 3)).reshape(3, 9, 3).transpose(1, 2, 0).astype(np.uint8)
    for name, convert in search.COLOUR_SPACES.items():
        values = convert(corners)
        assert values.dtype == np.float32, name
        assert values.min() >= 0, name
        assert values.max() <= 1, name
    red = np.array([[[255, 0, 0], [0, 255, 0], [9, 9, 9], [0, 0, 0]]], np.uint8)
    np.testing.assert_allclose(search.COLOUR_SPACES['h'](red)[0, :, 0], [0, 1 / 3, 0, 0], atol=1e-6)
    np.testing.assert_allclose(search.COLOUR_SPACES['rgi'](red)[0, :, 0], [1, 0, 1 / 3, 1 / 3], atol=1e-6)
    # L* of 18 % grey (119 of 255 in sRGB) is 50.
    grey = search.COLOUR_SPACES['lab'](np.full((1, 1, 3), 119, np.uint8))[0, 0]
    np.testing.assert_allclose(grey, [0.5, 128 / 255, 128 / 255], atol=2e-3)


def test_boxes_are_ranked_without_duplicates_and_depend_on_the_image_alone():
    image = draw_image(3)
    boxes = search.selective_search(image, max_boxes=10_000)
    assert boxes.dtype == np.float32
    assert len(np.unique(boxes, axis=0)) == len(boxes) > 30
    assert [0, 0, 53, 37] in boxes.tolist()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    np.testing.assert_array_equal(search.selective_search(image.copy()), boxes)
    np.testing.assert_array_equal(search.selective_search(image, max_boxes=7), boxes[:7])
    other = search.selective_search(image, seed=1, max_boxes=10_000)
    assert {*map(tuple, other)} == {*map(tuple, boxes)}
    assert (other != boxes).any()
    large = search.selective_search(image, min_side=20)
    assert 0 < len(large) < len(boxes)
    assert (large[:, 2:] - large[:, :2]).min() >= 20


def test_the_first_in_rank_of_equal_boxes_stays_and_the_top_of_a_hierarchy_comes_first_on_average():
    hierarchies = [np.array([[0, 0, i, i]]) for i in range(1, 6)] * 2
    hierarchy = np.concatenate(hierarchies)  # each box twice, the last of them at the top
    places = np.zeros(6)
    for seed in range(300):
        ranked = search.rank_boxes([hierarchy, hierarchy[-1:]], np.random.default_rng(seed))
        assert len(ranked) == 5
        places[ranked[:, 2]] += np.arange(5)
    assert places[5] < places[4] < places[3] < places[1]


def test_a_resized_image_gives_boxes_of_the_image_as_it_is():
    image = np.repeat(np.repeat(draw_image(4), 2, 0), 2, 1)
    boxes = search.selective_search(image, width=53, max_boxes=10_000)
    np.testing.assert_array_equal(boxes[:, 2:].max(0), [106, 74])
    small = search.selective_search(np.ascontiguousarray(image[::2, ::2]), max_boxes=10_000)
    assert {*map(tuple, boxes / 2)} == {*map(tuple, small)}
    # The least side is one of the resized image.
    sides = boxes[:, 2:] - boxes[:, :2]
    large = search.selective_search(image, width=53, min_side=12, max_boxes=10_000)
    np.testing.assert_array_equal(large, boxes[(sides >= 24).all(1)])
    assert len(large) < (sides >= 12).all(1).sum()


@pytest.mark.parametrize('shape', [(1, 1, 3), (1, 9, 3), (9, 1, 1), (2, 2, 3), (5, 6)])
@pytest.mark.parametrize('strategy', ['fast', 'quality'])
def test_tiny_and_flat_images_have_themselves_as_a_box(shape, strategy):
    boxes = search.selective_search(np.full(shape, 7, np.uint8), strategy)
    np.testing.assert_array_equal(boxes, [[0, 0, shape[1], shape[0]]])


def test_digits_are_among_the_boxes():
    reached = objects = 0
    for scene in (digit_scenes('train', most=4, sizes=(20, 60))[i] for i in range(3)):
        boxes = search.selective_search(scene['image'], scales=(30, 100), min_size=20)
        low = np.maximum(boxes[:, None, :2], scene['boxes'][:, :2])
        sides = np.maximum(np.minimum(boxes[:, None, 2:], scene['boxes'][:, 2:]) - low, 0).prod(-1)
        areas = (np.prod(values[:, 2:] - values[:, :2], -1) for values in (boxes, scene['boxes']))
        union = np.add.outer(*areas) - sides
        reached += int(((sides / union).max(0) >= 0.5).sum())
        objects += len(scene['boxes'])
    assert reached >= 0.7 * objects > 3


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(strategy='fats'), "strategy='fats' is unknown; did you mean 'fast'"),
        (dict(colours=('hsw',)), "no colour space is called 'hsw'; did you mean 'hsv'"),
        (dict(colours=()), 'colours is empty'),
        (dict(similarities=('CTX',)), "similarities have 'CTX'; give letters of 'CTSF', each once"),
        (dict(similarities=('CC',)), "similarities have 'CC'"),
        (dict(image=np.zeros((4, 4, 3), np.float32)), r'uint8 \[H, W, 3\] or \[H, W, 1\], not float32 \[4, 4, 3\]'),
        (dict(image=np.zeros((4, 0, 3), np.uint8)), r'not uint8 \[4, 0, 3\]'),
        (dict(image=np.zeros((4, 4, 2), np.uint8)), r'not uint8 \[4, 4, 2\]'),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        search.selective_search(**{'image': np.zeros((4, 4, 3), np.uint8), **arguments})

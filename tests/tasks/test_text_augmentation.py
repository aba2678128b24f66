"""Learn to Augment: target rule and loss by hand, gradients of both players, what is drawn, and resumed runs."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import optim
from canon.data import Alphabet, Batches, load_source
from canon.errors import UsageError
from canon.metrics import Mean
from canon.models.augmentation_agent import augmentation_agent
from canon.models.crnn import crnn
from canon.named import call
from canon.tasks.text import augmentation, recognition
from canon.tasks.text.augmentation import MovingStates, TextAugmentation
from canon.train import At, Evaluator, State, Task, make_step

SETTINGS = TextAugmentation(patches=2, radius=6.0, agent=dict(features=(2, 2, 2, 2, 2, 2)))
SMALL = replace(SETTINGS, patches=1)  # compiles faster
GREY = recognition.make_grey_input()


def test_the_target_is_the_candidate_only_where_it_is_harder():
    state = np.ones((4, 6, 2), int)
    state[:, 0] = -1
    candidate = state.copy()
    candidate[:, 3] *= -1
    targets = augmentation.choose_targets(
        MovingStates(state, candidate), np.array([1, 2, 0, 3]), np.array([2, 2, 0, 1])
    )
    np.testing.assert_array_equal(targets, np.where(np.arange(4)[:, None, None] == 0, candidate, state))


def test_the_loss_is_the_sum_of_cross_entropies():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(3, 6, 2, 2)), rng.choice([-1, 1], (3, 6, 2))
    expected = np.zeros(3)
    for row, point, axis in np.ndindex(3, 6, 2):
        backwards, forwards = np.exp(logits[row, point, axis])
        chosen = forwards if targets[row, point, axis] == 1 else backwards
        expected[row] -= np.log(chosen / (backwards + forwards))
    np.testing.assert_allclose(augmentation.agent_loss(jnp.asarray(logits), jnp.asarray(targets)), expected, rtol=1e-5)


def test_states_follow_the_probabilities_and_candidates_switch_one_point():
    logits = np.zeros((4000, 6, 2, 2), np.float32)
    logits[:, 1, 0, 1] = np.log(3)  # forwards with probability 3/4
    logits[:, 4, :, 0] = 50  # always backwards
    state, candidate = map(np.asarray, augmentation.draw_states(jax.random.key(0), logits))
    assert set(np.unique(state)) == {-1, 1}
    mean = state.mean(0)
    expected = np.zeros((6, 2))
    expected[1, 0], expected[4] = 0.5, -1
    np.testing.assert_allclose(mean, expected, atol=0.06)
    switched = state != candidate
    assert (switched.all(-1).sum(1) == 1).all()  # one point, both axes
    assert (switched.sum((1, 2)) == 2).all()
    np.testing.assert_allclose(switched[..., 0].mean(0), 1 / 6, atol=0.03)


def test_points_lie_on_the_borders_and_move_by_signs_times_distances(monkeypatch):
    moves = []

    def warp_images(images, points, targets, *_, **__):
        moves.append(targets - points)
        return images

    monkeypatch.setattr(augmentation.warps, 'warp_images', warp_images)
    images, state = jnp.zeros((500, 32, 90, 1), jnp.uint8), jnp.tile(jnp.array([[-1, 1]]), (500, 6, 1))
    augmentation.warp_by_state(jax.random.key(0), images, state, SETTINGS)
    distances = moves[0] * np.array([-1, 1])
    assert 0 <= distances.min() < 0.1
    assert 5.9 < distances.max() < 6
    points = augmentation.fiducial_points((32, 90), 2)
    np.testing.assert_array_equal(points, [[0, 0], [45, 0], [90, 0], [0, 32], [45, 32], [90, 32]])


def test_the_agent_has_the_layers_of_the_paper():
    variables = jax.eval_shape(augmentation_agent().init, jax.random.key(0), jnp.zeros((1, 32, 100, 1)))
    sizes = {name: sum(x.size for x in jax.tree.leaves(leaves)) for name, leaves in variables['params'].items()}
    assert sizes == {
        'conv1': 9 * 16 + 16,
        'conv2': 9 * 16 * 64 + 64,
        'conv3': 9 * 64 * 128,
        'conv4': 9 * 128 * 128 + 128,
        'conv5': 9 * 128 * 64,
        'conv6': 9 * 64 * 16,
        'bn3': 256,
        'bn5': 128,
        'bn6': 32,
        'output': 16 * 2 * 6 * 32 + 32,
    }
    assert sum(sizes.values()) == 320_288
    with pytest.raises(UsageError, match=r'agent\.features=\(2, 2\) has 2 widths'):
        augmentation_agent(features=(2, 2))


class Reader:
    """A recogniser that reads the number of bright columns, and learns one weight: a task without a network."""

    @staticmethod
    def task():
        def init(key, batch):
            return {'params': {'scale': jnp.float32(2)}, 'batch_stats': {'seen': jnp.float32(0)}}

        def loss(params, mutable, batch, at):
            value = params['scale'] ** 2 * batch['image'].astype(jnp.float32).mean((1, 2, 3))
            mean = Mean.of(value, batch['mask'] & (batch['label'][:, 0] != 9))
            return mean, ({'batch_stats': {'seen': mutable['batch_stats']['seen'] + 1}}, {})

        def predict(params, mutable, batch):
            return batch['image'].astype(jnp.float32).mean((1, 2, 3))

        return Task(init, loss, predict)

    @staticmethod
    def decode(means):
        """One character: whether the image has stayed dark."""
        return (means > 40).astype(jnp.int32)[:, None] + 1, jnp.ones(len(means), jnp.int32)


def dark_and_bright():
    rng = np.random.default_rng(1)
    image = np.zeros((8, 32, 100, 1), np.uint8)
    image[:, 4:28, 20:80] = rng.integers(86, 93, (8, 1, 1, 1))  # near what the reader takes for dark
    label = np.ones((8, 1), np.int32)
    label[2] = 9  # a text that the recogniser cannot learn from
    return {'image': image, 'label': label, 'label_length': np.ones(8, np.int32), 'mask': np.arange(8) < 7}


def test_each_player_descends_its_own_loss():
    """The gradients of the joint step are those of both losses written out, each with its own weight."""
    batch = {name: jnp.asarray(x) for name, x in dark_and_bright().items()}
    reader, agent = Reader.task(), augmentation.make_agent(SMALL)
    task = augmentation.learn_to_augment(reader, agent, GREY, Reader.decode, SMALL)
    variables = dict(jax.jit(task.init)(jax.random.key(0), batch))
    params = variables.pop('params')
    # Logits that differ between points and rows.
    params['agent']['output']['bias'] = jax.random.normal(jax.random.key(1), (16,))
    at = At(jax.random.key(4), 0)
    grads, loss, new, values = jax.jit(task.gradient)(params, variables, batch, at)

    state_key, warp_key = jax.random.split(jax.random.fold_in(at.key, augmentation._STREAM))
    agent_mutable = {'batch_stats': variables['batch_stats']['agent']}

    @jax.jit
    def logits_of(p):
        return agent.apply({'params': p, **agent_mutable}, GREY(batch), train=True, mutable=['batch_stats'])[0]

    @jax.jit
    def warp(logits):
        states = augmentation.draw_states(state_key, logits)
        twice = jnp.concatenate([batch['image'], batch['image']])
        return states, augmentation.warp_by_state(warp_key, twice, jnp.concatenate(states), SMALL)

    states, images = warp(logits_of(params['agent']))
    images = jnp.split(images, 2)
    mine, theirs = (Reader.decode(np.asarray(i, np.float32).mean((1, 2, 3)))[0][:, 0] for i in images)
    edits, candidate_edits = mine != batch['label'][:, 0], theirs != batch['label'][:, 0]
    assert (candidate_edits & ~edits)[:7].any()
    learns = edits != candidate_edits  # the others teach nothing
    assert 0 < learns[:7].sum() < 7
    targets = np.where(np.asarray(candidate_edits & ~edits)[:, None, None], states.candidate, states.state)
    expected = jax.jit(jax.grad(lambda p: (augmentation.agent_loss(logits_of(p), targets) * learns)[:7].sum()))(
        params['agent']
    )
    for a, b in zip(
        jax.tree.leaves(expected), jax.tree.leaves(grads['agent'], is_leaf=lambda x: isinstance(x, Mean)), strict=True
    ):
        np.testing.assert_allclose(b.total, a, rtol=1e-3, atol=1e-4)
        assert b.weight == 7
    kept = np.array([0, 1, 3, 4, 5, 6])
    total = np.asarray(images[0], np.float32).mean((1, 2, 3))[kept].sum()
    np.testing.assert_allclose(grads['scale'], 4 * total, rtol=1e-4)
    assert float(loss.weight) == 6
    assert float(new['batch_stats']['seen']) == 1
    assert float(values['harder'].total) == float((candidate_edits & ~edits)[:7].sum())
    assert float(values['edits'].total) == float(edits[:7].sum())


@pytest.fixture(scope='module')
def joint():
    """(task, data, variables) of a narrow CRNN with its agent on lines of digits."""
    alphabet = Alphabet('0123456789')
    source = load_source('digit_lines', 'train', num_examples=16, most=2, alphabet=alphabet)
    recogniser = recognition.recognition_task(
        crnn(num_classes=10, features=(2, 2, 2, 2, 2, 2, 2), hidden=2, batch_norm=(3, 5, 7)), GREY
    )
    # An untrained recogniser reads all images alike, so that the agent would learn nothing.
    settings = replace(SMALL, ties='state')
    task = augmentation.augment_task(recogniser, settings, GREY, recognition.decode_labels)
    data = Batches(source, 4, seed=0)
    return task, data, jax.jit(task.init)(jax.random.key(0), data[0])


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_was_not_interrupted(joint):
    task, data, variables = joint
    mutable = dict(variables)
    first = mutable.pop('params')
    tx = optim.make_optimizer(dict(name='adadelta', learning_rate=1.0, decay=0.9, eps=1e-6, eps_in_sqrt=True))
    step = jax.jit(make_step(task, tx, seed=3))
    state, saved = State(jnp.zeros((), jnp.int32), first, mutable, tx.init(first)), None
    for i in range(4):
        state, values = step(state, data[i])
        if i == 1:
            saved = jax.tree.map(np.asarray, state)
    assert saved is not None
    resumed = State(*saved)
    for i in (2, 3):
        resumed, _ = step(resumed, data[i])
    jax.tree.map(np.testing.assert_array_equal, resumed, state)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), first, state.params)
    assert moved['agent']['output']['kernel']
    assert all(jax.tree.leaves(moved['lstm2']))
    assert set(values) >= {'loss', 'impossible', 'agent_loss', 'agent_entropy', 'edits', 'candidate_edits', 'harder'}
    assert 0 < float(values['agent_entropy'].value) <= np.log(2) + 1e-6


def test_the_evaluator_counts_edits_and_shows_the_moves(monkeypatch):
    """An agent whose corners all move outwards makes the rectangle larger: every image is read as bright."""
    batch, agent = dark_and_bright(), augmentation.make_agent(SMALL)
    task = augmentation.learn_to_augment(Reader.task(), agent, GREY, Reader.decode, SMALL)
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    params, mutable = variables['params'], {'batch_stats': variables['batch_stats']}
    outwards = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]])
    params['agent']['output']['bias'] = (20 * np.stack([-outwards, outwards], -1)).ravel().astype(np.float32)
    plain = Evaluator(
        [batch],
        lambda params, mutable, batch: {'rows': Mean.of(batch['mask'])},
        lambda sums: {name: mean.value for name, mean in sums.items()},
    )
    evaluator = augmentation.augmentation_evaluator(plain, task, Reader.decode, SMALL, agent, GREY)
    sums = jax.jit(evaluator.measure)(params, mutable, batch)
    metrics = {name: float(value) for name, value in evaluator.finish(sums).items()}
    assert set(metrics) == {'rows', 'edits', 'edits_random', 'edits_agent'}
    bright = Reader.decode(batch['image'].astype(np.float32).mean((1, 2, 3)))[0][:, 0]
    assert metrics['edits'] == pytest.approx(float((bright != batch['label'][:, 0])[:7].mean()))
    assert metrics['edits_random'] < metrics['edits_agent'] == 1
    drawn = {}
    monkeypatch.setattr(augmentation.plots, 'draw_moving_points', lambda *arrays: drawn.update(arrays=arrays))
    monkeypatch.setattr(augmentation.plots, 'draw_move_clouds', lambda *values: drawn.update(clouds=values))
    assert set(evaluator.draw(params, mutable, sums)) == {'augmentation', 'moves'}
    images, warped, points, moves = drawn['arrays']
    assert images.shape == warped.shape == (7, 32, 100, 1)  # without the row of padding
    assert (warped.mean((1, 2, 3)) > images.mean((1, 2, 3))).all()
    np.testing.assert_allclose(moves, np.broadcast_to(3 * outwards, (7, 4, 2)), atol=1e-4)
    assert points.shape == (4, 2)
    np.testing.assert_array_equal(drawn['clouds'][1], moves)
    assert drawn['clouds'][2:] == ((32, 100), 3)


def test_random_augmentation_warps_what_the_recogniser_learns_from():
    batch = {name: jnp.asarray(x) for name, x in dark_and_bright().items()}
    settings = TextAugmentation(mode='random', patches=1, radius=6.0, probability=0.5)
    inner = Task(lambda *_: {}, lambda params, mutable, batch, at: batch['image'], lambda *_: 'predicted')
    task = augmentation.augment_task(inner, settings, GREY, Reader.decode)
    learn_from = jax.jit(lambda key, step: task.loss({}, {}, batch, At(key, step)))
    images = np.asarray(learn_from(jax.random.key(2), 0))
    changed = (images != np.asarray(batch['image'])).any((1, 2, 3))
    assert 1 <= changed.sum() <= 7
    np.testing.assert_array_equal(images, learn_from(jax.random.key(2), 9))
    assert (images != np.asarray(learn_from(jax.random.key(3), 0))).any()
    assert task.predict({}, {}, batch) == 'predicted'
    assert augmentation.augment_task(inner, TextAugmentation(mode='none'), GREY, Reader.decode) is inner


def test_what_is_refused():
    with pytest.raises(UsageError, match=r"augment\.mode='learn'"):
        call(TextAugmentation, dict(mode='learn'), 'augment')
    with pytest.raises(UsageError, match=r'augment\.agent'):
        augmentation.make_agent(TextAugmentation(agent=dict(feature=(1,))))
    narrow = augmentation_agent(patches=3, features=(2, 2, 2, 2, 2, 2))
    wrong = augmentation.learn_to_augment(Reader.task(), narrow, GREY, Reader.decode, SETTINGS)
    with pytest.raises(UsageError, match=r'augment\.patches=2 has 6 points, not 8'):
        jax.eval_shape(wrong.init, jax.random.key(0), dark_and_bright())

"""Augmentation of text images while a recogniser learns: random, or by an agent that learns what is hard to read.

Luo, Zhu, Jin, Wang, "Learn to augment: joint data augmentation and network optimization for text recognition", 2020.
2 (N + 1) fiducial points lie evenly on the upper and the lower border of an image, and each moves by up to R pixels
along both axes; the image follows by moving least squares (`canon.ops.warps`). A *moving state* holds the signs of all
moves, [B, 2 (N + 1), 2] of -1 and 1. Distances are always random.

`augment_task` wraps the task of any recogniser, and the wrapped task predicts as the recogniser does:

    augmentation = TextAugmentation(mode='learnt')
    task = augment_task(recognition_task(...), augmentation, make_grey_input(), decode_labels)

While an agent learns, the images of a step are warped by a state S that is drawn from the agent's probabilities and, to
compare, by S', which is S with one point moving the other way. The recogniser reads both; S' is the agent's target for
the rows where it led to more edits, and S where it led to fewer. The recogniser trains on the images warped by S.
Nothing leaves the device, and no gradient passes through a warp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon import backend, metrics, models, plots
from canon.data.images.deformation import list_border_points
from canon.errors import UsageError
from canon.metrics import Mean
from canon.named import Count, Positive, Probability
from canon.ops import warps
from canon.train import Evaluator, Task
from canon.train.step import sum_gradient

AGENT = 'agent'  # its part of the parameters, next to the recogniser's layers
_SHOWN = 12  # images of a figure
_STREAM = 0x617567  # folded into the key of a step: the recogniser's own noise is drawn from the key itself

Decode = Callable[[Any], Any]  # predictions -> (labels [B, N], lengths [B], ...)


@dataclass(frozen=True)
class TextAugmentation:
    """config.augment.

    Attributes:
      mode: 'none', 'random' (every sign is a fair coin) or 'learnt' (by an agent that trains along).
      patches: N, patches between the fiducial points.
      radius: R, pixels that a point moves at most along each axis; 10 is best for images of 32x100 in the paper.
      method: of the warp (`canon.ops.warps.warp_images`).
      spacing: pixels between places at which the warp is evaluated.
      probability: of warping an image; the others stay as they are.
      ties: what the agent learns from texts with equally many edits under S and S': nothing ('ignore'), or S ('state').
      agent: arguments of `canon.models.augmentation_agent`, without `patches`.
    """

    mode: Literal['none', 'random', 'learnt'] = 'learnt'
    patches: Count = 3
    radius: Positive = 10.0
    method: Literal['similarity', 'rigid', 'thin_plate'] = 'similarity'
    spacing: Count = 1
    probability: Probability = 1.0
    ties: Literal['ignore', 'state'] = 'ignore'
    agent: Mapping[str, Any] | None = None


class MovingStates(NamedTuple):
    """The two states that are compared for each row of a batch."""

    state: jax.Array  # S, drawn from the agent's probabilities, [B, P, 2]
    candidate: jax.Array  # S', [B, P, 2]


def fiducial_points(size: Sequence[int], patches: int) -> np.ndarray:
    """Returns the points (x, y) of an image of (height, width): patches + 1 on its upper border, then on the lower one.

    >>> fiducial_points((32, 90), 3).tolist()[:4]
    [[0.0, 0.0], [30.0, 0.0], [60.0, 0.0], [90.0, 0.0]]
    """
    return list_border_points((size[0], size[1]), patches).astype(np.float32)


def draw_states(key: jax.Array, logits: jax.Array) -> MovingStates:
    """Draws a moving state S of each row by its logits [B, P, 2, 2], and S', in which one point moves the other way.

    The point is drawn uniformly, and both of its signs change.
    """
    state_key, point_key = jax.random.split(key)
    state = 2 * jax.random.categorical(state_key, logits) - 1
    rows, points = logits.shape[:2]
    switched = jnp.arange(points) == jax.random.randint(point_key, (rows, 1), 0, points)
    return MovingStates(state, jnp.where(switched[..., None], -state, state))


def warp_by_state(key: jax.Array, images: jax.Array, state: jax.Array, settings: TextAugmentation) -> jax.Array:
    """Warps images [B, H, W, C]: each fiducial point moves by its signs [B, P, 2] times distances uniform in [0, R]."""
    distance_key, chosen_key = jax.random.split(key)
    moves = state * jax.random.uniform(distance_key, state.shape, maxval=settings.radius)
    points = jnp.asarray(fiducial_points(images.shape[1:3], settings.patches))
    warped = warps.warp_images(images, points, points + moves, settings.method, spacing=settings.spacing)
    if settings.probability == 1:
        return warped
    chosen = jax.random.bernoulli(chosen_key, settings.probability, (len(images), 1, 1, 1))
    return jnp.where(chosen, warped, images)


def choose_targets(states: MovingStates, edits: jax.Array, candidate_edits: jax.Array) -> jax.Array:
    """Returns the moving state that the agent learns, [B, P, 2]: S' for the rows where it is harder to read, else S.

    S' is harder if the recogniser makes more edits. If it makes fewer, the move that was switched is switched back,
    which is S, as it is with equal edits.

    Args:
      states: S and S'.
      edits: distance of what is read under S from the text, [B].
      candidate_edits: the same under S', [B].
    """
    harder = (candidate_edits > edits)[:, None, None]
    return jnp.where(harder, states.candidate, states.state)


def agent_loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Computes -sum log P(S*) over the points and axes of each row, [B]; logits [B, P, 2, 2], targets [B, P, 2]."""
    log_probs = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_probs, (targets[..., None] + 1) // 2, -1)
    return -chosen.sum((1, 2, 3))


def augment_task(
    task: Task, settings: TextAugmentation, make_input: Callable[[Any], jax.Array], decode: Decode
) -> Task:
    """Wraps a recognition task as `settings.mode` says: not at all, by `augment_randomly` or by `learn_to_augment`.

    Args:
      task: of the recogniser.
      settings: of the augmentation.
      make_input: the agent's input from a batch, such as `make_grey_input()`.
      decode: the recogniser's predictions to labels [B, N] and their lengths [B], such as `decode_labels`.
    """
    if settings.mode == 'none':
        return task
    if settings.mode == 'random':
        return augment_randomly(task, settings)
    return learn_to_augment(task, make_agent(settings), make_input, decode, settings)


def make_agent(settings: TextAugmentation) -> Any:
    """Builds the agent of `settings`, a linen module; None if nothing is learnt."""
    if settings.mode != 'learnt':
        return None
    arguments = dict(settings.agent or {})
    return models.make_model(
        'augmentation_agent.augmentation_agent', 'augment.agent', patches=settings.patches, **arguments
    )


def augment_randomly(task: Task, settings: TextAugmentation) -> Task:
    """Wraps a recognition task so that it learns from images whose fiducial points move at random.

    Args:
      task: learns from batches with 'image' [B, H, W, C].
      settings: of the augmentation.
    """

    def augment(batch, at):
        key, warp_key = jax.random.split(jax.random.fold_in(at.key, _STREAM))
        logits = jnp.zeros((len(batch['image']), 2 * (settings.patches + 1), 2, 2))
        state = draw_states(key, logits).state
        return {**batch, 'image': warp_by_state(warp_key, batch['image'], state, settings)}

    def loss(params, mutable, batch, at):
        return task.loss(params, mutable, augment(batch, at), at)

    def gradient(params, mutable, batch, at):
        assert task.gradient is not None
        return task.gradient(params, mutable, augment(batch, at), at)

    return Task(task.init, loss, task.predict, None if task.gradient is None else gradient)


def learn_to_augment(
    task: Task,
    agent: Any,
    make_input: Callable[[Any], jax.Array],
    decode: Decode,
    settings: TextAugmentation = TextAugmentation(),
) -> Task:
    """Makes the task of training a recogniser and the agent that makes its images harder, in one step.

    The agent's variables are under 'agent', next to the recogniser's layers, whose names stay: `run.init_from` takes a
    recogniser that was trained without an agent, with `new='(^|/)agent/'`. The loss and its metrics are the
    recogniser's; more metrics are `agent_loss`, `agent_entropy` (of a decision, in nats: log 2 before anything is
    learnt), `edits` and `candidate_edits` under S and S', and `harder`, the share of rows where S' is.

    Args:
      task: of the recogniser; its batches hold 'image', 'label', 'label_length' and 'mask'.
      agent: a linen module from the network's input to logits [B, 2 (N + 1), 2, 2] (`models.augmentation_agent`).
      make_input: the agent's input from a batch.
      decode: the recogniser's predictions to labels [B, N] and their lengths [B].
      settings: of the augmentation.

    Raises:
      UsageError: the agent has another number of points than the settings, when the task is initialised.
    """

    def init(key, batch):
        recogniser_key, agent_key = jax.random.split(key)
        seen = make_input({'image': batch['image'][:1]})
        variables = agent.init(agent_key, seen, train=False)
        points = variables['params']['output']['bias'].size // 4
        if points != 2 * (settings.patches + 1):
            raise UsageError(f'augment.patches={settings.patches} has {2 * settings.patches + 2} points, not {points}')
        return _join(task.init(recogniser_key, batch), variables)

    def gradient(params, mutable, batch, at):
        state_key, warp_key = jax.random.split(jax.random.fold_in(at.key, _STREAM))
        (own_params, agent_params), (own_mutable, agent_mutable) = _split_params(params), _split(mutable)
        mask = batch['mask']

        def predict_logits(agent_params):
            variables = {'params': agent_params, **agent_mutable}
            return agent.apply(variables, make_input(batch), train=True, mutable=[*agent_mutable])

        logits, pull_back, new_agent_mutable = jax.vjp(predict_logits, agent_params, has_aux=True)
        states = draw_states(state_key, logits)
        # Both halves in one pass, each row with distances of its own: what is compared are directions.
        both = jax.tree.map(lambda x: jnp.concatenate([x, x]), batch)
        both['image'] = warp_by_state(warp_key, both['image'], jnp.concatenate(states), settings)
        warped = {**batch, 'image': both['image'][: len(mask)]}
        grads, loss, new_mutable, values = sum_gradient(task, own_params, own_mutable, warped, at)
        edits, candidate_edits = jnp.split(_count_edits(task, own_params, own_mutable, both, decode), 2)
        targets = choose_targets(states, edits, candidate_edits)

        # Most texts are read alike under both states. Learning S from them has no gradient in expectation, since S is
        # drawn from the agent's own probabilities, but its noise alone drives these to 0 and 1 within 100 steps.
        learns = (edits != candidate_edits) | (settings.ties == 'state')

        def total(logits):
            mean = Mean.of(jnp.where(learns, agent_loss(logits, targets), 0), mask)
            return mean.total, mean

        logit_grads, mean = jax.grad(total, has_aux=True)(logits)
        (agent_grads,) = pull_back(logit_grads)
        # The recogniser gives no weight to texts that it cannot score; the agent learns from those, too.
        all_grads = {**grads, AGENT: jax.tree.map(lambda g: Mean(g, mean.weight), agent_grads)}
        more = {
            'agent_loss': mean,
            'agent_entropy': Mean.of(_entropy(logits), mask),
            'edits': Mean.of(edits, mask),
            'candidate_edits': Mean.of(candidate_edits, mask),
            'harder': Mean.of(candidate_edits > edits, mask),
        }
        return all_grads, loss, _join(new_mutable, new_agent_mutable), {**values, **more}

    def predict(params, mutable, batch):
        return task.predict(_split_params(params)[0], _split(mutable)[0], batch)

    return Task(init, None, predict, gradient)


class SampledWarps(NamedTuple):
    """Moves of the points of a batch of images, and the images that they warp.

    Attributes:
      moves: expected move of each fiducial point in pixels, half of the radius times P(forwards) - P(backwards),
        [B, P, 2].
      images: warped by one state that is drawn from the probabilities, [B, H, W, C].
    """

    moves: jax.Array
    images: jax.Array


def sample_warps(
    params: Any,
    mutable: Any,
    batch: Mapping[str, Any],
    settings: TextAugmentation,
    agent: Any = None,
    make_input: Callable[[Any], jax.Array] | None = None,
) -> SampledWarps:
    """Warps the images of a batch as the agent would, and as chance would without one.

    The draws are those of one fixed key, so that warps of several steps differ by what the agent has learnt alone.

    Args:
      params: of the task of `learn_to_augment`.
      mutable: its other variables.
      batch: has 'image'.
      settings: of the augmentation.
      agent: its module; None for random warps.
      make_input: the agent's input from a batch.
    """
    logits = _predict_logits(params, mutable, batch, settings, agent, make_input)
    probabilities = jax.nn.softmax(logits)
    moves = (probabilities[..., 1] - probabilities[..., 0]) * settings.radius / 2
    return SampledWarps(moves, _warp_again(logits, batch, settings)['image'])


def _predict_logits(params, mutable, batch, settings: TextAugmentation, agent, make_input) -> jax.Array:
    if agent is None:
        return jnp.zeros((len(batch['image']), 2 * (settings.patches + 1), 2, 2))
    variables = {'params': params[AGENT], **_split(mutable)[1]}
    return agent.apply(variables, make_input(batch), train=False)


def _warp_again(logits: jax.Array, batch: Mapping[str, Any], settings: TextAugmentation) -> dict[str, Any]:
    # The same draws at every evaluation, so that curves over the steps show the networks' change alone.
    key, warp_key = jax.random.split(jax.random.key(0))
    return {**batch, 'image': warp_by_state(warp_key, batch['image'], draw_states(key, logits).state, settings)}


def augmentation_evaluator(
    evaluator: Evaluator,
    task: Task,
    decode: Decode,
    settings: TextAugmentation,
    agent: Any = None,
    make_input: Callable[[Any], jax.Array] | None = None,
) -> Evaluator:
    """Adds to an evaluator of texts what augmentation does to them.

    The metrics are those of the evaluator, and the mean number of edits per text: `edits` of the images as they are,
    `edits_random` warped at random and, with an agent, `edits_agent` warped by its states. An agent that has learnt
    makes more edits than chance. The figure 'augmentation' shows images with the moves of their fiducial points, and
    'moves' how the moves of the agent are distributed over the first batch.

    Args:
      evaluator: of the recogniser.
      task: the wrapped task.
      decode: its predictions to labels and their lengths.
      settings: of the augmentation.
      agent: its module, if the task is of `learn_to_augment`.
      make_input: the agent's input from a batch.
    """

    def count_edits(params, mutable, batch):
        logits = _predict_logits(params, mutable, batch, settings, agent, make_input)
        batches = {'edits': batch, 'edits_random': _warp_again(jnp.zeros_like(logits), batch, settings)}
        if agent is not None:
            batches['edits_agent'] = _warp_again(logits, batch, settings)
        return {
            name: Mean.of(_count_edits(task, params, mutable, images, decode), batch['mask'])
            for name, images in batches.items()
        }

    # An evaluator that reads with a lexicon measures on the host; of others the whole measurement is compiled.
    count = backend.jit(count_edits) if evaluator.on_host else count_edits

    def measure(params, mutable, batch):
        return evaluator.measure(params, mutable, batch), count(params, mutable, batch)

    def finish(sums):
        return {**evaluator.finish(sums[0]), **{name: mean.value for name, mean in sums[1].items()}}

    def draw(params, mutable, sums):
        figures = dict(evaluator.draw(params, mutable, sums[0])) if evaluator.draw else {}
        batch = evaluator.data[0]
        sample = backend.jit(partial(sample_warps, settings=settings, agent=agent, make_input=make_input))
        moves, warped = map(np.asarray, sample(params, mutable, batch))
        points = fiducial_points(batch['image'].shape[1:3], settings.patches)
        rows = np.flatnonzero(batch['mask'])
        shown = rows[:_SHOWN]
        figures['augmentation'] = plots.draw_moving_points(
            np.asarray(batch['image'])[shown], warped[shown], points, moves[shown]
        )
        if agent is not None:
            size = batch['image'].shape[1], batch['image'].shape[2]
            figures['moves'] = plots.draw_move_clouds(points, moves[rows], size, settings.radius / 2)
        return figures

    return evaluator._replace(measure=measure, finish=finish, draw=draw)


def _count_edits(task: Task, params, mutable, batch, decode: Decode) -> jax.Array:
    labels, lengths, *_ = decode(task.predict(params, mutable, batch))
    return metrics.edit_distance(labels, lengths, batch['label'], batch['label_length'])


def _entropy(logits: jax.Array) -> jax.Array:
    """Returns the mean entropy of the decisions of each row in nats, [B]."""
    log_probs = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_probs) * log_probs).sum(-1).mean((1, 2))


def _join(own: Mapping[str, Any], agent: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Puts the agent's collections of variables into the recogniser's, {collection: {layer or 'agent': ...}}."""
    joined = {name: dict(own.get(name, {})) for name in dict.fromkeys((*own, *agent))}
    for name, tree in agent.items():
        joined[name][AGENT] = tree
    return joined


def _split(variables: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inverse of `_join`: (the recogniser's variables, the agent's)."""
    own = {name: {key: x for key, x in tree.items() if key != AGENT} for name, tree in variables.items()}
    agent = {name: tree[AGENT] for name, tree in variables.items() if AGENT in tree}
    # A collection that only the agent has is not one of the recogniser.
    return {name: tree for name, tree in own.items() if tree}, agent


def _split_params(params: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    own, agent = _split({'params': params})
    return own['params'], agent['params']

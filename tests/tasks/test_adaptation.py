"""Tasks of adaptation: bitwise identities, gradients of games, and every method on a batch without target labels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from canon import losses, models, optim, transfer
from canon.data import Arrays, domains
from canon.errors import UsageError
from canon.tasks import adaptation
from canon.tasks.adaptation import methods
from canon.tasks.classification import make_image_input
from canon.train import At, init_state, make_step
from tests.quick import quick_jit

NETWORK = models.make_model('domain_adversarial.digit_network', num_classes=3, channels=(4, 4), units=6)


def make_source(seed, count=24):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return Arrays({'image': rng.integers(0, 255, (count, 8, 8, 1)).astype(np.uint8), 'label': labels})


@pytest.fixture(scope='module')
def batches():
    return domains.make_domain_batches({'source': make_source(0)}, {'target': make_source(1)}, batch_size=8, threads=0)


@pytest.fixture(scope='module')
def several():
    return domains.make_domain_batches({'a': make_source(0), 'b': make_source(1)}, batch_size=8, threads=0)


def make_task(name, **arguments):
    return adaptation.adaptation_task(NETWORK, make_image_input(), adaptation.make_method(name, **arguments))


def train(task, batches, steps=3):
    tx = optax.sgd(0.1)
    step = quick_jit(make_step(task, tx, seed=0))
    state = init_state(task, tx, 0, batches[0])
    for i in range(steps):
        state, measured = step(state, batches[i])
    return state, {name: float(value.value) for name, value in measured.items()}


def test_dann_of_weight_zero_is_source_only_bitwise(batches):
    plain, _ = train(make_task('source_only'), batches)
    adversarial, measured = train(make_task('dann', weight=0.0), batches)
    for part in ('extractor', 'classifier'):
        jax.tree.map(np.testing.assert_array_equal, plain.params[part], adversarial.params[part])
    assert 0 <= measured['domain_accuracy'] <= 1
    # The discriminator learns all the same.
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), plain.params, adversarial.params)
    assert max(jax.tree.leaves(moved['discriminator'])) > 0


def test_dann_is_a_game_of_two_gradients(batches):
    """The gradient of the task: the discriminator descends its risk, the features ascend it with the weight."""
    batch, weight = batches[0], 0.7
    task = make_task('dann', weight=weight, alpha=1e3, ramp_steps=1)
    params = init_state(task, optax.sgd(0.1), 0, batch).params
    at = At(jax.random.key(0), jnp.int32(5))

    def domain_risk(params):
        risks = []
        for number, name in enumerate(sorted(batch)):
            features = NETWORK.apply({'params': params}, batch[name]['image'] / 255, method='encode')
            logits = NETWORK.apply({'params': params}, features, method='discriminate')
            risks.append(losses.softmax_cross_entropy(logits, jnp.full(8, number)).mean())
        return sum(risks) / 2

    def source_risk(params):
        logits = NETWORK.apply({'params': params}, batch['source']['image'] / 255)
        return losses.softmax_cross_entropy(logits, batch['source']['label']).mean()

    @quick_jit
    def gradients(params):
        total, count = jax.grad(lambda p: task.loss(p, {}, batch, at)[0].total)(params), 8
        return jax.tree.map(lambda g: g / count, total), jax.grad(domain_risk)(params), jax.grad(source_risk)(params)

    ours, of_domains, of_source = gradients(params)
    for part, sign in (('extractor', -weight), ('discriminator', 1.0), ('classifier', 0.0)):
        expected = jax.tree.map(lambda d, s, sign=sign: sign * d + s, of_domains[part], of_source[part])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours[part], expected)


@pytest.mark.parametrize('name', ['cdan'])
def test_methods_learn_from_a_batch_without_target_labels(name, batches):
    assert 'label' not in batches[0]['target']
    # MCD in its three steps is tested with its own step, in test_adaptation_games.
    arguments = {'steps': 0} if name == 'mcd' else {}
    state, measured = train(make_task(name, **arguments), batches, 2)
    plain, _ = train(make_task('source_only'), batches, 2)
    assert all(np.isfinite(value) for value in measured.values())
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params['extractor'], plain.params['extractor'])
    assert max(jax.tree.leaves(moved)) > 0


@pytest.mark.slow
@pytest.mark.parametrize('name', ['mcd', 'mmd', 'jan', 'coral', 'mean_cov', 'mcc'])
def test_further_methods(name, batches):
    test_methods_learn_from_a_batch_without_target_labels(name, batches)


def test_cdan_with_a_random_map_has_a_discriminator_of_its_width(batches):
    state, measured = train(make_task('cdan', random_dimensions=7), batches, 2)
    assert state.params['discriminator']['dense1']['kernel'].shape[0] == 7
    assert all(np.isfinite(value) for value in measured.values())
    again, _ = train(make_task('cdan', random_dimensions=7), batches, 2)
    jax.tree.map(np.testing.assert_array_equal, state.params, again.params)


def test_shown_examples_are_of_the_domain_of_the_target(batches):
    """A discriminator tells two domains apart in the semi-supervised setting, too; three need three logits."""
    batch = {**batches[0], 'shown': batches[1]['source']}
    task, key = make_task('dann'), jax.random.key(0)
    params = task.init(key, batch)['params']
    run = quick_jit(lambda batch: task.loss(params, {}, batch, At(key, jnp.int32(9)))[0].value)
    assert np.isfinite(run(batch))
    numbers = methods.number_domains(sorted(batch))
    assert numbers == {'shown': 1, 'source': 0, 'target': 1}
    three = {'source': batch['source'], 'source_b': batch['source'], 'target': batch['target']}
    with pytest.raises(UsageError, match=r'model.domains=2, but batches have 3 domains; set model.domains=3'):
        run(three)


def test_group_dro_of_step_zero_is_the_mean_of_erm(several):
    plain, _ = train(make_task('source_only'), several)
    weighted, _ = train(make_task('group_dro', step_size=0.0), several)
    jax.tree.map(np.testing.assert_array_equal, plain.params, weighted.params)
    np.testing.assert_array_equal(weighted.mutable['groups']['weights'], [0.5, 0.5])
    moved, _ = train(make_task('group_dro', step_size=1.0), several)
    assert abs(float(moved.mutable['groups']['weights'][0]) - 0.5) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('name', ['irm', 'v_rex', 'mmd', 'dann'])
def test_methods_of_generalisation(name, several):
    _, measured = train(make_task(name), several, 2)
    assert all(np.isfinite(value) for value in measured.values())


def test_the_penalty_of_irm_is_annealed(several):
    task = make_task('irm', weight=50.0, anneal_steps=10)
    params = init_state(task, optax.sgd(0.1), 0, several[0]).params
    run = quick_jit(lambda step: task.loss(params, {}, several[0], At(jax.random.key(0), step)))
    parts = [run(jnp.int32(step)) for step in (9, 10)]
    totals, penalties = (
        [float(x.value) for x in xs] for xs in ([p[0] for p in parts], [p[1][1]['penalty'] for p in parts])
    )
    assert penalties[0] == penalties[1]
    np.testing.assert_allclose(totals[1] - totals[0], 49 * penalties[0], rtol=1e-3)


def test_a_model_is_scored_without_target_labels(batches):
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    logits = 5 * np.eye(3)[labels] + rng.normal(size=(30, 3))
    outputs = adaptation.ModelOutputs(rng.normal(size=(30, 4)), logits)
    scores = adaptation.score_model(outputs, labels, adaptation.ModelOutputs(rng.normal(size=(30, 4)), logits))
    assert set(scores) == set(transfer.RULES)
    worse = adaptation.score_model(outputs, (labels + 1) % 3, outputs)
    assert worse['source_risk'] > scores['source_risk']
    assert worse['dev'] > scores['dev']
    masked = {'mask': np.array([True, False]), 'x': np.arange(4.0).reshape(2, 2)}
    collected = adaptation.collect_outputs(lambda batch: (batch['x'], 2 * batch['x']), [masked, masked])
    assert collected.logits.tolist() == [[0, 2], [0, 2]]


def test_errors_of_adaptation(batches, several):
    key = jax.random.key(0)
    with pytest.raises(UsageError, match=r"method.name='dan' is unknown.*dann"):
        make_task('dan')
    with pytest.raises(UsageError, match='weight'):
        make_task('dann', weight=-1.0)
    alone = {'source': batches[0]['source']}
    with pytest.raises(UsageError, match='at least two domains, and the batch has one: source'):
        make_task('coral').init(key, alone)
    with pytest.raises(UsageError, match='no domain of the batch is labelled'):
        make_task('source_only').init(key, {'target': batches[0]['target']})
    task = make_task('mcc')
    variables = task.init(key, several[0])
    with pytest.raises(UsageError, match='needs an unlabelled domain'):
        task.loss(variables['params'], {}, several[0], At(key, 0))


def test_parts_have_optimizers_of_their_own(batches):
    """Backbone at a tenth of the rate, as tllib does: by the paths of the parameters."""
    task = make_task('dann')
    tx = optim.partition({'^extractor/': optim.sgd(0.01), '.*': optim.sgd(0.1)})
    params = init_state(task, tx, 0, batches[0]).params
    assert set(params) == {'extractor', 'classifier', 'second_classifier', 'discriminator'}

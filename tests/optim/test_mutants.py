"""Planted bugs, each a patch of the sources, each with the test that must see it: a suite is as good as what it kills.

The patched package is imported under another name; the library itself is never touched. `KILLS` is the kill table.
"""

# ruff: noqa: E501

import functools
import importlib
import shutil
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

import canon.optim as library
from canon.errors import UsageError
from tests.optim import (
    test_closed_forms,
    test_compiled,
    test_compose,
    test_contract,
    test_metamorphic,
    test_plateau,
    test_state,
    test_wrappers,
)
from tests.optim.oracles import CASES, worst_error


def oracle(case):
    def check(optim):
        make, exact = CASES[case]
        assert worst_error(make(optim), exact, [(7,), (3, 5)], 0, 8, jnp.float32) <= 2e-6

    return check


closed, meta, wrap = test_closed_forms, test_metamorphic, test_wrappers
drops = functools.partial(test_plateau.test_the_evaluation_of_the_drop, metrics=[5, 4, 4, 4, 4], expected=[1, 1, 1, 10, 10], settings={'patience': 2})  # fmt: skip
worse = functools.partial(test_plateau.test_the_evaluation_of_the_drop, metrics=[-3, -2.9999], expected=[1, 10], settings={'patience': 1})  # fmt: skip
upward = functools.partial(test_plateau.test_the_evaluation_of_the_drop, metrics=[1, 2, 3], expected=[1, 1, 1], settings={'patience': 1, 'mode': 'max'})  # fmt: skip
begun = functools.partial(test_plateau.test_the_average_begins_when_the_algorithm_does, patience=2, mode='min')
margin = functools.partial(test_plateau.test_the_evaluation_of_the_drop, metrics=[1, 0.95, 0.91], expected=[1, 1, 10], settings={'patience': 2, 'min_delta': 0.1})  # fmt: skip

# (the bug, file, what is there, what is put there, the test that must fail)
KILLS = [
    ('ascent', 'learning_rate.py', 'times(-rate, wide(u))', 'times(rate, wide(u))', oracle('sgd')),
    ('schedule one late', 'learning_rate.py', 'rate_at(state.count))', 'rate_at(state.count - 1))', oracle('sgd')),
    ('schedule one early', 'learning_rate.py', 'rate_at(state.count))', 'rate_at(state.count + 1))', oracle('sgd')),
    ('count stands still', 'learning_rate.py', 'next_count(state.count), rate', 'state.count, rate', oracle('sgd')),
    ('logged rate is the first', 'learning_rate.py', 'LearningRateState(next_count(state.count), rate,', 'LearningRateState(next_count(state.count), state.learning_rate,', test_state.test_the_rate_used_is_a_leaf_of_the_state),
    ('schedule ignores the pin', 'learning_rate.py', 'jnp.where(state.pinned, state.learning_rate, rate_at(state.count))', 'rate_at(state.count)', test_state.test_a_rate_that_is_set_overrides_the_schedule_until_it_is_restored),
    ('rate a constant of the program', 'learning_rate.py', 'else constant_scalar(argument)', 'else scalar(argument)', test_state.test_lifted_constants_are_arguments_of_one_program),
    ('lifted constants mixed up', 'constants.py', 'values[places[value]]', 'values[0]', test_state.test_lifted_constants_are_arguments_of_one_program),
    ('the state wins over the argument', 'learning_rate.py', 'jnp.where(state.pinned, state.learning_rate, rate_at(state.count))', 'state.learning_rate', test_compose.test_a_schedule_injected_by_optax_decides),
    ('linear decay not clamped', 'schedules.py', 'k = jnp.clip(count, 0, steps)', 'k = jnp.asarray(count)', oracle('sgd, linear decay')),
    ('linear decay ends one late', 'schedules.py', 'k = jnp.clip(count, 0, steps)', 'steps = steps + 1\n    k = jnp.clip(count, 0, steps)', oracle('sgd, linear decay')),
    ('count made float early', 'schedules.py', 'scalar(steps - k) / steps', '1 - scalar(k) / steps', meta.test_schedules_end_exactly_and_are_exact_for_large_counts),
    ('step decay one late', 'schedules.py', 'jnp.asarray(count) >= length', 'jnp.asarray(count) > length', meta.test_step_decay_divides_at_the_given_counts),
    ('step decay compares floats', 'schedules.py', 'jnp.asarray(count) >= length', 'scalar(count) >= length', meta.test_step_decay_divides_at_the_given_counts),
    ('warm-up does not shift what follows', 'schedules.py', 'then(jnp.maximum(count - steps, 0))', 'then(jnp.maximum(count, 0))', meta.test_other_schedules),
    ('cosine of the whole circle', 'schedules.py', 'remaining * (np.pi / 2)', 'remaining * np.pi', meta.test_schedules_end_exactly_and_are_exact_for_large_counts),
    ('rate outside by default', 'descent.py', 'chain(rate, velocity) if rate_inside else', 'chain(rate, velocity) if not rate_inside else', oracle('momentum')),
    ('velocity dampened', 'descent.py', 'wide(v)) + u).astype', 'wide(v)) + (1 - decay) * u).astype', oracle('momentum')),
    ('Nesterov with the old velocity', 'descent.py', '''            v = (times(decay, wide(v)) + u).astype(v.dtype)
            return (u + times(ahead, wide(v)) if nesterov else wide(v)), v''', '''            new = (times(decay, wide(v)) + u).astype(v.dtype)
            return (u + times(ahead, wide(v)) if nesterov else wide(new)), new''', oracle('nesterov')),
    ('Nesterov forgotten', 'descent.py', "momentum, stored == 'lookahead', state_dtype", 'momentum, False, state_dtype', oracle('nesterov')),
    ('theta on the wrong side', 'points.py', 'wide(p) - times(s.momentum', 'wide(p) + times(s.momentum', functools.partial(test_state.test_nesterov_is_exact_through_a_drop_of_the_rate, stored='lookahead')),
    ('no look-ahead', 'points.py', 'wide(p) + times(s.momentum, wide(v))', 'wide(p)', functools.partial(test_state.test_nesterov_is_exact_through_a_drop_of_the_rate, stored='theta')),
    ('an average hides a look-ahead', 'points.py', 'in find_states(opt_state, NesterovState)', 'in () if find_states(opt_state, EmaState) else find_states(opt_state, NesterovState)', test_state.test_evaluated_parameters_are_chosen_leaf_by_leaf),
    ('AdaGrad starts at 0.1', 'adaptive.py', "eps: float = 1e-7, initial_accumulator: float = 0.0\n) -> GradientTransformation:\n    \"\"\"r <- r + g^2", "eps: float = 1e-7, initial_accumulator: float = 0.1\n) -> GradientTransformation:\n    \"\"\"r <- r + g^2", oracle('adagrad')),
    ('AdaGrad forgets', 'adaptive.py', 'r = r + u * u', 'r = 0.999 * r + u * u', oracle('adagrad')),
    ('AdaGrad eps in the root', 'adaptive.py', 'jnp.sqrt(r) + cast(eps, u)), r', 'jnp.sqrt(r + eps)), r', oracle('adagrad')),
    ('a NaN is hidden', 'core.py', 'jnp.where(divisor == 0, 0, numerator / divisor)', 'jnp.where(divisor > 0, numerator / divisor, 0)', functools.partial(test_contract.test_a_nan_is_not_hidden, name='rmsprop')),
    ('RMSProp eps inside', 'adaptive.py', 'if eps_in_sqrt else jnp.sqrt(wide(r)) + delta', 'if True else 0', oracle('rmsprop')),
    ('RMSProp eps outside', 'adaptive.py', 'if eps_in_sqrt else jnp.sqrt(wide(r)) + delta', 'if False else jnp.sqrt(wide(r)) + delta', oracle('rmsprop, eps in sqrt')),
    ('RMSProp uses the old mean', 'adaptive.py', '''            r = lerp(wide(r), u * u, decay).astype(r.dtype)
            return ratio(u, jnp.sqrt(wide(r) + delta) if eps_in_sqrt else jnp.sqrt(wide(r)) + delta), r''', '''            new = lerp(wide(r), u * u, decay).astype(r.dtype)
            return ratio(u, jnp.sqrt(wide(r) + delta) if eps_in_sqrt else jnp.sqrt(wide(r)) + delta), new''', oracle('rmsprop')),
    ('RMSProp of |g|', 'adaptive.py', 'lerp(wide(r), u * u, decay)', 'lerp(wide(r), abs(u), decay)', oracle('rmsprop')),
    ('decay and its complement swapped', 'core.py', '        stepped = average + (1.0 - decay) * difference', '        stepped = average + decay * difference', oracle('rmsprop')),
    ('average of float32(decay)', 'core.py', '        stepped = average + (1.0 - decay) * difference', '        stepped = decay * average + (1.0 - decay) * value', closed.test_the_error_of_adam_stays_small_for_twenty_thousand_steps),
    ('short memory loses the value', 'core.py', 'elif decay < 0.5:', 'elif False:', oracle('adam, b1=0')),
    ('Adadelta: t before the step', 'adaptive.py', '        u = (jnp.sqrt(t) + delta) / (jnp.sqrt(r) + delta) * u\n        return u, r, lerp(t, u * u, rho)', '        t = lerp(t, ((jnp.sqrt(t) + delta) / (jnp.sqrt(r) + delta) * u) ** 2, rho)\n        return (jnp.sqrt(t) + delta) / (jnp.sqrt(r) + delta) * u, r, t', oracle('adadelta')),
    ('Adadelta: t of the gradient', 'adaptive.py', 'u = (jnp.sqrt(t) + delta) / (jnp.sqrt(r) + delta) * u\n        return u, r, lerp(t, u * u, rho)', 'return (jnp.sqrt(t) + delta) / (jnp.sqrt(r) + delta) * u, r, lerp(t, u * u, rho)', oracle('adadelta')),
    ("Adadelta: Zeiler's for the notes'", 'adaptive.py', 'step = step_eps_inside if eps_in_sqrt else step_eps_outside', 'step = step_eps_inside', oracle('adadelta')),
    ("Adadelta: the notes' for Zeiler's", 'adaptive.py', 'step = step_eps_inside if eps_in_sqrt else step_eps_outside', 'step = step_eps_outside', oracle('adadelta, Zeiler')),
    ('Adadelta: the new t for the old', 'adaptive.py', 'jnp.sqrt(t + rho * delta) * (u / jnp.sqrt(rho * (r + delta) + (1 - rho) * g))', 'jnp.sqrt((t + delta) / (r + delta)) * u', oracle('adadelta, Zeiler')),
    ('Adam: no correction of mu', 'adam.py', 'return ratio(times(correct_mu, wide(mu)), divisor)', 'return ratio(wide(mu), divisor)', oracle('adam')),
    ('Adam: no correction of nu', 'adam.py', 'divisor = jnp.sqrt(times(correct_nu, wide(nu))) + cast(eps, u)', 'divisor = jnp.sqrt(wide(nu)) + eps', oracle('adam')),
    ('Adam: correction one late', 'adam.py', '1 / one_minus_power(b1, count), 1 / one_minus_power(b2, count)', '1 / one_minus_power(b1, count + 1), 1 / one_minus_power(b2, count + 1)', oracle('adam')),
    ('Adam: corrections swapped', 'adam.py', '1 / one_minus_power(b1, count), 1 / one_minus_power(b2, count)', '1 / one_minus_power(b2, count), 1 / one_minus_power(b1, count)', oracle('adam')),
    ('Adam: eps in the root', 'adam.py', 'divisor = jnp.sqrt(times(correct_nu, wide(nu))) + cast(eps, u)', 'divisor = jnp.sqrt(times(correct_nu, wide(nu)) + eps)', oracle('adam')),
    ('Adam: eps before the correction', 'adam.py', 'divisor = jnp.sqrt(times(correct_nu, wide(nu))) + cast(eps, u)', 'divisor = jnp.sqrt(times(correct_nu, wide(nu) + eps * eps))', oracle('adam')),
    ('Adam: correction cancels', 'core.py', '-jnp.expm1(count.astype(jax.dtypes.canonicalize_dtype(float)) * log(decay))', '1 - jnp.float32(decay) ** count', oracle('adam, long memory')),
    ('AdamW: decay coupled', 'adam.py', '        scale_by_adam(b1, b2, eps, state_dtype=state_dtype, mu_dtype=mu_dtype),\n        add_decayed_weights(weight_decay, where=where, mask=mask),', '        add_decayed_weights(weight_decay, where=where, mask=mask),\n        scale_by_adam(b1, b2, eps, state_dtype=state_dtype, mu_dtype=mu_dtype),', oracle('adamw')),
    ('AdamW: decay after the rate', 'adam.py', '        add_decayed_weights(weight_decay, where=where, mask=mask),\n        scale_by_learning_rate(learning_rate),', '        scale_by_learning_rate(learning_rate),\n        add_decayed_weights(weight_decay, where=where, mask=mask),', oracle('adamw')),
    ("AdamW: the paper's decay times the base", 'adam.py', "to_number('weight_decay', weight_decay) / base_learning_rate", "to_number('weight_decay', weight_decay) * base_learning_rate", oracle('adamw, the paper')),
    ('decay grows the weights', 'decay.py', 'wide(u) + times(decay', 'wide(u) - times(decay', closed.test_weight_decay_alone_is_a_geometric_series),
    ('decay of everything', 'decay.py', 'if path in decayed else u', 'if True else u', closed.test_decay_selects_only_its_parameters),
    ('NAdam: the next momentum missing', 'adam.py', 'momentum_at(count), momentum_at(next_count(count))', 'momentum_at(count), momentum_at(count)', oracle('nadam')),
    ('NAdam: product without the next', 'adam.py', '-jnp.expm1(log_product + jnp.log(next_momentum))', '-jnp.expm1(log_product)', oracle('nadam, constant momentum')),
    ('clip by each leaf', 'clip.py', 'return per_leaf(lambda u: (times(factor, wide(u)),), updates)[0], state', 'return jax.tree.map(lambda u: u * max_norm / jnp.maximum(global_norm(u), max_norm), updates), state', closed.test_clipping_is_one_factor),
    ('clip enlarges', 'clip.py', 'limit / jnp.maximum(norm, limit)', 'limit / norm', closed.test_clipping_is_one_factor),
    ('average one behind', 'average.py', 'wide((wide(param) + update).astype(param.dtype))', 'wide(param)', functools.partial(test_state.test_the_average_is_of_the_parameters_after_the_update, decay=0.9, debias=True)),
    ('late average forgets where it began', 'average.py', 'count=jnp.where(begins, 1, self.count)', 'count=jnp.where(begins, 0, self.count)', test_plateau.test_it_is_the_mean_of_the_parameters_since_then),
    ('late average compares with the newest too', 'average.py', 'best=lesser(self.best, self.recent[0])', 'best=lesser(self.best, value)', begun),
    ('late average begins on any evaluation', 'average.py', '(self.count == 0) & worse(value, self.best)', '(self.count == 0)', begun),
    ('late average takes NaN for the best', 'average.py', '(jnp.fmin, jnp.greater)', '(jnp.minimum, jnp.greater)', begun),
    ('average not debiased', 'average.py', 'if debias else scalar(1.0 - decay)', 'if False else scalar(1.0 - decay)', functools.partial(test_state.test_the_average_is_of_the_parameters_after_the_update, decay=0.9, debias=True)),
    ('LAMB: ratio upside down', 'layerwise.py', 'coefficient * size / jnp.where(defined, divisor, 1)', 'coefficient * divisor / jnp.where(defined, size, 1)', oracle('lamb')),
    ('LAMB: norm before the decay', 'layerwise.py', 'else _norm(decayed)) + cast', 'else _norm(u)) + cast', oracle('lamb')),
    ('LARS: norm of the sum', 'layerwise.py', '        separate_norms=True,\n', '', oracle('lars')),
    ('vectors taken for layers', 'layerwise.py', 'if p.ndim < 2 and not vectors:', 'if False:', oracle('lamb')),
    ('Lion: the new average for the step', 'lion.py', 'jnp.sign(cast(of_mean, u) * wide(m) + cast(of_update, u) * u)', 'jnp.sign(wide(m))', oracle('lion')),
    ('Lion: the old average kept', 'lion.py', '            m = lerp(wide(m), u, b2).astype(m.dtype)\n            return jnp.sign(cast(of_mean, u) * wide(m) + cast(of_update, u) * u), m', '            return jnp.sign(lerp(wide(m), u, b1)), lerp(wide(m), u, b2).astype(m.dtype)', functools.partial(test_compiled.test_bytes_temporaries_and_copies, name='lion')),
    ('Lion: averages swapped', 'lion.py', 'of_mean, of_update = b1 / b2', 'b1, b2 = b2, b1\n    of_mean, of_update = b1 / b2', oracle('lion')),
    ('Muon: a convolution by its last two axes', 'muon.py', '.reshape(-1, u.shape[-1])', '.reshape(-1, u.shape[-1] * u.shape[-2] if u.ndim > 2 else u.shape[-1])', functools.partial(wrap.test_muon_is_its_author_s, shape=(3, 3, 2, 4), scale='width')),
    ('Muon: the heavier momentum', 'muon.py', 'lerp(u, m, 1 - momentum) if nesterov', 'lerp(u, m, momentum) if nesterov', functools.partial(wrap.test_muon_is_its_author_s, shape=(6, 4), scale='rms')),
    ('SOAP: turned back the wrong way', 'soap.py', 'left.basis if back else left.basis.T', 'left.basis.T if back else left.basis', wrap.test_soap_is_equivariant_to_rotations_and_adam_is_not),
    ('SOAP: squares keep their order', 'soap.py', 'nu = jnp.take(nu, order, axis=axis)', 'pass', functools.partial(wrap.test_soap_is_the_paper_s, shape=(4, 4))),
    ('schedule-free: plain mean', 'schedule_free.py', 'weight = largest**weight_power', 'weight = largest**0', wrap.test_schedule_free_evaluates_the_average),
    ('schedule-free: evaluates y', 'points.py', 'recover_average(y, z, s.interpolation)', 'wide(y)', wrap.test_schedule_free_evaluates_the_average),
    ('plateau one late', 'plateau.py', 'bad >= self.patience', 'bad > self.patience', drops),
    ('plateau never restarts', 'plateau.py', 'bad=jnp.where(divide, 0, bad)', 'bad=bad', drops),
    ('plateau as a ratio', 'plateau.py', 'sign * value < sign * self.best - self.min_delta', 'sign * value < sign * self.best * (1 - 1e-4)', worse),
    ('plateau knows one mode', 'plateau.py', "sign = 1 if self.mode == 'min' else -1", 'sign = 1', upward),
    ('plateau without a margin', 'plateau.py', 'sign * self.best - self.min_delta', 'sign * self.best', margin),
    ('the last rule wins', 'groups.py', 'owner.append(matches[0])', 'owner.append(matches[-1])', wrap.test_the_first_rule_wins_and_states_hold_their_own_leaves_only),
    ('frozen leaves pass the gradient on', 'groups.py', 'jnp.zeros(jnp.shape(u), jnp.result_type(*p or (u,)))', 'u', wrap.test_freeze_and_multipliers),
    ('master emits its own step', 'precision.py', 'wide(master.astype(p.dtype)) - wide(p), master', 'u, master', wrap.test_bfloat16_parameters_move_by_steps_below_their_precision),
    ('state moves on a NaN', 'nonfinite.py', 'lambda: (zeros, state.inner))', 'lambda: (zeros, move()[1]))', functools.partial(wrap.test_non_finite_gradients_are_always_skipped, bad=float('nan'))),
    ('infinities pass', 'nonfinite.py', 'jnp.all(jnp.isfinite(leaf))', '~jnp.any(jnp.isnan(leaf))', functools.partial(wrap.test_non_finite_gradients_are_always_skipped, bad=float('inf'))),
    ('narrow state, wide step', 'descent.py', '''            v = (times(decay, wide(v)) + u).astype(v.dtype)
            return (u + times(ahead, wide(v)) if nesterov else wide(v)), v''', '''            new = times(decay, wide(v)) + u
            return (u + times(ahead, new) if nesterov else new), new.astype(v.dtype)''', wrap.test_a_narrow_state_gives_the_update_of_the_stored_value),
    ('shapes broadcast', 'core.py', 'if jnp.shape(update) != jnp.shape(leaf):', 'if False:', functools.partial(wrap.test_an_update_of_another_shape_or_tree_is_refused, name='adam')),
    ('buckets filled backwards', 'buckets.py', 'jnp.ravel(leaves[i])', 'jnp.ravel(leaves[i])[::-1]', functools.partial(meta.test_buckets_are_bit_exact, name='adam')),
]  # fmt: skip


def plant(folder: Path, file: str, old: str, new: str):
    """The library with one patch, as a package of another name."""
    name = f'mutant_{abs(hash((file, old, new)))}'
    shutil.copytree(Path(library.__file__).parent, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
    for path in (folder / name).glob('*.py'):
        source = path.read_text()
        if path.name == file:
            assert source.count(old) == 1, f'the patch of {file} fits {source.count(old)} times: {old}'
            source = source.replace(old, new)
        path.write_text(source.replace('canon.optim', name))
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


@pytest.mark.parametrize(
    ('bug', 'file', 'old', 'new', 'killer'),
    [pytest.param(*kill, id=kill[0], marks=pytest.mark.slow if i % 8 else ()) for i, kill in enumerate(KILLS)],
)
def test_killed(bug, file, old, new, killer, tmp_path):
    mutant = plant(tmp_path, file, old, new)
    try:
        killer(mutant)
    except (AssertionError, UsageError, pytest.fail.Exception):  # not any error: a patch must run to be a bug
        return
    pytest.fail(f'{bug} survives')


@pytest.mark.parametrize(
    'bug', [pytest.param(i, marks=pytest.mark.slow if i else ()) for i in range(0, len(KILLS), 16)]
)
def test_without_the_patch_the_same_killers_pass(bug, tmp_path):
    """A copy of the package is as good as the package: what kills is the patch, not the copying."""
    KILLS[bug][-1](plant(tmp_path, 'core.py', 'Tree = Any', 'Tree = Any  # unchanged'))


def test_there_are_enough():
    assert len(KILLS) >= 30

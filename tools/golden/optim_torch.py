"""Writes tests/optim/golden/torch.npz: the parameters of torch's optimizers under recorded gradients, in float64.

python tools/golden/optim_torch.py tests/optim/golden/torch.npz      (needs torch and numpy, nothing of Canon)
"""

import sys

import numpy as np
import torch

STEPS, DROP = 30, 12
SGD, OPT = torch.optim.SGD, torch.optim
CASES = {
    'sgd': lambda p: SGD(p, 0.1),
    'sgd, decay': lambda p: SGD(p, 0.1, weight_decay=0.05),
    'momentum': lambda p: SGD(p, 0.1, 0.9),
    'nesterov': lambda p: SGD(p, 0.1, 0.9, nesterov=True),
    'adagrad': lambda p: OPT.Adagrad(p, 0.1, eps=1e-7),
    'adagrad, start': lambda p: OPT.Adagrad(p, 0.1, initial_accumulator_value=0.1),
    'rmsprop': lambda p: OPT.RMSprop(p, 0.1, alpha=0.9, eps=1e-6),
    'adadelta': lambda p: OPT.Adadelta(p, 0.5, rho=0.95),
    'adam': lambda p: OPT.Adam(p, 0.1),
    'adam, decay': lambda p: OPT.Adam(p, 0.1, weight_decay=0.05),
    'adamw': lambda p: OPT.AdamW(p, 0.1, weight_decay=0.05),
}
SCHEDULES = {
    'linear_decay': lambda o: OPT.lr_scheduler.LinearLR(o, 1.0, 0.01, 20),
    'step_decay': lambda o: OPT.lr_scheduler.MultiStepLR(o, [5, 12, 20], 0.1),
    'cosine': lambda o: OPT.lr_scheduler.CosineAnnealingLR(o, STEPS - 1),
    'exponential': lambda o: OPT.lr_scheduler.ExponentialLR(o, 0.94),
}


def recorded():
    rng = np.random.default_rng(3)
    shape = (4, 3)
    return rng.normal(size=shape), rng.normal(size=(STEPS, *shape)) * 10.0 ** rng.uniform(-4, 2, (STEPS, *shape))


def path(make, drop):
    start, grads = recorded()
    p = torch.nn.Parameter(torch.tensor(start))
    optimizer, trajectory = make([p]), []
    for k, g in enumerate(grads):
        if drop and k == DROP:
            optimizer.param_groups[0]['lr'] /= 10
        p.grad = torch.tensor(g)
        optimizer.step()
        trajectory.append(p.detach().numpy().copy())
    return np.array(trajectory)


def rates(make):
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    schedule, learning_rates = make(optimizer), []
    for _ in range(STEPS):
        learning_rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        schedule.step()
    return np.array(learning_rates)


if __name__ == '__main__':
    start, grads = recorded()
    out = {'start': start, 'grads': grads, 'version': torch.__version__}
    out |= {name: path(make, drop=False) for name, make in CASES.items()}
    out |= {f'{name}, drop': path(make, drop=True) for name, make in CASES.items()}
    out |= {f'rate {name}': rates(make) for name, make in SCHEDULES.items()}
    np.savez_compressed(sys.argv[1], **out)

"""A claim: with few images of text, augmentation by a learning agent beats random augmentation, and both beat none.

Luo et al. 2020, "Learn to augment", README of the authors' tool: CRNN trained on IIIT5K's 2,000 words reads 40.8 % of
the test words, and 53.4 % with augmentation.

    ./launch.sh sweep configs/claims/learn_to_augment.py
    ./launch.sh table runs/claims/learn_to_augment

Here the few images are 256 lines of one to four digits, and the test lines are of digits that are not among them. Three
seeds on 2 CPU cores next to other jobs: none 66.4 ± 2.7 % (2 to 4 minutes a run), random 89.0 ± 1.6 % (2 to 4), learnt
89.1 ± 1.4 % (10).
"""

from configs.text_recognition import crnn_digits


def get_config(arg: str = ''):
    config = crnn_digits.get_config('smoke')
    steps = 300 if arg == 'smoke' else 1500
    config.data.train.split = 'train[:256]'
    config.augment.mode = 'learnt' if arg == 'smoke' else 'none'
    config.augment.radius = 6.0  # pixels; digits are 12 to 20 wide, narrower than the paper's words
    config.run.update(steps=f'{steps} steps', log=())
    for name in config.run.evals:
        config.run.evals[name].every = '20%'
    config.run.checkpoint.update(every='20%', keep=5)  # of which `table` draws what the agent has learnt
    config.target.update(at_least=0.2, ci=False)
    return config


def sweep():
    for seed in range(3):
        for mode in ('none', 'random', 'learnt'):
            yield {'augment.mode': mode, 'seed': seed}


def pictures(runs):
    from experiments.claims.text_recognition import draw_agent, draw_agent_warps, draw_word_accuracy

    return {
        'accuracy': draw_word_accuracy(runs, 'augment.mode', 'Lines of digits, from 256 lines'),
        'agent': draw_agent(runs),
        **draw_agent_warps(runs),
    }

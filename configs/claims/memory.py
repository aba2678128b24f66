"""A claim: the gradient of a plain RNN vanishes with the time lag, and gates keep it (Hochreiter & Schmidhuber 1997).

./launch.sh sweep configs/claims/memory.py
./launch.sh table runs/claims/memory
"""

from ml_collections import ConfigDict


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    return ConfigDict(
        dict(
            experiment='sequence_tasks',
            seed=0,
            data=dict(task='adding', gap=20 if smoke else 50, batch_size=32, test_batches=10),
            model=dict(cell='lstm', hidden=64),
            tx=dict(
                chain=('clip', 'adam'),
                clip=dict(name='clip_by_global_norm', max_norm=1.0),
                adam=dict(learning_rate=3e-3),
            ),
            run=dict(
                steps=1000 if smoke else 1500,
                log_every='5%',
                evals=dict(test=dict(every='50%')),
                checkpoint=dict(every='100%'),
                tensorboard=False,
            ),
            target=dict(metric='test/share', at_most=0.2),
        )
    )


def sweep():
    for task, gaps in (('adding', (10, 30, 100)), ('copy', (5, 15, 50))):
        for gap in gaps:
            for cell in ('rnn', 'lstm', 'gru'):
                yield {'data.task': task, 'data.gap': gap, 'model.cell': cell}


def pictures(runs):
    from experiments.sequence_tasks import picture

    return {task: picture(runs, task) for task in ('adding', 'copy')}

"""A claim: the gradient of a plain RNN vanishes with the time lag, and gates keep it (Hochreiter & Schmidhuber 1997).

    ./launch.sh sweep configs/claims/memory.py
    ./launch.sh table runs/claims/memory

The adding and the copy problem over three gaps each, with an RNN, an LSTM and a GRU of 64 units: 18 runs. Measured
results and figures: docs/claims.md. `:smoke`, the LSTM over a gap of 20: 12 s on 2 CPU cores.
"""

from ml_collections import ConfigDict


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    return ConfigDict(
        dict(
            experiment='sequence_memory',
            seed=0,
            data=dict(
                problem='adding',  # or 'copy'
                gap=20 if smoke else 50,  # steps over which the network has to remember
                batch_size=32,  # sequences per step
                test_batches=10,  # of the evaluator
            ),
            model=dict(name='lstm', hidden=64),  # or 'rnn', 'gru'; further arguments are those of the layer
            tx=dict(
                chain=('clip', 'adam'),  # clipped, since gradients of the RNN also explode (Pascanu et al. 2013)
                clip=dict(name='clip_by_global_norm', max_norm=1.0),  # norm of the whole gradient
                adam=dict(learning_rate=3e-3),
            ),
            run=dict(
                steps=1000 if smoke else 1500,
                log_every='5%',
                evals=dict(test=dict(every='50%')),
                checkpoint=dict(every='100%'),
                log=(),
            ),
            target=dict(metric='test/relative_loss', at_most=0.2),  # of the loss without memory
        )
    )


def sweep():
    for problem, gaps in (('adding', (10, 30, 100)), ('copy', (5, 15, 50))):
        for gap in gaps:
            for cell in ('rnn', 'lstm', 'gru'):
                yield {'data.problem': problem, 'data.gap': gap, 'model.name': cell}


def pictures(runs):
    from experiments.claims.memory import draw_memory

    return {problem: draw_memory(runs, problem) for problem in ('adding', 'copy')}

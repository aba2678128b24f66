"""DeepSORT with a learnt appearance and affinity on sequences of moving digits: nothing to download.

    ./launch.sh run configs/tracking/deep_sort_learnt.py

Three stages: an embedding of crops, as in `embedding_digits.py`; an affinity of boxes and embeddings, as in
`affinity_digits.py`; then the tracker. `sort.py` and `byte_track.py` track the same sequences and learn nothing.

Measured on 2 CPU cores next to others: HOTA 75.5 % on 16 sequences in 12:33, 4:52 of CPU time; the links of the
affinity have F1 98.7 %. `:smoke`: HOTA 75.2 % on four sequences in 3:10, 76 s of CPU time.
"""

from configs.tracking._learnt import learnt_tracking


def get_config(arg: str = ''):
    if arg == 'smoke':
        return learnt_tracking(steps=(120, 200), sequences=8, tracked='test[:4]', at_least=0.7)
    return learnt_tracking(steps=(1000, 2000), sequences=48, tracked='test[:16]', at_least=0.72)

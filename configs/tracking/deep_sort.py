"""DeepSORT (Wojke et al. 2017) on sequences of moving digits with simulated appearances: nothing to download.

    ./launch.sh run configs/tracking/deep_sort.py

Its embeddings are noisy codes of the true identities, of a quality that `simulated.noise` sets, until
`--config.appearance.run=FOLDER` names a run of `configs/tracking/embedding_digits.py`.

Measured on 16 sequences: HOTA 0.735, MOTA 0.874, IDF1 0.881 in 31 s on a shared CPU. The
codes are not learnt, so this is no comparison with others.
"""

from ml_collections.config_dict import placeholder

from configs.tracking._trackers import track


def get_config(arg: str = ''):
    sections = dict(
        appearance=dict(run=placeholder(str), stage=placeholder(str)),
        affinity=dict(run=placeholder(str), stage=placeholder(str)),  # of `track_affinity`, in place of the cosine
        simulated=dict(size=16, noise=0.3),
    )
    tracker = dict(name='deep_sort', max_cosine_cost=0.3, max_age=30, min_hits=3, gallery_size=30)
    return track(tracker, 0.4, arg == 'smoke', sections=sections)

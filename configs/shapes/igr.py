"""IGR: one shape as a signed distance, from points of its surface and their normals (Gropp et al. 2020).

    ./launch.sh run configs/shapes/igr.py --config.data.path=bunny.ply     # any file of triangles, open ones too
    ./launch.sh run configs/shapes/igr.py:smoke                            # two bodies melted together, embedded
    ./launch.sh predict --workdir=runs/shapes/igr-smoke/default --input=train:0

The constants are the paper's and its code's: 8 layers of 512 begun as a sphere, softplus of beta 100, lambda 0.1,
tau 1, Adam at 0.005 halved every 2,000 of 100,000 steps of 16,384 points. As it stands it has not been run. Shrunk
(4 layers of 96, 1,000 steps of 512 points) it has the body with an IoU of 0.982 and a Chamfer-L1 of 0.005 in a space of
side 2, in 14 s on 2 CPU cores. An open mesh has no inside: it is measured by distances alone.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    return ConfigDict(
        dict(
            experiment='shapes',
            seed=0,
            data=dict(
                path=placeholder(str),
                space='sphere',
                family=dict(kinds=('blend',), count=1, rotated=True, seed=10),
                batch_size=512 if smoke else 16384,
                train=dict(split='train'),
                evals=dict(
                    shape=dict(split='train', points=50_000 if smoke else 100_000, resolution=48 if smoke else 128)
                ),
            ),
            model=dict(
                name='igr.igr',
                layers=4 if smoke else 8,
                width=96 if smoke else 512,
                skip=2 if smoke else 4,
                beta=100.0,
                radius=1.0,
            ),
            system=dict(
                name='eikonal',
                weight=0.1,
                tau=1.0,
                points=10_000 if smoke else 100_000,
                neighbour=50,
                spread=1.8,
            ),
            extract=dict(resolution=32, upsamplings=1 if smoke else 3),
            tx=dict(
                name='adam',
                learning_rate=dict(
                    name='exponential', init=0.005, decay=0.5, steps='25%' if smoke else '2000 steps', staircase=True
                ),
            ),
            run=dict(
                steps='1000 steps' if smoke else '100000 steps',
                log_every='5%',
                evals=dict(shape=dict(every='100%' if smoke else '10%')),
                checkpoint=dict(every='50%'),
            ),
            target=dict(metric='shape/chamfer_l1', at_most=0.01),  # open meshes have it, too
        )
    )

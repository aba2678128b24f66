"""A narrow Fast R-CNN (Girshick 2015) on scenes of handwritten digits, with proposals of selective search.

    ./launch.sh run configs/detection/fast_rcnn_digits.py

The first stage searches all scenes and keeps the proposals in files; the second one is a Fast R-CNN with the backbone
and the head of `faster_rcnn_digits.py`. Nothing to download.

Measured on 2 CPU cores: `:smoke`, mAP 70.7 % in 3:42 next to another training. The full recipe has not been run.
"""

from configs.detection._two_stages import FAST_RCNN, digits, small_head


def get_config(arg: str = ''):
    smoke, model = arg == 'smoke', dict(name='fast_rcnn.fast_rcnn', **small_head())
    # Searching a scene takes longer than learning from it once: there are fewer of them.
    few = dict(num_examples=512, test=96) if smoke else dict(num_examples=4096)
    config = digits(model, FAST_RCNN, 400 if smoke else 3000, 0.4 if smoke else 0.8, smoke, **few)
    with config.unlocked():
        del config.rpn
        config.experiment = 'staged'
        config.data.proposals = dict(stage='proposals', most=300)  # per image
        # Digits are small and of one colour: few pixels are a segment, and one colour space finds them.
        config.proposals = dict(
            name='selective_search',
            strategy='fast',
            colours=('lab',),
            scales=(50.0, 200.0),
            min_size=8,  # pixels of a segment
            workers=0,  # processes; 0 searches in this one
        )
        config.stages = dict(
            experiment='detection',
            chain=('proposals', 'detector'),
            proposals=dict(experiment='region_proposals'),
            detector=dict(),
        )
    return config

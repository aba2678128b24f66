"""A claim: a network proposes better than selective search, with fewer boxes and in less time (Ren et al. 2015, 4.1).

    ./launch.sh run configs/claims/proposals.py

The paper: from 2,000 to 300 proposals the recall of a network drops less than that of selective search, and 10 ms per
image replace 1.5 s; with 300 of them mAP is 59.9 %, with 2,000 of selective search 58.7. Here 10 to 2,000 proposals of
three methods on the same scenes of digits, one run whose last stage compares them: a picture of the recall and of the
mAP against the number, and seconds per image. Not in the paper: all are classified by one network, that of a Faster
R-CNN, which has learnt from its own proposals. Recall at an IoU of 0.5 of 10, 30 and 100: the network 84.7, 96.2 and
99.4 %, selective search 41.8, 73.3 and 94.9 %, windows 0.6, 4.0 and 14.7 %; 0.013, 0.048 and 0.010 s per image.
"""

from configs.detection._two_stages import FASTER_RCNN, digits, small_faster_rcnn

COUNTS = (10, 30, 100, 300, 1000, 2000)


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    few = dict(num_examples=512, test=48) if smoke else dict(num_examples=2048, test=128)
    config = digits(small_faster_rcnn(), FASTER_RCNN, 100 if smoke else 400, 0.3, smoke=True, **few)
    with config.unlocked():
        del config.system.rpn_weight
        config.experiment = 'staged'
        config.compared = dict(  # of the last stage
            stages=('network', 'search', 'windows'),  # whose proposals are compared
            counts=COUNTS,  # proposals per image
            detector='detector',  # the stage whose network classifies them
        )
        # As many as the largest number that is compared.
        most = dict(rpn=dict(test_pre_nms=max(COUNTS), test_post_nms=max(COUNTS)))
        few_searched = dict(train=dict(split='train[:16]'))  # only images of the test are compared
        searched = dict(experiment='region_proposals', data=few_searched)
        digit = dict(colours=('lab',), scales=(50.0, 200.0), min_size=8)  # as in fast_rcnn_digits.py
        config.stages = dict(
            experiment='detection',
            chain=('detector', 'network', 'search', 'windows', 'recall'),
            detector=dict(),
            network=dict(
                experiment='network_proposals',
                network='detector',
                system=dict(name='rpn'),
                data=few_searched,
                **most,
            ),
            search=dict(proposals=dict(name='selective_search', strategy='fast', **digit), **searched),
            windows=dict(
                proposals=dict(name='sliding_windows', sides=(8.0, 12.0, 18.0, 27.0, 40.0), aspect_ratios=(1.25, 2.0)),
                **searched,
            ),
            recall=dict(experiment='proposal_recall', data=dict(few_searched, batch_size=4)),  # of 2,000 regions each
        )
        config.target = dict(metric='test/recall_network_300', at_least=0.8)
    return config

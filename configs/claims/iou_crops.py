"""A claim: crops of a least IoU with an object improve SSD much (Liu et al. 2016, table 2: 65.5 to 74.3 % mAP).

    ./launch.sh sweep configs/claims/iou_crops.py
    ./launch.sh table runs/claims/iou_crops

The paper's step is from a horizontal flip to all of its augmentation: crops and colours. Here it is the crops alone, on
512 training scenes, which a detector learns by heart without augmentation.
"""

from configs.detection._recipes import SSD, scenes, small_ssd


def get_config(arg: str = ''):
    size = 96
    chain = dict(chain=('min_iou_crop', 'resize'), resize=dict(size=size))
    easy = dict(height=size, width=size, sizes=(12, 48), most=6, clutter=3)
    steps = 300 if arg == 'smoke' else 600
    system = dict(SSD, threshold=0.4)
    return scenes(small_ssd(), system, steps, 0.1, num_examples=512, test=256, transforms=chain, source=easy)


def sweep():
    for chain in (('min_iou_crop', 'resize'), ('resize',)):
        yield {'data.train.transforms.chain': chain}


def pictures(runs):
    from experiments.claims.detection import PRECISION, draw_scores

    def name(config):
        return 'crops' if 'min_iou_crop' in config['data']['train']['transforms']['chain'] else 'no crops'

    return {'crops': draw_scores(runs, name, PRECISION, 'minimum-IoU crops, 512 scenes of digits')}

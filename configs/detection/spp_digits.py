"""SPP-net (He et al. 2014) on scenes of handwritten digits, all of its stages: nothing to download.

    ./launch.sh run configs/detection/spp_digits.py

A classifier of regions is trained at two sizes in turn on one set of weights; it stands for ImageNet's. The layers
after the pyramid are fine-tuned on proposals of whole images, whose maps stay as they are. The features of all regions
then come from a few maps per image, each region from the scale at which it is nearest to 36 pixels. SVMs, regression
and detections are those of R-CNN. The network is a narrow VGG-11 up to conv4, at stride 8.

Measured on 2 CPU cores: `:smoke` reaches mAP 0.568 with SVMs and regressed boxes, 0.559 without the regression and
0.563 with the network's softmax, in 2:31. The full recipe has not been run.
"""

from configs.detection._region_recipes import digits, follow_spp_net, list_spp_stages, small_network


def get_config(arg: str = ''):
    model = small_network('spp_net.spp_net', stride=8, bins=(4, 2, 1))  # 21 cells
    crop = dict(size=40, context=0, form='square')  # what the classifier sees; it is not warped
    size = 96 if arg == 'smoke' else 128
    scales = dict(
        sides=(size // 2, size, 2 * size, 3 * size),  # of the resized image
        longest=3 * size,
        region=36.0,  # side of the square whose area a region should have
        multiple=8,
    )
    stages = list_spp_stages(image=2 * size, images=4, steps=300 if arg == 'smoke' else 2000)
    sizes = (32, 40)  # of the classifier's crops
    if arg == 'smoke':
        small = dict(height=96, width=96, sizes=(14, 48), most=4, clutter=3)  # fewer and larger digits
        few = dict(num_examples=256, test=96)
        config = digits(model, crop, stages, 450, 0.5, **few, source=small, scales=scales, sizes=sizes)
    else:
        config = digits(model, crop, stages, 3000, 0.8, scales=scales, sizes=sizes)
    return follow_spp_net(config)

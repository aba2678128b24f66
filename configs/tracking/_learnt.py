"""Shared parts of the configs that learn parts of trackers on sequences of moving digits."""

from typing import Any

from ml_collections import ConfigDict

from configs.detection._recipes import SSD, scenes


def digits(sequences: int, **source: Any) -> dict[str, Any]:
    """Returns the data: sequences of moving digits. **source: further arguments of `digit_sequences`."""
    return dict(
        name='digit_sequences',  # or 'mot_challenge', 'kitti_tracking', ... with source.path
        source=dict(num_sequences=sequences, **source),  # per split
        reading=dict(threads=2),  # that prepare batches ahead
    )


def embedding(steps: int, sequences: int, at_least: float) -> ConfigDict:
    """Returns the config of an appearance embedding.

    Args:
      steps: length of the run.
      sequences: of training, 90 frames each.
      at_least: mAP of retrieval, for the ledger.
    """
    return ConfigDict(
        dict(
            experiment='track_embedding',
            seed=0,
            data=dict(
                **digits(sequences),
                batch_size=64,  # 16 identities with 4 crops each
                crops=dict(height=32, width=32, context=0.1, jitter=0.04),
                train=dict(
                    split='train',
                    # Identities of all sequences: within='sequence' takes few whole ones, whose common ground the
                    # statistics of BatchNorm then learn; mAP 0.71 instead of 0.74 after 200 steps.
                    sampler=dict(name='class_groups', examples=4),
                    transforms=dict(
                        chain=('colour_jitter',), colour_jitter=dict(brightness=0.2, contrast=0.2, saturation=0.2)
                    ),
                ),
                evals=dict(test=dict(split='test[:8]', every=5, separation=10)),
            ),
            input=dict(mean=(0.45,), std=(0.25,)),
            model=dict(
                name='appearance.deep_sort_network',
                width=0.5,  # of the channels
                units=64,  # length of the vectors; 128 in the paper
            ),
            loss=dict(
                triplet=1.0,
                classification=0.0,  # weight of a classifier of the identities; 1 and triplet=0 is Wojke and Bewley's
            ),
            tx=dict(
                name='adam',
                learning_rate=dict(
                    name='warmup', steps='5%', then=dict(name='cosine', init=2e-3, final=0.0, steps='95%')
                ),
            ),
            run=dict(steps=steps, log_every='5%', evals=dict(test=dict(every='50%')), checkpoint=dict(every='50%')),
            target=dict(metric='test/mAP', at_least=at_least),
        )
    )


def affinity(steps: int, sequences: int, at_least: float) -> ConfigDict:
    """Returns the config of a learnt affinity of boxes.

    Args:
      steps: length of the run.
      sequences: of training, 90 frames each.
      at_least: F1 of the links, for the ledger.
    """
    return ConfigDict(
        dict(
            experiment='track_affinity',
            seed=0,
            data=dict(
                **digits(sequences),
                batch_size=32,  # pairs of frames
                pairs=dict(slots=32, max_gap=15, max_age=30),
                train=dict(split='train'),
                evals=dict(test=dict(split='test[:8]', gaps=(1, 5, 10, 15), every=5)),
            ),
            motion=dict(name='deep_sort_motion'),  # predicts the tracks; of the tracker that will use the affinity
            model=dict(name='pair_affinity.pair_affinity', units=(64, 64)),
            sinkhorn=dict(iterations=30),
            tx=dict(name='adam', learning_rate=dict(name='cosine', init=3e-3, final=0.0, steps='100%')),
            run=dict(steps=steps, log_every='5%', evals=dict(test=dict(every='50%')), checkpoint=dict(every='50%')),
            target=dict(metric='test/f1', at_least=at_least),
        )
    )


def learnt_tracking(steps: tuple[int, int], sequences: int, tracked: str, at_least: float) -> ConfigDict:
    """Returns the config of the stages appearance, affinity (which compares embeddings) and tracking.

    Args:
      steps: of the embedding and of the affinity.
      sequences: of training, 90 frames each.
      tracked: split of the sequences that are tracked.
      at_least: HOTA, for the ledger.
    """
    shared = ('experiment', 'seed', 'target')
    learnt = [embedding(steps[0], sequences, 0), affinity(steps[1], sequences, 0)]
    parts = [{key: value for key, value in part.to_dict().items() if key not in shared} for part in learnt]
    tracking = dict(
        experiment='tracking',
        appearance=dict(stage='appearance'),
        affinity=dict(stage='affinity'),
        detections=dict(min_score=float('-inf')),  # all
        # Links of a probability above 0.2, wherever they are: the learnt affinity judges motion, too.
        tracker=dict(name='deep_sort', form='numpy', max_cosine_cost=0.8, max_motion_distance=float('inf')),
        data=dict(evals=dict(test=dict(split=tracked, preset='mot15', results='mot_challenge', video_frames=60))),
    )
    return ConfigDict(
        dict(
            experiment='staged',
            seed=0,
            data=dict(**digits(sequences), train=dict(split='train')),
            run=dict(evals=dict(test=dict(every='100%')), log=()),
            stages=dict(
                experiment='track_embedding',
                chain=('appearance', 'affinity', 'tracking'),
                appearance=parts[0],
                affinity=dict(experiment='track_affinity', appearance=dict(stage='appearance'), **parts[1]),
                tracking=tracking,
            ),
            target=dict(metric='test/HOTA', at_least=at_least),
        )
    )


def detected_tracking(steps: int, sequences: int, tracked: str, at_least: float) -> ConfigDict:
    """Returns the config of the stages detector and tracking: a narrow SSD, and ByteTrack on its boxes.

    Args:
      steps: of the detector.
      sequences: of training, 90 frames each.
      tracked: split of the sequences that are tracked.
      at_least: HOTA, for the ledger.
    """
    # Digits are 20 to 40 pixels high and about half as wide, so the priors, relative to 160 pixels, begin at stride 8.
    model = dict(
        name='ssd.ssd',
        num_classes=11,  # ten digits and the background
        backbone=dict(name='vgg.vgg11', width=0.25, batch_norm=True, init='he'),  # width: share of the channels
        stages=('conv4', 'conv5'),  # the backbone's maps that are predicted from: strides 8 and 16
        extras=(),
        sizes=(0.09, 0.18, 0.35),  # of the square priors; one more than maps
        aspect_ratios=((1.8,), (1.8,)),  # the median digit is 0.57 times as wide as high
    )
    recipe = scenes(model, dict(SSD, threshold=0.4), steps, 0, batch_size=8, source=dict(most=12)).to_dict()
    recipe['data'].update(
        name='digit_frames',
        source=dict(every=3),  # frames that follow each other hardly differ
        train=dict(split='train', sampler='shuffled'),
        evals=dict(test=dict(split=tracked, sizes=(16.0, 24.0), year=2010)),
    )
    detector = {key: value for key, value in recipe.items() if key not in ('seed', 'target')}
    tracking = dict(
        experiment='tracking',
        detector=dict(stage='detector'),
        detections=dict(
            min_score=0.05,  # ByteTrack itself begins no track below 0.7, and uses none below 0.1
            most=50,  # per frame, those of the highest scores; a detector early in training has very many
        ),
        tracker=dict(name='byte_track', form='numpy', high_score=0.6, low_score=0.1, max_cost=0.9),
        data=dict(evals=dict(test=dict(split=tracked, preset='mot15', results='mot_challenge', video_frames=60))),
    )
    return ConfigDict(
        dict(
            experiment='staged',
            seed=0,
            data=dict(name='digit_sequences', source=dict(num_sequences=sequences)),
            run=dict(evals=dict(test=dict(every='100%')), log=()),
            stages=dict(experiment='tracking', chain=('detector', 'tracking'), detector=detector, tracking=tracking),
            target=dict(metric='test/HOTA', at_least=at_least),
        )
    )

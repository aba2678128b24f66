"""Shared parts of the configs of trackers, on sequences of moving digits or of a benchmark."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def track(
    tracker: Mapping[str, Any] | None,
    at_least: float,
    smoke: bool = False,
    steps: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
    sections: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """Returns a config that tracks the test sequences of moving digits.

    Args:
      tracker: name and arguments; None where the first of `steps` tracks.
      at_least: HOTA for the ledger.
      smoke: whether only a quarter of the sequences is tracked.
      steps: a chain of what follows the last frame.
      source: arguments of `digit_sequences`, such as the quality of the detections.
      sections: further sections.
    """
    config = ConfigDict(
        dict(
            experiment='tracking',
            seed=0,
            data=dict(
                name='digit_sequences',  # or 'mot_challenge', 'kitti_tracking', 'ua_detrac', 'track_csv' with a path
                source=dict(source or {}),
                evals=dict(
                    test=dict(
                        split='test[:4]' if smoke else 'test[:16]',
                        preset='mot15',  # rules of the benchmark: 'mot17', 'kitti_car', 'ua_detrac', ...
                        pr_thresholds=(),  # scores of detections for PR_MOTA: (0.0, 0.1, ..., 0.9) in UA-DETRAC
                        results='mot_challenge',  # format of the files of results
                        video_frames=60,  # of the first sequence; 0: no video
                    )
                ),
            ),
            # Those below it are dropped before the tracker sees them. All are kept: the scores of many public detectors
            # (DPM, ACF, L-SVM) are of both signs, and a tracker has thresholds of its own.
            detections=dict(min_score=float('-inf')),
            detector=dict(run=placeholder(str), stage=placeholder(str)),  # of `detection`, in place of given detections
            run=dict(evals=dict(test=dict(every=1)), log=()),
            target=dict(metric='test/HOTA', at_least=at_least),
        )
    )
    if tracker is not None:
        # 'numpy' steps frame by frame on the host; 'jax' compiles a sequence into one scan, see docs/tracking.md.
        config.tracker = ConfigDict(dict(form='numpy', **tracker))
    if steps is not None:
        config.steps = ConfigDict(dict(steps))
    config.update(ConfigDict(dict(sections or {})))
    return config


def use_files(
    config: ConfigDict, name: str, split: str, preset: str, results: str, smoke: bool = False, **source: Any
) -> ConfigDict:
    """Gives a config the sequences of a benchmark, whose folder is --config.data.source.path.

    Args:
      config: of `track`.
      name: of the reader.
      split: which is scored.
      preset: rules of the benchmark.
      results: format of the files of results.
      smoke: whether the files are those of moving digits, which are written first: nothing to download.
      **source: arguments of the reader, or of `digit_benchmark`.
    """
    if smoke:
        config.data.name, config.data.source = 'digit_benchmark', ConfigDict(dict(layout=name, **source))
    else:
        config.data.name, config.data.source = name, ConfigDict(dict(path=placeholder(str), **source))
    config.data.evals.test.update(dict(split=split, preset=preset, results=results))
    return config

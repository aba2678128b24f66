"""Tracking and its evaluation, and learnt parts of trackers: an embedding of appearance, an affinity."""

from canon.tasks.tracking.affinity import (
    AffinitySettings,
    LinkEvaluation,
    affinity_task,
    count_links,
    learnt_affinity,
    link_evaluator,
    score_links,
)
from canon.tasks.tracking.association_pairs import (
    FollowedSequence,
    PairBatches,
    PairSettings,
    follow_objects,
    make_pair,
    name_detections,
)
from canon.tasks.tracking.detecting import detect_frames
from canon.tasks.tracking.embedding import (
    Embedder,
    EmbeddingLoss,
    RetrievalEvaluation,
    add_embeddings,
    embedding_task,
    make_embedder,
    retrieval_evaluator,
)
from canon.tasks.tracking.evaluation import (
    METRICS,
    TrackingEvaluation,
    make_video,
    tracking_evaluator,
    tracking_task,
    write_results,
)
from canon.tasks.tracking.running import (
    STEPS,
    TRACKERS,
    DetectionInput,
    SimulatedAppearance,
    TrackingSystem,
    describe_dropped,
    find_detections,
    run_system,
    select_detections,
    simulate_embeddings,
    track_detections,
)
from canon.tasks.tracking.user_sequences import list_result_files, read_user_sequence

__all__ = [
    'METRICS', 'STEPS', 'TRACKERS', 'AffinitySettings', 'DetectionInput', 'Embedder', 'EmbeddingLoss',
    'FollowedSequence', 'LinkEvaluation', 'PairBatches', 'PairSettings', 'RetrievalEvaluation',
    'SimulatedAppearance', 'TrackingEvaluation', 'TrackingSystem', 'add_embeddings', 'affinity_task', 'count_links',
    'describe_dropped', 'detect_frames', 'embedding_task', 'find_detections', 'follow_objects', 'learnt_affinity',
    'link_evaluator', 'list_result_files', 'make_embedder', 'make_pair', 'make_video', 'name_detections',
    'read_user_sequence', 'retrieval_evaluator', 'run_system', 'score_links', 'select_detections',
    'simulate_embeddings', 'track_detections', 'tracking_evaluator', 'tracking_task', 'write_results',
]  # fmt: skip

"""Reading text in images: the tasks of each kind of network, and evaluators, benchmarks and augmentation for them all.

    task = recognition_task(crnn(num_classes=36), make_grey_input())
    evaluator = recognition_evaluator(task, batches, Alphabet())

Batches hold 'image' uint8 [B, H, W, 1 or 3], 'label' int32 [B, L] (1, 2, ... in the order of the alphabet, then 0),
'label_length' int32 [B] and 'mask' bool [B]. A decoder takes what `Task.predict` gives to `Readings`: labels [B, N],
their lengths [B] and log probabilities [B].
"""

from canon.tasks.text.augmentation import (
    TextAugmentation,
    augment_randomly,
    augment_task,
    augmentation_evaluator,
    fiducial_points,
    learn_to_augment,
    make_agent,
    sample_warps,
)
from canon.tasks.text.benchmarks import (
    BenchmarkEvaluation,
    BenchmarkSettings,
    TextBenchmark,
    benchmark_evaluator,
    format_benchmarks,
)
from canon.tasks.text.lexicon_reading import (
    LexiconReader,
    OwnLexiconReader,
    make_language_decoder,
    make_lexicon_reader,
    read_with_lexicon,
)
from canon.tasks.text.lexicons import BKTree
from canon.tasks.text.recognition import (
    Decode,
    RecognitionEvaluation,
    TextSettings,
    decode_labels,
    make_grey_input,
    predict_texts,
    read_batches,
    recognition_evaluator,
    recognition_task,
)
from canon.tasks.text.word_recognition import (
    ReaderSettings,
    attention_task,
    char_task,
    dict_task,
    extend_dictionary,
    make_reader,
    make_standardised_input,
    ngram_task,
    read_attention,
    read_listed_positions,
    read_listed_words,
    read_ngrams,
    word_evaluator,
)

__all__ = [
    'BKTree', 'BenchmarkEvaluation', 'BenchmarkSettings', 'Decode', 'LexiconReader', 'OwnLexiconReader',
    'ReaderSettings', 'RecognitionEvaluation', 'TextAugmentation', 'TextBenchmark', 'TextSettings', 'attention_task',
    'augment_randomly', 'augment_task', 'augmentation_evaluator', 'benchmark_evaluator', 'char_task', 'decode_labels',
    'dict_task', 'extend_dictionary', 'fiducial_points', 'format_benchmarks', 'learn_to_augment', 'make_agent',
    'make_grey_input', 'make_language_decoder', 'make_lexicon_reader', 'make_reader', 'make_standardised_input',
    'ngram_task', 'predict_texts', 'read_attention', 'read_batches', 'read_listed_positions', 'read_listed_words',
    'read_ngrams', 'read_with_lexicon', 'recognition_evaluator', 'recognition_task', 'sample_warps', 'word_evaluator',
]  # fmt: skip

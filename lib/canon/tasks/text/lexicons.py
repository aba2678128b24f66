"""Lists of words that a recogniser may be restricted to, and the search for the words near a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from canon.errors import UsageError
from canon.metrics.text_scores import edit_distances


class BKTree:
    """Finds the words within an edit distance of a text (Burkhard & Keller 1973, "Some approaches to best-match file
    searching").

    Each word is a node; below it there is one branch for each distance to it. By the triangle inequality words within
    d of a text that is at distance r from a node are on its branches r - d to r + d, so most of the list is never
    compared. The nodes of one level are compared at once.

        >>> BKTree(['house', 'mouse', 'horse', 'elephant']).find('hause', 1)
        [('house', 1)]
    """

    def __init__(self, words: Sequence[str]):
        """Builds the tree, as by inserting the words one after the other; repeated words are dropped.

        Raises UsageError if there are no words.
        """
        self.words = list(dict.fromkeys(words))
        if not self.words:
            raise UsageError('a lexicon needs at least one word')
        self._codes, self._lengths = encode_texts(self.words)
        parents, edges = self._insert_words()
        # The children of a node are adjacent in `_children`, from `_first` of the node to that of the next.
        self._children = np.argsort(parents[1:], kind='stable') + 1
        self._edges = edges[self._children]
        self._first = np.searchsorted(parents[self._children], np.arange(len(self.words) + 1))

    def __len__(self) -> int:
        return len(self.words)

    def find(self, text: str, distance: int) -> list[tuple[str, int]]:
        """Returns (word, its distance) of all words within `distance` of `text`, the nearest first."""
        codes, lengths = encode_texts([text])
        nodes, found = np.zeros(1, np.int64), []
        while nodes.size:
            apart = edit_distances(self._codes[nodes], self._lengths[nodes], codes, lengths)
            near = apart <= distance
            found += zip(apart[near].tolist(), nodes[near].tolist(), strict=True)
            counts = self._first[nodes + 1] - self._first[nodes]
            ends = np.cumsum(counts)
            branches = np.arange(counts.sum()) + np.repeat(self._first[nodes] - (ends - counts), counts)
            followed = np.abs(self._edges[branches] - np.repeat(apart, counts)) <= distance
            nodes = self._children[branches[followed]]
        return [(self.words[node], apart) for apart, node in sorted(found)]

    def _insert_words(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the parent of each word, -1 for the root, and its distance to it."""
        parents, edges = (np.full(len(self.words), -1, np.int64) for _ in range(2))
        # All words descend together: `at` is the node that each has reached.
        rest, at = np.arange(1, len(self.words)), np.zeros(len(self.words) - 1, np.int64)
        while rest.size:
            apart = edit_distances(self._codes[rest], self._lengths[rest], self._codes[at], self._lengths[at])
            # The first word on a branch is its node, the others go on to it: `rest` is in the order of the list.
            branch = at * (self._codes.shape[1] + 1) + apart
            _, first, group = np.unique(branch, return_index=True, return_inverse=True)
            nodes = rest[first]
            parents[nodes], edges[nodes] = at[first], apart[first]
            others = np.ones(len(rest), bool)
            others[first] = False
            rest, at = rest[others], nodes[group[others]]
        return parents, edges


def encode_texts(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Encodes texts as code points, int32 [N, L] padded with -1, and their lengths [N]."""
    lengths = np.array([len(text) for text in texts], np.int64)
    codes = np.full((len(texts), max(int(lengths.max(initial=0)), 1)), -1, np.int32)
    for row, text in zip(codes, texts, strict=True):
        row[: len(text)] = [ord(character) for character in text]
    return codes, lengths

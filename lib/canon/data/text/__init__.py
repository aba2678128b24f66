"""Text as numbers: corpora, parallel text, vocabularies, streams of windows, and images of text."""

"""The engine of MJSynth (Jaderberg et al. 2014): fonts, words and textures become images of words, stage by stage.

`canon.data.text.rendered_words` is the data set; the modules here are its parts: `fonts`, `lexicon`, `textures`,
`layers` (what passes from stage to stage) and `stages`.
"""

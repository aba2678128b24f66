"""Chinese characters in figures: by an installed font that has them, or as code points."""

import warnings

import pytest
from matplotlib.figure import Figure

from canon.plots import saving


@pytest.mark.parametrize(('family', 'shown'), [('STIXGeneral', '啊 → 阿 0.9'), (None, 'U+554A → U+963F 0.9')])
def test_texts_have_a_font_for_their_characters(family, shown, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, '_find_chinese_family', lambda: family)
    figure = Figure(figsize=(2, 1))
    axes = figure.add_subplot()
    axes.set_title('啊 → 阿 0.9')
    axes.set_xlabel('plain')
    with warnings.catch_warnings():
        # STIX stands for a Chinese font here, and lacks the characters.
        warnings.simplefilter('ignore' if family else 'error')
        saving.save_content(figure, tmp_path / 'figure.png')
    assert axes.get_title() == shown
    assert axes.title.get_fontfamily()[1:] == ([family] if family else [])
    assert len(axes.xaxis.label.get_fontfamily()) == 1

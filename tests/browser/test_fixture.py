"""The browser of the tests sees what a page draws, and reports what it misses."""

from tests.browser.conftest import read_console_errors


def test_a_page_runs_its_script_and_a_missing_picture_is_an_error(browser, serve, tmp_path):
    (tmp_path / 'good.html').write_text('<p id=p>a</p><script>document.getElementById("p").textContent += "b"</script>')
    (tmp_path / 'bad.html').write_text('<img src=missing.png>')
    address = serve(tmp_path)
    browser.get(f'{address}/good.html')
    assert browser.find_element('id', 'p').text == 'ab'
    assert read_console_errors(browser) == []
    browser.get(f'{address}/bad.html')
    (error,) = read_console_errors(browser)
    assert 'missing.png' in error

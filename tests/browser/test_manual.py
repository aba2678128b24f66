"""The manual, built as `./launch.sh docs` builds it: sound, complete, of this host alone, and searchable."""

import pytest

from launch import docs, reference
from tests.browser.conftest import read_console_errors

pytest.importorskip('mkdocs')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """The folder of the built manual: strict, so that any warning of a page or a docstring is an error."""
    folder = tmp_path_factory.mktemp('manual') / 'site'
    docs.build_site(folder)
    return folder


def test_no_link_or_picture_leads_nowhere(site):
    assert list(docs.check_site(site)) == []
    assert len(list(site.rglob('*.html'))) > 70


def test_a_broken_link_and_another_host_are_noticed(site, tmp_path):
    folder = tmp_path / 'site'
    folder.mkdir()
    page = '<a id="top" href="gone.html">x</a><a href="#bottom">y</a><img src="none.png"><a href="#top">z</a>'
    (folder / 'index.html').write_text(page + '<script src="https://example.org/x.js"></script>')
    problems = list(docs.check_site(folder))
    assert len(problems) == 4
    assert [problem.rpartition(' ')[2] for problem in problems] == ['exist', 'anchor', 'exist', 'host']


def test_every_public_name_is_on_its_page(site):
    for page in reference.list_pages():
        ids = docs.read_links(site / page.path.replace('.md', '.html')).ids
        missing = {f'{page.package}.{name}' for name in page.names} - ids
        missing |= {f'{module}.{name}' for module, names in page.modules.items() for name in names} - ids
        assert not missing


def test_search_finds_pages_and_pictures_load(site, browser, serve):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    address = serve(site)
    browser.get(f'{address}/index.html')
    broken = 'return [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)'
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(broken) == [])
    field = browser.find_element(By.CSS_SELECTOR, '.md-search__input')
    field.click()
    field.send_keys('schedule_free')
    results = WebDriverWait(browser, 60).until(
        lambda driver: driver.find_elements(By.CSS_SELECTOR, '.md-search-result__item a')
    )
    assert any('optim' in result.get_attribute('href') for result in results)
    assert read_console_errors(browser) == []


def test_it_opens_at_the_place_of_a_name(site, browser, serve):
    browser.get(f'{serve(site)}/reference/optim.html#canon.optim.adam')
    top = 'return document.getElementById("canon.optim.adam").getBoundingClientRect().top'
    assert -5 < browser.execute_script(top) < 900
    assert browser.find_element('tag name', 'h1').text.startswith('canon.optim')

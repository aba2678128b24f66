"""The page of several runs in a browser: a run that is clicked away takes its curve, its row and its picture along."""

from selenium.webdriver import ActionChains

from launch import compare
from tests.browser.conftest import read_console_errors
from tests.launch.runs import make_curve, make_run


def test_a_click_on_a_name_hides_the_run_everywhere(browser, tmp_path):
    for i, values in enumerate(([0.1, 0.3, 0.9], [0.2, 0.4, 0.6])):
        picture = ('test-example', (300, 100), (250, 0, 90 * i))
        make_run(
            tmp_path / f'r{i}', overrides={'seed': i}, settings={'seed': i}, rows=make_curve(values), picture=picture
        )
    make_run(tmp_path / 'bad', state='failed', rows=make_curve([float('nan')], 'train/loss'))
    compare.main([str(tmp_path)])
    browser.get(f'file://{tmp_path}/compare.html')

    def list_shown(selector):
        return [
            e.get_attribute('data-run') for e in browser.find_elements('css selector', selector) if e.is_displayed()
        ]

    panel = '[data-metric="test/accuracy"] path'
    assert list_shown(panel) == ['0', '1']
    assert list_shown('figure') == ['0', '1']
    first = browser.find_element('css selector', 'button[data-run="0"]')
    first.click()
    assert list_shown(panel) == ['1']
    assert list_shown('figure') == ['1']
    assert list_shown('#results tr[data-run]') == ['1', '2']
    first.click()
    assert list_shown(panel) == ['0', '1']
    ActionChains(browser).double_click(browser.find_element('css selector', 'button[data-run="1"]')).perform()
    assert list_shown(panel) == ['1']
    browser.find_element('id', 'all').click()
    before = browser.find_element('css selector', panel).get_attribute('d')
    browser.find_element('id', 'log').click()
    assert browser.find_element('css selector', panel).get_attribute('d') != before
    header = browser.find_element('xpath', '//th[.="test/accuracy"]')
    header.click()  # the best run is first: now it is the last of those that have a value
    assert list_shown('#results tr[data-run]') == ['1', '0', '2']
    assert read_console_errors(browser) == []

"""The report of a running run in a browser."""

from selenium.common import WebDriverException
from selenium.webdriver.support.ui import WebDriverWait

from canon.train import write_report
from canon.train.workdir import write_json
from tests.browser.conftest import read_console_errors
from tests.launch.runs import make_curve, make_run


def test_the_page_follows_the_run_keeps_its_place_and_rests_when_it_is_done(browser, tmp_path):
    run = make_run(tmp_path / 'run', state='running', rows=make_curve([0.5] * 3), settings={'a': list(range(300))})

    def is_done_at_its_place(browser):
        state = browser.execute_script('return [document.querySelector(".state")?.textContent.trim(), scrollY]')
        # The browser keeps the text in place: a page that loses a line of tiles above is scrolled by less.
        return state[0].startswith('done at step 9') and abs(state[1] - 700) < 100

    write_report(run)
    browser.get(f'file://{run}/report.html')
    browser.execute_script('scrollTo(0, 700)')
    write_json(run / 'status.json', {'state': 'done', 'step': 9, 'steps': 9})
    write_report(run)
    browser.execute_script('follow()')  # what its timer calls after half a minute
    WebDriverWait(browser, 120, ignored_exceptions=[WebDriverException]).until(is_done_at_its_place)
    assert 'reload()' not in browser.page_source
    assert read_console_errors(browser) == []

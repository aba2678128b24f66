"""A headless Chromium for the tests of pages, and a server of a folder on the loopback."""

import functools
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.needs import skip_unless_needed


def pytest_collection_modifyitems(items):
    """Marks every test of this directory as `browser`."""
    for item in items:
        if '/tests/browser/' in item.path.as_posix():
            item.add_marker(pytest.mark.browser)


def explain_missing() -> str:
    """Returns why no browser can be driven here, or ''."""
    absent = [name for name in ('chromium', 'chromedriver') if not shutil.which(name)]
    if absent:
        return f'no {" and no ".join(absent)}: apt-get install chromium chromium-driver'
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "no selenium: pip install '.[test]'"
    return ''


@pytest.fixture(scope='session')
def _chromium(tmp_path_factory):
    """Starts one headless Chromium for all tests."""
    skip_unless_needed('CANON_BROWSER', explain_missing())
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which('chromium')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    words = ['--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--window-size=1200,900']
    words += ['--enable-unsafe-swiftshader', '--disable-background-networking', '--proxy-server=direct://']
    words += [f'--user-data-dir={tmp_path_factory.mktemp("chromium")}']
    for word in words:
        options.add_argument(word)
    service = webdriver.ChromeService(executable_path=shutil.which('chromedriver'))  # else selenium would look for one
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def browser(_chromium):
    """A Selenium driver of a headless Chromium of 1200 x 900 pixels; `read_console_errors(browser)` must stay empty."""
    _chromium.get('about:blank')
    _chromium.get_log('browser')  # empties it
    yield _chromium
    _chromium.get('about:blank')


@pytest.fixture
def serve():
    """Returns a function that serves a folder on a free port of the loopback and returns its address."""
    servers = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            del args

    def start(folder) -> str:
        server = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f'http://127.0.0.1:{server.server_address[1]}'

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def read_console_errors(browser) -> list[str]:
    """Returns what the page wrote to the console as an error since the last call, a missing favicon aside."""
    lines = [entry['message'] for entry in browser.get_log('browser') if entry['level'] == 'SEVERE']
    return [line for line in lines if 'favicon.ico' not in line]

"""A trained volume in a browser: frames arrive, a drag changes the picture, and a path of cameras becomes a video."""

import io
import socket
import time

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import ActionChains

from canon.configuration import load_config
from canon.train import fit
from experiments import volume_rendering
from launch import view

pytestmark = pytest.mark.slow
_PATIENCE = 300  # seconds; a limit for what hangs, not for what is slow


def wait_for(check):
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        result = check()
        if result is not None and result is not False:
            return result
        time.sleep(0.3)
    raise AssertionError('nothing came')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The folder of a volume that was trained for a few steps."""
    config = load_config('configs/volume_rendering/phantom.py:smoke')
    config.data.update(dict(picture=16, views=4, batch_size=64))
    config.data.source.size = 16
    config.run.steps = '30 steps'
    folder = tmp_path_factory.mktemp('phantom')
    fit(volume_rendering.make(config), config, folder, quiet=True)
    return folder


def take_picture(browser):
    """The middle of what the canvas shows, where the scene is."""
    picture = np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert('RGB'), float)
    return picture[200:600, 320:700]


def test_a_drag_changes_the_picture_and_a_path_becomes_a_video(browser, run):
    from canon.rendering.viewer import Viewer

    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    viewer = Viewer(view.load_scene(run), port, lambda frames: view.save_video(run / 'views', frames))
    try:
        browser.get(viewer.address)
        notice = '//*[starts-with(normalize-space(text()), "preparing the renderer of")]'
        wait_for(lambda: browser.find_elements('xpath', notice))
        wait_for(lambda: viewer.frames_sent >= 2)
        before = wait_for(lambda: picture if np.ptp(picture := take_picture(browser)) > 20 else None)
        wait_for(lambda: not browser.find_elements('xpath', notice))
        sent = viewer.frames_sent
        canvas = browser.find_element('css selector', 'canvas')
        ActionChains(browser).move_to_element(canvas).click_and_hold().move_by_offset(160, 60).release().perform()
        wait_for(lambda: viewer.frames_sent > sent)
        wait_for(lambda: np.abs(take_picture(browser) - before).mean() > 1)
        viewer._seconds.value, viewer._side.value = 0.5, '256'
        for label in ('camera path', 'add this view', 'record a video'):
            place = f'//*[normalize-space(text())="{label}"]'
            wait_for(lambda place=place: browser.find_elements('xpath', place) or None)[-1].click()
            wait_for(lambda label=label: label != 'add this view' or len(viewer._keys) == 1)
        path = wait_for(lambda: next(iter((run / 'views').glob('path-*.mp4')), None))
        assert path.name == 'path-1.mp4'
        assert path.stat().st_size > 1000
    finally:
        viewer.stop()

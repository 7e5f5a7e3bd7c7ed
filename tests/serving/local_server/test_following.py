"""How the command follows its model's directory while it runs."""

import threading

from fake_server import FakeVersions, wait_for

from serving.local_server import __main__ as local_server

URL = "http://localhost:8501"


class Counted(FakeVersions):
    """Counts the looks at its directory; the first ones fail, and the sixth finds another version."""

    looks = 0
    failing = 0

    def poll(self):
        self.looks += 1
        if self.looks <= self.failing:
            raise RuntimeError("a defect")
        self.serving = 3 if self.looks < 6 else 4


def test_nothing_ends_the_following(caplog, capsys):
    model = Counted(serving=None)
    model.failing = 2
    follower = (model, 0.01, URL)
    threading.Thread(target=local_server._follow, args=follower, daemon=True).start()
    wait_for(lambda: model.looks > 8)
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("looking for versions of wflw failed") == 2
    path = f"of wflw serves at {URL}/v1/models/wflw:predict"
    assert capsys.readouterr().out.splitlines() == [f"version {n} {path}" for n in (3, 4)]


def test_no_pause_is_one_look():
    model = Counted()
    local_server._follow(model, 0, URL)
    assert model.looks == 1

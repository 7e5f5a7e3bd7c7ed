"""How the server follows its models' directories and its configuration while it runs."""

from fake_server import FakeVersions, running, wait_for

from serving.local_server.application import create_app


class Counted(FakeVersions):
    """Counts the looks at its directory; the first ones fail."""

    looks = 0
    failing = 0

    def poll(self):
        self.looks += 1
        if self.looks <= self.failing:
            raise RuntimeError("a defect")


class Configured(dict):
    """Models whose configuration is read again; tells, one after another, what `answers` holds."""

    def __init__(self, *answers, **models):
        super().__init__(models)
        self.answers = list(answers)
        self.read = 0

    def reload(self):
        self.read += 1
        answer = self.answers.pop(0) if self.answers else False
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_nothing_ends_the_following(caplog):
    model = Counted()
    model.failing = 2
    models = Configured(RuntimeError("first"), OSError("second"), wflw=model)
    with running(create_app(models, poll_seconds=0.01, reload=models.reload, reload_seconds=0.01)):
        wait_for(lambda: model.looks > 4 and models.read > 4)
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("looking for versions of wflw failed") == 2
    assert messages.count("reading the configuration failed") == 2


def test_no_seconds_are_one_look_and_one_more_after_a_change():
    model = Counted()
    models = Configured(False, False, True, wflw=model)
    with running(create_app(models, poll_seconds=0, reload=models.reload, reload_seconds=0.01)):
        wait_for(lambda: models.read > 10)
    assert model.looks == 2


def test_no_seconds_at_all_are_one_look():
    model, often = Counted(), Counted()
    with running(create_app({"wflw": model}, poll_seconds=0)):
        wait_for(lambda: model.looks)
        with running(create_app({"wflw": often}, poll_seconds=0.01)):
            wait_for(lambda: often.looks > 20)
    assert model.looks == 1

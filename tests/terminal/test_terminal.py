"""Tests the progress display with a clock that the tests advance."""

import functools
import io

from rich.console import Console, Group

from resnet import events
from resnet.host import messages
from resnet.study import Job, Study
from resnet.terminal.display import Display

LOGS = {"loss": 0.512, "accuracy": 0.831, "learning_rate": 0.0002}
SUMMARY = {"test_accuracy": 0.7301, "epochs_run": 2, "train_seconds": 9.0}


class Shown:
    def __init__(self, *jobs, tty=True, published=None):
        self.now, self.file = 1000.0, io.StringIO()
        self.console = Console(
            file=self.file,
            force_terminal=tty,
            width=80,
            height=24,
            color_system=None,
            get_time=lambda: self.now,
        )
        self.display = Display(self.console, list(jobs), published)
        self.display.live.auto_refresh = False

    def __call__(self, event, after=0):
        self.now += after
        self.display(event)

    def pane(self):
        with self.console.capture() as capture:
            self.console.print(Group(*self.display.get_renderables()))
        lines = capture.get().splitlines()
        assert max(map(len, lines)) <= self.console.width
        assert len(lines) < self.console.height
        return "\n".join(lines)

    @property
    def lines(self):
        return self.file.getvalue().splitlines()


experiment = functools.cache(Study.open().experiment)


def job(name, seed=0):
    return Job(experiment(name), seed)


def record(epoch, val_accuracy):
    figures = {"loss": 1.0, "accuracy": 0.6, "val_loss": 1.1, "val_accuracy": val_accuracy}
    return {"epoch": epoch, "epoch_seconds": 20.0, "images_per_second": 400.0} | figures


def test_a_job_is_shown_from_waiting_to_its_accuracy():
    one, two = job("01_template"), job("05_deeper_dropout")
    shown = Shown(one, two, published={"01_template": 0.723})
    assert shown.pane().count("waiting") == 2
    shown(events.Started(one))
    shown.now += 12
    assert "compiling, 12 s" in shown.pane()
    shown(events.Progress(one, 1, 1, 1250, LOGS))
    for step in (101, 102):
        shown(events.Progress(one, 1, step, 1250, LOGS), after=5)
    text = shown.pane()
    assert "step 102/1250, 640 images/s, loss 0.512, accuracy 83.1 %, rate 0.0002" in text
    assert "1/25" in text
    shown(events.Phase(one, "validating", 0, 40))
    shown(events.Phase(one, "validating", 17, 40), after=5)
    assert "validating 17/40, 5 s" in shown.pane()
    history = [record(1, 0.62), record(2, 0.58)]
    shown(events.Epoch(one, history[:1]))
    shown(events.Epoch(one, history))
    assert "58.0 %  62.0 %" in shown.pane()  # the last and the best accuracy
    told = "1/2 epoch 2/25: loss 1.000, val 1.100; accuracy 60.0 %, val 58.0 %"
    assert shown.lines[-1] == told  # the message fits on one line
    shown(events.Phase(one, "recording"))
    shown.now += 3
    assert "recording, 3 s" in shown.pane()
    shown(events.Finished(one, SUMMARY))
    text = shown.pane()
    assert "73.0 %    72.3 %" in text
    assert "1 of 2 done" in text


def test_the_time_left_follows_the_speed_so_far():
    one, two = job("01_template"), job("02_augmentation")
    shown = Shown(one, two)
    shown(events.Started(one))
    assert "left" not in shown.pane()
    shown(events.Resumed(one, 0, [record(n, 0.5) for n in (1, 2, 3)], 0, {}, True), after=30)
    shown(events.Progress(one, 4, 0, 1250, LOGS), after=30)  # these 30 s include compiling
    assert "4/25" in shown.pane()
    assert "left" not in shown.pane()
    shown(events.Epoch(one, [record(n, 0.5) for n in (1, 2, 3, 4)]), after=20)
    assert f"about {messages.duration(20 * (21 + 25))} left" in shown.pane()
    shown(events.Finished(one, SUMMARY))  # early stopping ended the run
    assert f"about {messages.duration(20 * 25)} left" in shown.pane()


def test_a_job_with_nothing_left_to_train_says_so():
    shown = Shown(of := job("03_deeper_early_stopping"))
    shared = [record(n, 0.5) for n in (1, 2, 3)]  # epochs of another run, which stopped early
    shown(events.Resumed(of, 0, shared, 3, {}, False))
    told = " ".join(shown.file.getvalue().split())
    assert told.endswith("shares 3 epochs with another run; nothing left to train")


def test_a_hundred_jobs_fit_a_terminal():
    jobs = [job(name, seed) for seed in range(20) for name in list(Study.open().files)[:5]]
    shown = Shown(*jobs)
    for of in jobs[:50]:
        shown(events.Skipped(of, "0" * 32, 0.9))
    for of in jobs[50:53]:
        shown(events.Started(of, 3))
    shown(events.Failed(jobs[54], "no room"))
    assert "at most 25 epochs, in one of 3 lanes" in " ".join(shown.file.getvalue().split())
    text = shown.pane()
    counts = {"compiling": 3, "failed": 1, "✓": 2, "51 of 100 done": 1}
    assert {word: text.count(word) for word in counts} == counts
    assert text.count("waiting") > 5


def test_a_pipe_gets_plain_lines():
    of = job("01_template")
    shown = Shown(of, tty=False)
    with shown.display:
        shown(events.Started(of))
        shown(events.Progress(of, 1, 1, 1250, LOGS))
        shown(events.Phase(of, "validating", 0, 40))
        shown(events.Epoch(of, [record(1, 0.62)]))
        shown(events.Finished(of, SUMMARY))
    assert shown.lines == [
        "1/1 Template  training, at most 25 epochs",
        "1/1 Template  epoch 1/25: loss 1.000, val 1.100; accuracy 60.0 %, val 62.0 %, "
        "400 images/s",
        "1/1 Template  test accuracy 73.01% after 2 epochs, 9 s",
    ]

"""What is shown while a ladder runs, with a clock of the test's own."""

import io

import pytest
from rich.console import Console

from resnet import events
from resnet.host import shell
from resnet.study import Job, Study
from resnet.terminal.display import Display


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("resnet.terminal.display.time", clock)
    return clock


def job(name, seed=0):
    return Job(Study.open().experiment(name), seed)


def display(jobs, tty=True, width=80, height=24, **options):
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=tty, width=width, height=height, color_system=None
    )  # fmt: skip
    made = Display(console, jobs, **options)
    made.live.auto_refresh = False
    return made, file


def pane(shown):
    with shown.console.capture() as capture:
        shown.console.print(shown.render())
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= shown.console.width
    assert len(lines) <= shown.console.height
    return "\n".join(lines)


def record(epoch, val_accuracy, seconds=20.0):
    figures = {"loss": 1.0, "accuracy": 0.6, "val_loss": 1.1, "val_accuracy": val_accuracy}
    return {"epoch": epoch, "epoch_seconds": seconds, "images_per_second": 400.0} | figures


def progress(of, epoch, step):
    logs = {"loss": 0.512, "accuracy": 0.831, "learning_rate": 0.0002}
    return events.Progress(of, epoch, step, 1250, logs)


def test_a_job_is_shown_from_waiting_to_its_accuracy(clock):
    one, two = job("01_template"), job("05_deeper_dropout")
    shown, file = display([one, two], published={"01_template": 0.723})
    assert pane(shown).count("waiting") == 2
    shown(events.Started(one))
    clock.now += 12
    assert "compiling, 12 s" in pane(shown)
    shown(progress(one, 1, 1))
    clock.now += 10
    shown(progress(one, 1, 101))
    text = pane(shown)
    assert "step 101/1250, 320 images/s, loss 0.512, accuracy 83.1 %, rate 0.0002" in text
    assert "1/25" in text
    shown(events.Phase(one, "validating", 0, 40))
    clock.now += 5
    shown(events.Phase(one, "validating", 17, 40))
    assert "validating 17/40, 5 s" in pane(shown)
    history = [record(1, 0.62), record(2, 0.58)]
    shown(events.Epoch(one, history[:1]))
    shown(events.Epoch(one, history))
    text = pane(shown)
    assert "58.0 %  62.0 %" in text  # the last and the best
    assert file.getvalue().count("epoch ") == 2
    shown(events.Phase(one, "recording"))
    clock.now += 3
    assert "recording, 3 s" in pane(shown)
    shown(events.Finished(one, {"test_accuracy": 0.7301, "epochs_run": 2, "train_seconds": 9.0}))
    text = pane(shown)
    assert "73.0 %    72.3 %" in text
    assert "1 of 2 done" in text


def test_the_time_left_is_that_of_what_was_measured(clock):
    jobs = [job("01_template"), job("02_augmentation"), job("05_deeper_dropout")]
    shown, _ = display(jobs)
    assert "left" not in pane(shown)
    shown(events.Started(jobs[0]))
    clock.now += 30  # to compile
    shown(progress(jobs[0], 1, 1))
    for epoch in (1, 2):
        shown(events.Epoch(jobs[0], [record(n + 1, 0.5) for n in range(epoch)]))
    # 23 epochs are left here, 25 and 75 to come, of 20 s each, and two compilations
    seconds = 20 * (23 + 25 + 75) + 2 * 30
    assert f"about {shell.duration(seconds)} left" in pane(shown)


def test_runs_side_by_side_share_the_time_left_but_for_the_last(clock):
    jobs = [job("01_template", seed) for seed in range(4)]
    shown, file = display(jobs)
    for of in jobs[:2]:
        shown(events.Started(of, 2))
    assert "at most 25 epochs, in one of 2 lanes" in " ".join(file.getvalue().split())
    clock.now += 30  # to compile
    for of in jobs[:2]:
        shown(progress(of, 1, 1))
        for epoch in (1, 2):
            shown(events.Epoch(of, [record(n + 1, 0.5) for n in range(epoch)]))
    # two lanes have 23 epochs of 20 s left each, and take on one more run each
    assert f"about {shell.duration(20 * (23 + 25) + 30)} left" in pane(shown)
    for of in jobs[:2]:
        shown(progress(of, 3, 0))
    clock.now += 10
    for of in jobs[:2]:
        shown(progress(of, 3, 100))
    assert "2 side by side, 640 images/s in all" in pane(shown)
    shown(events.Started(jobs[2], 2))
    for of in jobs[:3]:
        shown(events.Finished(of, {"test_accuracy": 0.7, "epochs_run": 25, "train_seconds": 9.0}))
    shown(events.Started(jobs[3], 2))
    shown(progress(jobs[3], 16, 0))
    assert f"about {shell.duration(20 * 10)} left" in pane(shown)
    assert "side by side" not in pane(shown)


def test_a_resumed_job_shows_the_epochs_done(clock):
    of = job("01_template")
    shown, _ = display([of])
    shown(events.Started(of))
    shown(events.Resumed(of, 10, [record(n, 0.5) for n in (1, 2, 3)], 0, {}, True))
    assert "3/25" in pane(shown)
    shown(progress(of, 4, 11))
    assert "4/25" in pane(shown)


def test_a_job_with_nothing_left_to_train_does_not_go_on(clock):
    shown, file = display([of := job("03_deeper_early_stopping")])
    shared = [record(n, 0.5) for n in (1, 2, 3)]  # another run's, and early stopping triggered
    shown(events.Resumed(of, 0, shared, 3, {}, False))
    told = " ".join(file.getvalue().split())
    assert told.endswith("shares 3 epochs with another run; nothing left to train")


@pytest.mark.parametrize("width", [80, 120])
def test_a_hundred_jobs_fit_a_terminal(clock, width):
    jobs = [job(name, seed) for seed in range(20) for name in list(Study.open().files)[:5]]
    shown, _ = display(jobs, width=width)
    for of in jobs[:50]:
        shown(events.Skipped(of, "0" * 32, 0.9))
    for of in jobs[50:53]:
        shown(events.Started(of))
    text = pane(shown)
    assert text.count("compiling") == 3
    assert "50 of 100 done" in text
    hidden = text[text.index("  and ") :].splitlines()[0]
    assert text.count("waiting") + text.count("✓") > 5
    assert "waiting" in hidden


def test_a_pipe_gets_plain_lines(clock):
    of = job("01_template")
    shown, file = display([of], tty=False)
    with shown:
        shown(events.Started(of))
        shown(progress(of, 1, 1))
        shown(events.Phase(of, "validating", 0, 40))
        shown(events.Epoch(of, [record(1, 0.62)]))
        shown(events.Finished(of, {"test_accuracy": 0.7301, "epochs_run": 1, "train_seconds": 9.0}))
    assert file.getvalue().splitlines() == [
        "1/1 Template  training, at most 25 epochs",
        "1/1 Template  epoch 1/25: loss 1.0000, accuracy 0.6000, val_loss 1.1000, "
        "val_accuracy 0.6200, 400 images/s",
        "1/1 Template  test accuracy 73.01% after 1 epoch, 9 s",
    ]

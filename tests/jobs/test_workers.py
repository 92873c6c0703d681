"""Workers are replaced as they die, and only a standstill on a machine that runs counts."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from pipeline.jobs.workers import CannotStart, Crew, Died, Done, StandstillWatch


def nothing() -> None:
    pass


def fail_to_start() -> None:
    os._exit(3)


def find_the_disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def double(number: int) -> int:
    return 2 * number


def first_idle(crew: Crew):
    while not crew.idle():
        assert crew.wait(60.0) == []
    return crew.idle()[0]


def answered(crew: Crew):
    while True:
        ended = crew.wait(60.0)
        if ended:
            return ended


def test_a_worker_that_is_killed_between_tasks_is_replaced():
    with Crew(1, [], nothing, ()) as crew:
        first = first_idle(crew)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.join()
        assert crew.wait(60.0) == []
        second = first_idle(crew)
        assert second is not first
        second.give("a", double, (21,))
        assert answered(crew) == [("a", second, Done(42))]


def test_a_task_that_is_given_to_a_dead_worker_is_not_lost():
    with Crew(1, [], nothing, ()) as crew:
        worker = first_idle(crew)
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.join()
        worker.give("a", double, (21,))
        ((task, _, end),) = answered(crew)
        assert task == "a" and isinstance(end, Died) and end.exit_code == -signal.SIGKILL


def test_workers_that_never_get_ready_are_given_up():
    with Crew(2, [], fail_to_start, ()) as crew, pytest.raises(CannotStart, match="exit code 3"):
        first_idle(crew)


def test_what_keeps_a_worker_from_starting_is_passed_on():
    with Crew(1, [], find_the_disk_full, ()) as crew, pytest.raises(OSError, match="No space left"):
        first_idle(crew)


def test_processes_that_cannot_be_forked_are_given_up(monkeypatch):
    def refuse(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    with Crew(1, [], nothing, ()) as crew:
        monkeypatch.setattr(crew._context.Process, "start", refuse)
        with pytest.raises(CannotStart, match="temporarily unavailable"):
            crew.idle()


def test_workers_do_not_hear_the_signals_that_stop_a_job():
    with Crew(1, [], nothing, ()) as crew:
        worker = first_idle(crew)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            os.kill(worker.process.pid, number)
        worker.give("a", double, (1,))
        assert answered(crew) == [("a", worker, Done(2))]
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def stood_still(looks: list[tuple[float, float, str]]) -> float:
    """looks: (seconds passed, CPU seconds used meanwhile, state)."""
    watch, now, cpu = StandstillWatch(100.0, 7.0), 100.0, 7.0
    for passed, used, state in looks:
        now += passed
        cpu += used
        watch.look(now, cpu, state)
    return watch.seconds


def test_only_a_worker_that_could_go_on_and_does_not_stands_still():
    assert stood_still([(0.5, 0.0, "S")] * 10) == pytest.approx(5.0)
    assert stood_still([(0.5, 0.4, "R")] * 10) == 0.0
    assert stood_still([(0.5, 0.0, "D")] * 10) == 0.0  # its disk lets it wait
    assert stood_still([(0.5, 0.0, "T")] * 10) == 0.0  # it was stopped
    assert stood_still([(0.5, 0.0, "S")] * 10 + [(0.5, 0.1, "R")]) == 0.0
    assert stood_still([(0.5, 0.01, "S")] + [(0.5, 0.0, "S")] * 9) == pytest.approx(4.5)
    # Waking up now and then, to wait on, is no progress.
    assert stood_still(([(0.5, 0.0, "S")] * 20 + [(0.5, 0.01, "S")]) * 3) > 30


def test_a_suspension_or_a_clock_that_jumps_adds_one_look_at_the_most():
    assert stood_still([(0.5, 0.0, "S"), (86400.0, 0.0, "S"), (0.5, 0.0, "S")]) == pytest.approx(2.0)

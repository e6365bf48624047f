"""Which watches are notified of a job's changes."""

from __future__ import annotations

from gptoss_bento.jobs.watchers import Changes


def test_notification_reaches_all_that_wait_for_the_job() -> None:
    changes = Changes()
    with changes.of("a") as first, changes.of("a") as second, changes.of("b") as other:
        changes.notify(["a", "unknown"])

        assert (first.changed.is_set(), second.changed.is_set(), other.changed.is_set()) == (True, True, False)
        assert sorted(changes.watched) == ["a", "b"]
    assert changes.watched == []


def test_poll_notifies_of_what_another_process_did() -> None:
    changes = Changes()
    with changes.of("a") as watch:
        changes.compare({"a": 1})
        assert watch.changed.is_set(), "it may have changed before the first look"
        watch.changed.clear()
        changes.compare({"a": 1})
        assert not watch.changed.is_set()
        changes.compare({"a": 2})
        assert watch.changed.is_set()

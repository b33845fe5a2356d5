# SPDX-License-Identifier: MIT
"""Pool(logging=…): what workers log is handled by their owner's handlers."""
import gc
import logging
import os
import pickle
import signal
import threading

import pytest

import brood as mp
from brood import _equipment, _logging
from programs import METHODS, run_program
from support import child, ended, until

WITHIN = 30


@pytest.fixture(params=METHODS)
def method(request):
    """Each start method in turn."""
    return request.param


class Keeper(logging.Handler):
    """Keeps the records that it is given."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    @property
    def messages(self):
        return [record.getMessage() for record in self.records]


def relay_threads():
    """The threads that relay, of all pools."""
    return [thread for thread in threading.enumerate() if thread.name == "brood-logging"]


@pytest.fixture
def root():
    """A handler of the root logger, which alone has handlers; afterwards everything is as it was."""
    loggers = [logging.root, *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    before = [(one, one.level, one.propagate, one.disabled, one.handlers[:], one.filters[:]) for one in loggers]
    keeper = Keeper()
    for one in loggers:
        one.handlers[:] = [keeper] if one is logging.root else []
    logging.root.setLevel(logging.INFO)
    yield keeper
    for one in list(logging.root.manager.loggerDict.values()):
        if isinstance(one, logging.Logger):
            one.level, one.propagate, one.disabled, one.handlers[:], one.filters[:] = logging.NOTSET, True, False, [], []
    for one, level, propagate, disabled, handlers, filters in before:
        one.level, one.propagate, one.disabled, one.handlers[:], one.filters[:] = level, propagate, disabled, handlers, filters
    logging.disable(logging.NOTSET)
    logging.root.manager._clear_cache()
    assert relay_threads() == []


def say(number, name="app.part", level=logging.INFO):
    logging.getLogger(name).log(level, "number %d", number)
    return os.getpid()


def say_many(first, count):
    for number in range(first, first + count):
        say(number)


def run_all(method, function, items, workers=2, **options):
    """Map a function over the items, end the pool, return what it returned."""
    with mp.get_context(method).Pool(workers, **options) as pool:
        values = pool.map(function, items, chunksize=1)
        pool.close()
        pool.join()
    return values


# ---- what arrives ----


def test_all_records_are_there_after_join_in_order_of_each_worker(method, root):
    with mp.get_context(method).Pool(3, logging=True) as pool:
        pool.starmap_async(say_many, [(first, 50) for first in range(0, 1000, 50)], chunksize=1)
        pool.close()
        pool.join()
    assert sorted(root.messages) == sorted(f"number {number}" for number in range(1000))
    for pid in {record.process for record in root.records}:
        times = [record.created for record in root.records if record.process == pid]
        assert times == sorted(times)
    for first in range(0, 1000, 50):  # within a task
        numbers = [int(text.split()[1]) for text in root.messages if first <= int(text.split()[1]) < first + 50]
        assert numbers == sorted(numbers)


def test_records_say_who_logged_them(method, root):
    pids = run_all(method, say, range(6), logging=True)
    assert {record.process for record in root.records} == set(pids) and os.getpid() not in pids
    for record in root.records:
        assert record.processName == f"{method.capitalize()}PoolWorker-{record.process}"
        assert (record.name, record.levelname, record.funcName) == ("app.part", "INFO", "say")
        assert record.pathname == __file__ and record.threadName == "MainThread"


def test_records_are_there_at_the_end_by_terminate(method, root):
    with mp.get_context(method).Pool(2, logging=True) as pool:
        pool.map(say, range(40))
    assert len(root.records) == 40


def say_and_die(number):
    say_many(0, number)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_worker_has_logged_is_there(method, root):
    with mp.get_context(method).Pool(1, logging=True) as pool:
        for _ in range(3):  # its replacements, too
            with pytest.raises(mp.WorkerDied):
                pool.apply(say_and_die, (30,))
    assert root.messages == [f"number {number}" for number in range(30)] * 3


def test_what_a_worker_that_is_renewed_has_logged_is_there(method, root):
    pids = run_all(method, say, range(12), maxtasksperchild=2, logging=True)
    assert len(set(pids)) >= 6 and sorted(root.messages) == sorted(f"number {number}" for number in range(12))


def test_initializers_log_too(method, root):
    with mp.get_context(method).Pool(2, initializer=say, initargs=(7,), logging=True) as pool:
        pool.close()
        pool.join()
    assert root.messages == ["number 7"] * 2  # without a job, and so without a thread


class Unpicklable:
    """Has no pickle, but a text."""

    def __reduce__(self):
        raise TypeError("no pickle")

    def __repr__(self):
        return "<one of a kind>"


class Unreadable:
    """Pickles, but does not unpickle."""

    def __reduce__(self):
        return pickle.loads, (b"",)


class Mute:
    """Has neither."""

    __reduce__ = Unpicklable.__reduce__

    def __repr__(self):
        raise ValueError("no text")


def log_an_exception(_):
    try:
        raise KeyError("lost")
    except KeyError:
        logging.getLogger("app").exception("of %s", Unpicklable(), stack_info=True,
                                           extra={"thing": Unpicklable(), "odd": Unreadable(), "mute": Mute(), "plain": [1, 2]})


def test_exceptions_and_what_has_no_pickle(method, root):
    run_all(method, log_an_exception, [1], logging=True)
    record, = root.records
    text = logging.Formatter("%(message)s").format(record)
    assert text.startswith("of <one of a kind>\nTraceback") and "KeyError: 'lost'" in text and "in log_an_exception" in text
    assert record.exc_info is None and record.args is None and "in log_an_exception" in record.stack_info
    assert (record.thing, record.plain) == ("<one of a kind>", [1, 2])
    assert "cannot be unpickled" in record.odd and "TypeError" not in record.mute and "ValueError" in record.mute


def log_badly(_):
    logging.getLogger("app").info("%d", "no number")
    logging.getLogger("app").info("still %s", "there")


def test_a_call_that_is_wrong_harms_only_itself(root, capfd):
    run_all("fork", log_badly, [1], logging=True)
    assert root.messages == ["still there"]
    assert "--- Logging error ---" in capfd.readouterr().err


# ---- levels, filters, propagation ----


def log_everywhere(_):
    for name in ("app", "app.quiet", "app.own", "app.off", "other"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger(name).log(level, "%s %d", name, level)


def configure():
    """Loggers of all sorts; what their own handler gets."""
    own = Keeper()
    logging.getLogger("app").setLevel(logging.DEBUG)
    logging.getLogger("app.quiet").setLevel(logging.WARNING)
    logging.getLogger("app.own").propagate = False
    logging.getLogger("app.own").addHandler(own)
    logging.getLogger("app.off").disabled = True
    return own


def test_a_worker_logs_what_its_owner_would(method, root):
    own = configure()
    log_everywhere(0)
    here = root.messages, own.messages
    root.records, own.records = [], []
    run_all(method, log_everywhere, [0], logging=True)
    assert (root.messages, own.messages) == here
    assert own.messages == ["app.own 10", "app.own 20", "app.own 30"] and "app.quiet 20" not in root.messages


def test_logging_that_is_disabled_is_disabled_in_workers(method, root):
    logging.disable(logging.INFO)
    run_all(method, log_everywhere, [0], logging=True)
    assert root.messages == [f"{name} 30" for name in ("app", "app.quiet", "app.own", "app.off", "other")]


@pytest.mark.parametrize("level", ["WARNING", logging.WARNING])
def test_a_level_is_the_least_that_is_relayed(method, root, level):
    own = configure()
    run_all(method, log_everywhere, [0], logging=level)
    assert root.messages == ["app 30", "app.quiet 30", "other 30"] and own.messages == ["app.own 30"]


def test_a_logger_stands_for_those_below_it(method, root, capfd):
    own = configure()
    root.addFilter(lambda record: os.write(1, b"handled in %d\n" % os.getpid()))
    run_all(method, log_everywhere, [0], logging=logging.getLogger("app"))
    assert root.messages == ["app 10", "app 20", "app 30", "app.quiet 30"]
    assert len(own.records) == 3
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("handled in")]
    assert lines.count(f"handled in {os.getpid()}") == 4
    # Others are nobody's business: a forked worker has the handlers, and uses them for "other".
    assert len(lines) == (6 if method == "fork" else 4)


def settings(_):
    names = ("", "app", "app.quiet", "app.own", "app.off", "other")
    return [(logging.getLogger(name).level, logging.getLogger(name).propagate, logging.getLogger(name).disabled) for name in names]


def test_a_workers_loggers_begin_as_its_owners(method, root):
    configure()
    theirs, = run_all(method, settings, [0], logging=True)
    assert theirs[1:] == settings(0)[1:] and theirs[0][0] == logging.INFO


def test_handlers_levels_and_filters_are_the_owners(method, root):
    seen = []
    root.setLevel(logging.WARNING)
    logging.getLogger("app.part").addFilter(lambda record: seen.append(record.process) or record.getMessage() != "number 2")
    run_all(method, say_warning, range(4), logging=True)
    assert sorted(root.messages) == ["number 0", "number 1", "number 3"]
    assert len(seen) == 8  # the filter has seen each record, once


def say_warning(number):
    say(number)
    say(number, level=logging.WARNING)


def test_without_it_workers_log_as_they_did(root, capfd):
    root.addFilter(lambda record: print("here", record.process, flush=True) or True)
    pid, = run_all("fork", say, [1])
    assert root.records == [] and capfd.readouterr().out == f"here {pid}\n"


def nested(_):
    return run_all("fork", say, range(3), logging=True)


def test_pools_in_workers_relay_through_them(method, root):
    inner, = run_all(method, nested, [0], logging=True)
    assert sorted(root.messages) == ["number 0", "number 1", "number 2"]
    assert {record.process for record in root.records} == set(inner)


def fork_and_say(_):
    return ended(child(lambda: say(5)))


def test_children_of_workers_have_their_logging(method, root):
    assert run_all(method, fork_and_say, [0], logging=True) == [0]
    assert root.messages == ["number 5"]


# ---- waiting ----


def test_a_thread_from_the_first_job_to_the_end(root):
    pool = mp.Pool(1, logging=True)
    assert relay_threads() == []
    pool.map(say, [])
    pool.apply(say, (1,))
    pool.apply_async(say, (2,))
    assert len(relay_threads()) == 1 and relay_threads()[0].daemon
    pool.close()
    pool.join()
    assert relay_threads() == [] and root.messages == ["number 1", "number 2"]


def test_a_pool_that_is_dropped_leaves_no_thread(root):
    with pytest.warns(ResourceWarning):
        pool = mp.Pool(1, logging=True)
        pool.apply(say, (1,))
        del pool
        gc.collect()
    assert relay_threads() == [] and root.messages == ["number 1"]


def test_records_are_there_when_the_interpreter_ends(tmp_path):
    assert run_program(tmp_path, """
        import logging, sys, brood as mp

        def say(number):
            logging.info("number %d", number)

        if __name__ == "__main__":
            logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
            pool = mp.get_context("fork").Pool(2, logging=True)
            pool.map(say, range(10), chunksize=10)
        """) == "".join(f"number {number}\n" for number in range(10))


class Asker(Keeper):
    """A handler that has the pool do something about each record."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def emit(self, record):
        super().emit(record)
        self.act(record)


def square(x):
    return x * x


def test_a_handler_may_use_the_pool(method, root):
    answers = []
    with mp.get_context(method).Pool(1, logging=True) as pool:
        logging.root.handlers[:] = [Asker(lambda record: answers.append(pool.apply(square, (len(answers),))))]
        pool.map(say, range(20))
        until(lambda: len(answers) == 20)
    assert answers == [x * x for x in range(20)]


def test_a_handler_may_wait_for_tasks_that_log_more_than_there_is_room_for(root, monkeypatch):
    monkeypatch.setattr(_logging, "_MOST_WAITING", 10)
    monkeypatch.setattr(_logging, "_PATIENCE", 0.05)
    with mp.get_context("fork").Pool(1, logging=True) as pool:
        asked = threading.Event()

        def ask(record):
            if not asked.is_set():
                asked.set()
                pool.apply(say_many, (100, 50))

        logging.root.handlers[:] = [Asker(ask)]
        pool.apply(say, (1,))
        keeper = logging.root.handlers[0]
        until(lambda: len(keeper.records) == 51)
    assert keeper.messages == ["number 1", *(f"number {number}" for number in range(100, 150))]


def test_a_worker_waits_for_room(root, monkeypatch):
    monkeypatch.setattr(_logging, "_MOST_WAITING", 10)
    monkeypatch.setattr(_logging, "_PATIENCE", WITHIN)
    gate = threading.Event()
    logging.root.handlers[:] = [Asker(lambda record: gate.wait(WITHIN))]
    with mp.get_context("fork").Pool(1, logging=True) as pool:
        result = pool.apply_async(say_many, (0, 500))
        until(lambda: pool._equipment._relay.outlet.queue.qsize() == 10)
        assert not result.ready()
        gate.set()
        result.get(WITHIN)
        pool.close()
        pool.join()
    assert logging.root.handlers[0].messages == [f"number {number}" for number in range(500)]


@pytest.mark.parametrize("end", ["terminate", "join"])
def test_a_handler_may_end_the_pool(root, end):
    """In the thread that relays, and in the main thread, which then has the handler's lock that the other needs."""
    for logs_here in (False, True):
        pool, ended = mp.get_context("fork").Pool(1, logging=True), threading.Event()

        def act(record):
            if not ended.is_set() and record.getMessage() == "end":
                pool.close()
                getattr(pool, end)()
                ended.set()

        logging.root.handlers[:] = [Asker(act)]
        pool.map(say, range(5))
        logging.warning("end") if logs_here else pool.apply_async(say_end)
        assert ended.wait(WITHIN)
        until(lambda: relay_threads() == [])
        assert len(logging.root.handlers[0].records) == 6


@pytest.mark.parametrize("end", ["terminate", "join"])
def test_a_loggers_filter_may_end_the_pool(root, end):
    """The thread that relays has no handler's lock there."""
    pool = mp.get_context("fork").Pool(1, logging=True)

    def act(record):
        pool.close()
        getattr(pool, end)()
        return True

    logging.getLogger("app.part").addFilter(act)
    pool.apply_async(say, (1,))  # may still run when the pool is terminated
    until(lambda: relay_threads() == [])
    assert root.messages == ["number 1"]


def test_join_waits_for_handlers_however_long_they_take(root, monkeypatch):
    monkeypatch.setattr(_equipment, "_LAST_WAIT", 0)
    gate = threading.Event()
    logging.root.handlers[:] = [Asker(lambda record: gate.wait(WITHIN))]
    pool = mp.get_context("fork").Pool(1, logging=True)
    pool.apply(say_many, (0, 30))
    pool.close()
    joiner = threading.Thread(target=pool.join)
    joiner.start()
    until(lambda: pool._equipment._relay._is_finished)
    joiner.join(0.05)
    assert joiner.is_alive()
    gate.set()
    joiner.join(WITHIN)
    assert len(logging.root.handlers[0].records) == 30 and relay_threads() == []


def say_end():
    logging.warning("end")


def test_a_lock_of_logging_that_is_held_when_workers_are_forked(method, root):
    with root.lock, mp.get_context(method).Pool(2, logging=True) as pool:
        assert len(pool.map(say, range(4))) == 4  # this thread has the lock, in workers nobody has
        pool.terminate()
        assert root.records == []
    until(lambda: len(root.records) == 4 and relay_threads() == [])


def test_another_threads_lock_of_logging_at_the_fork(root):
    held, done = threading.Event(), threading.Event()

    def hold():
        with root.lock:
            held.set()
            done.wait(WITHIN)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(WITHIN)
    with mp.get_context("fork").Pool(2, logging=True) as pool:
        pool.map(say, range(4))
        assert root.records == []
        done.set()
    holder.join(WITHIN)
    assert len(root.records) == 4


def test_a_handler_that_raises_harms_nobody(root, monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: seen.append(arguments.exc_type))
    logging.root.handlers[:] = [root, Asker(lambda record: {}["nothing"])]
    run_all("fork", say, range(3), logging=True)
    assert len(root.records) == 3 and seen == [KeyError] * 3


# ---- bad input ----


@pytest.mark.parametrize("value", ["loud", "", 1.5, [], print, logging.LoggerAdapter(logging.root, {}), logging.Logger("mine")],
                         ids=lambda value: type(value).__name__)
def test_bad_values(value):
    with pytest.raises((TypeError, ValueError), match="logging must be"):
        mp.Pool(1, logging=value)


def test_it_is_a_keyword():
    with pytest.raises(TypeError):
        mp.pool.Pool(1, None, (), None, None, True)

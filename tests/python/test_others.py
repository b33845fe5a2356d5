# SPDX-License-Identifier: MIT
"""Names of multiprocessing that other libraries lean on, public or not: pools with queues of their own, queues with
feeders of their own, reducers, contexts in executors and loaders."""
import concurrent.futures
import copyreg
import io
import multiprocessing.queues
import multiprocessing.reduction
import os
import pickle
import signal
import threading

import brood
import brood.pool
import brood.queues
import pytest
from brood.connection import wait
from programs import METHODS, run_program

WITHIN = 60


@pytest.fixture(params=METHODS)
def context(request):
    """The context of each start method in turn."""
    return brood.get_context(request.param)


def test_a_start_method_of_a_librarys_own(monkeypatch):
    """As loky has one: the standard library's processes look for it in our module when brood is installed."""
    from brood import context

    mine = brood.get_context("fork")
    monkeypatch.setitem(context._concrete_contexts, "mine", mine)
    monkeypatch.setattr(context._default_context, "_actual_context", None)
    context._force_start_method("mine")
    assert context._default_context._actual_context is mine


# ---- a pool that pickles in its own way, as joblib's does ----


class Secret:
    """Has no pickle, but for who has the reducers below."""

    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        raise pickle.PicklingError("a secret")


def forward(secret):
    return Secret, (secret.text + " in",)


def backward(secret):
    return Secret, (secret.text + " out",)


class ReducingQueue:
    """Over a pipe of the pool's context, with reducers that hold for it alone."""

    def __init__(self, context, reducers):
        self._reader, self._writer = context.Pipe(duplex=False)
        self._lock = context.Lock()
        self._reducers = reducers

    def send(self, obj):
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer)
        pickler.dispatch_table = {**copyreg.dispatch_table, **self._reducers}
        pickler.dump(obj)
        self._writer.send_bytes(buffer.getbuffer())

    def put(self, obj):
        with self._lock:
            self.send(obj)

    def get(self):
        with self._lock:
            return self._reader.recv()


class ReducingPool(brood.pool.Pool):
    def _setup_queues(self):
        self._inqueue = ReducingQueue(self._ctx, {Secret: forward})
        self._outqueue = ReducingQueue(self._ctx, {Secret: backward})
        self._quick_put = self._inqueue.send
        self._quick_get = self._outqueue._reader.recv


def same(x):
    return x


def text_of(secret):
    return secret.text


def both(first, second):
    return Secret(first.text + second)


def make_lock(_):
    return threading.Lock()


def die(secret):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(secret):
    raise ValueError(secret.text)


class Holder:
    """A callable that holds a secret, as joblib's batches hold arrays."""

    def __init__(self, secret):
        self.secret = secret

    def __call__(self):
        return self.secret


def test_tasks_and_results_pass_through_a_pools_own_queues(context):
    with ReducingPool(2, context=context) as pool:
        assert pool.apply(text_of, (Secret("a"),)) == "a in"
        assert pool.apply(text_of, kwds={"secret": Secret("a")}) == "a in"
        assert pool.apply(Holder(Secret("b"))).text == "b in out"
        assert [x.text for x in pool.map(same, map(Secret, "abc"))] == ["a in out", "b in out", "c in out"]
        assert [x.text for x in pool.starmap(both, [(Secret("a"), "x")])] == ["a inx out"]
        assert [x.text for x in pool.imap(same, map(Secret, "abcd"), 3)] == [f"{c} in out" for c in "abcd"]
        assert {x.text for x in pool.imap_unordered(same, map(Secret, "ab"))} == {"a in out", "b in out"}
        called = []
        pool.map_async(same, [Secret("d")], callback=called.extend).get(WITHIN)
        assert [x.text for x in called] == ["d in out"]


def test_errors_and_deaths_in_a_pool_with_its_own_queues(context):
    with ReducingPool(2, context=context) as pool:
        with pytest.raises(ValueError, match="a in") as caught:
            pool.map(fail, [Secret("a")])
        assert "in fail" in str(caught.value.__cause__) and "item 0 of" in caught.value.__notes__[0]
        with pytest.raises(brood.WorkerDied):
            pool.apply(die, (Secret("a"),))
        with pytest.raises(brood.pool.MaybeEncodingError, match="lock"):
            pool.map(make_lock, range(2))
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pool.apply_async(same, (threading.Lock(),))
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            next(pool.imap(same, [threading.Lock()]))
        assert pool.map(text_of, map(Secret, "ab")) == ["a in", "b in"]


def test_threads_share_a_pool_with_its_own_queues():
    with ReducingPool(2, context=brood.get_context("fork")) as pool:
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            texts = list(threads.map(lambda i: pool.apply(same, (Secret(str(i)),)).text, range(200)))
    assert texts == [f"{i} in out" for i in range(200)]


class WatchingPool(brood.pool.Pool):
    """Looks at what goes through the queues that every pool has."""

    def _setup_queues(self):
        super()._setup_queues()
        self.tasks, self.replies = [], []
        put, get = self._quick_put, self._quick_get

        def watching_put(task):
            self.tasks.append(task)
            put(task)

        def watching_get():
            self.replies.append(get())
            return self.replies[-1]

        self._quick_put, self._quick_get = watching_put, watching_get


def test_tasks_and_replies_look_as_in_the_standard_library():
    with WatchingPool(1, context=brood.get_context("fork")) as pool:
        assert pool.apply(divmod, (7, 2)) == (3, 1)
        assert pool.map(abs, [-1, -2, -3], chunksize=2) == [1, 2, 3]
    assert pool.tasks == [(0, 0, divmod, (7, 2), {}),
                          (1, 0, brood.pool.mapstar, ((abs, (-1, -2)),), {}),
                          (1, 1, brood.pool.mapstar, ((abs, (-3,)),), {})]
    assert pool.replies == [(0, 0, (True, (3, 1))), (1, 0, (True, [1, 2])), (1, 1, (True, [3]))]


class PlainPool(brood.pool.Pool):
    def _setup_queues(self):
        self._inqueue = brood.queues.SimpleQueue()
        self._outqueue = brood.queues.SimpleQueue(ctx=self._ctx)
        self._quick_put, self._quick_get = self._inqueue._writer.send, self._outqueue._reader.recv


class StrangePool(brood.pool.Pool):
    def _setup_queues(self):
        self._inqueue = self._outqueue = ReducingQueue(brood, {})


def test_queues_that_need_no_pickling_of_their_own_change_nothing():
    with PlainPool(2, context=brood.get_context("fork")) as pool:
        assert pool.map(same, range(5)) == list(range(5))


def test_queues_that_could_have_no_effect_are_refused():
    with pytest.raises(TypeError, match="_setup_queues"):
        StrangePool(1)


def test_attributes_of_a_pool(context):
    with context.Pool(2) as pool:
        assert pool._ctx is context and pool._processes == 2 and len(pool._pool) == 2
        assert pool._state == brood.pool.RUN == multiprocessing.pool.RUN
        pids = {pool.apply(os.getpid) for _ in range(20)}
        assert pids <= {worker.pid for worker in pool._pool}
        assert all(worker.is_alive() and worker.exitcode is None and worker.daemon for worker in pool._pool)
        pool.close()
        assert pool._state == brood.pool.CLOSE
        pool.join()
    assert pool._state == brood.pool.TERMINATE


# ---- queues ----


class Feeding(brood.queues.Queue):
    """Feeds its pipe in its own way."""

    fed = 0

    def _start_thread(self):
        type(self).fed += 1
        super()._start_thread()


class Counting(brood.queues.Queue):
    """What programs usually do with the class."""

    def __init__(self, *args, **kwds):
        super().__init__(*args, **kwds, ctx=brood.get_context())
        self.puts = brood.Value("i", 0)

    def __getstate__(self):
        return {"ours": self.puts, "theirs": super().__getstate__()}

    def __setstate__(self, state):
        super().__setstate__(state["theirs"])
        self.puts = state["ours"]

    def put(self, *args, **kwds):
        with self.puts.get_lock():
            self.puts.value += 1
        super().put(*args, **kwds)


def test_a_queue_with_a_feeder_of_its_own_is_the_standard_librarys():
    queue = Feeding(ctx=brood.get_context("fork"))
    queue.put("fed")
    assert queue.get(timeout=WITHIN) == "fed" and Feeding.fed == 1
    assert isinstance(queue, multiprocessing.queues.Queue)
    queue.close()
    queue.join_thread()


def put_three(queue):
    for i in range(3):
        queue.put(i)


def test_another_subclass_is_ours(context):
    queue = Counting()
    assert isinstance(queue, brood._core.Queue)
    process = context.Process(target=put_three, args=(queue,))
    process.start()
    assert [queue.get(timeout=WITHIN) for _ in range(3)] == [0, 1, 2] and queue.puts.value == 3
    process.join()


def test_the_ends_of_a_queue_may_be_replaced():
    """Torch wraps them."""
    queue = brood.queues.Queue(ctx=brood)
    reader = queue._reader
    queue._reader = [reader]
    assert queue._reader == [reader] and isinstance(brood.queues.Queue(ctx=brood)._reader, type(reader))


def test_private_names_of_the_module():
    assert brood.queues._sentinel is multiprocessing.queues._sentinel
    with pytest.raises(AttributeError):
        brood.queues._nonsense


def test_wait_takes_sentinels_and_queues(context):
    queue, gate = context.Queue(), context.Event()
    processes = [context.Process(target=gate.wait) for _ in range(2)]
    for process in processes:
        process.start()
    assert wait([*(process.sentinel for process in processes), queue._reader], 0) == []
    queue.put(1)
    assert wait([*(process.sentinel for process in processes), queue._reader], WITHIN) == [queue._reader]
    gate.set()
    left = {process.sentinel for process in processes}
    while left:
        left -= set(wait(left, WITHIN))
    for process in processes:
        process.join()


# ---- reducers ----


class Reduced:
    """Reducers are registered for it with ForkingPickler, as torch and pyarrow do for theirs."""

    def __init__(self, how):
        self.how = how


multiprocessing.reduction.ForkingPickler.register(Reduced, lambda reduced: (Reduced, (reduced.how + "+",)))


def test_registered_reducers_hold_for_arguments_results_and_queues(context):
    queue, simple = context.Queue(), context.SimpleQueue()
    queue.put(Reduced("queue")), simple.put([Reduced("simple")])
    assert queue.get(timeout=WITHIN).how == "queue+" and simple.get()[0].how == "simple+"
    with context.Pool(1) as pool:
        assert pool.apply(same, (Reduced("pool"),)).how == "pool++"
        assert pool.map(same, [Reduced("pool")])[0].how == "pool++"
        assert pool.apply(Holder(Reduced("callable"))).how == "callable++"
    assert brood.reduction.ForkingPickler is multiprocessing.reduction.ForkingPickler


# ---- executors ----


def exit_at_once():
    os._exit(3)


def test_an_executor_with_a_context(context):
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(same, range(20), chunksize=3)) == list(range(20))
        with pytest.raises(ValueError, match="a$"):
            executor.submit(fail, Text("a")).result(WITHIN)
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            executor.submit(same, threading.Lock()).result(WITHIN)
        assert executor.submit(same, 3).result(WITHIN) == 3


class Text:
    def __init__(self, text):
        self.text = text


def test_a_broken_executor_says_so(context):
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        with pytest.raises(concurrent.futures.process.BrokenProcessPool):
            executor.submit(exit_at_once).result(WITHIN)
        with pytest.raises(concurrent.futures.process.BrokenProcessPool):
            executor.submit(same, 1)


# ---- libraries, where they are ----


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("installed", [False, True])
def test_torch_loads_with_our_context(tmp_path, method, installed):
    pytest.importorskip("torch")
    assert run_program(tmp_path, """
        import sys
        import brood
        if int(sys.argv[2]):
            brood.install()
        import torch
        import torch.multiprocessing.pool, torch.multiprocessing.queue
        from torch.utils.data import DataLoader, Dataset

        class Numbers(Dataset):
            def __len__(self):
                return 20
            def __getitem__(self, i):
                return torch.full((10,), i)

        def is_shared(tensor):
            return tensor.is_shared(), tensor
        def fill(tensor):
            tensor.fill_(7)

        if __name__ == "__main__":
            context = brood.get_context(sys.argv[1])
            loader = DataLoader(Numbers(), batch_size=4, num_workers=2, multiprocessing_context=context)
            assert [int(x) for batch in loader for x in batch[:, 0]] == list(range(20))
            with context.Pool(2) as pool:
                for shared, tensor in pool.map(is_shared, [torch.ones(1000) * i for i in range(4)]):
                    assert shared and tensor.is_shared()
                ours = torch.zeros(10)
                pool.apply(fill, (ours,))
                assert ours.sum() == 70
            queue = context.Queue()
            queue.put(torch.ones(3))
            assert queue.get().is_shared()
            if int(sys.argv[2]):
                queue = torch.multiprocessing.queue.Queue(ctx=context)
                queue.put(torch.ones(3))
                assert queue.get().is_shared()
                with torch.multiprocessing.pool.Pool(2, context=context) as pool:
                    assert pool.apply(is_shared, (torch.ones(3),))[0]
            print("done")
        """, method, int(installed), timeout=300) == "done\n"


@pytest.mark.parametrize("method", METHODS)
def test_tables_of_pyarrow_and_arrays_of_numpy_travel(tmp_path, method):
    pytest.importorskip("pyarrow")
    pytest.importorskip("numpy")
    assert run_program(tmp_path, """
        import sys
        import brood, numpy, pyarrow

        def double(array):
            return array * 2
        def same(table):
            return table

        if __name__ == "__main__":
            context = brood.get_context(sys.argv[1])
            table, array = pyarrow.table({"a": [1, 2, 3]}), numpy.arange(100000.0)
            queue = context.Queue()
            queue.put(table)
            assert queue.get().equals(table)
            with context.Pool(2) as pool:
                assert all(one.equals(table) for one in pool.map(same, [table] * 3))
                assert (pool.map(double, [array] * 3)[2] == array * 2).all()
            print("done")
        """, method, timeout=300) == "done\n"

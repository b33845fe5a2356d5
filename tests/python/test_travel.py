# SPDX-License-Identifier: MIT
"""What travels to a pool's workers, and what is said of that which cannot."""
import ast
import functools
import pickle
import threading

import brood
import pytest
from brood._source import Source
from programs import METHODS, run_program, write

WITHIN = 30


@pytest.fixture(scope="module", params=METHODS)
def pool(request):
    """A pool of each start method."""
    with brood.get_context(request.param).Pool(2) as made:
        yield made


def same(x):
    return x


def call(function, *args):
    return function(*args)


# ---- functions and classes of __main__ ----

PROGRAM = """
    import functools, sys
    import brood

    setting = "as imported"

    def initialize(value):
        global setting
        setting = value

    def get(_):
        return setting

    def changes(x):
        return x + 1

    def same(x):
        return x

    def call(function, x):
        return function(x)

    def call_one(function):
        return function(0) if function else None

    def call_last(things):
        return things[-1](0)

    class Known:
        def __call__(self, x):
            return x, setting
        class Inner:
            def __call__(self, x):
                return -x

    def decorate(function):
        @functools.wraps(function)
        def wrapper(x):
            return "decorated", function(x)
        return wrapper

    @decorate
    def decorated(x):
        return x

    if __name__ == "__main__":
        with brood.get_context(sys.argv[1]).Pool(2, initialize, ("set",)) as pool:
            # What the workers have is theirs, with what the initializer left there.
            assert pool.map(get, [1]) == ["set"]
            assert pool.map(Known(), [1]) == [(1, "set")]
            assert pool.map(Known.Inner(), [1]) == [-1]
            assert pool.map(decorated, [1]) == [("decorated", 1)]
            assert pool.map(lambda x: (get(x), Known()(x)), [1]) == [("set", (1, "set"))]
            # What they have not goes by value.
            def below_the_guard(x):
                return x * 2, get(x)
            class Below:
                def __call__(self, x):
                    return x * 3
            class BelowKnown(Known):
                pass
            assert pool.map(below_the_guard, [1]) == [(2, "set")]
            assert pool.map(Below(), [1]) == [3]
            assert pool.map(BelowKnown(), [1]) == [(1, "set")]
            assert pool.map(functools.partial(below_the_guard), [1]) == [(2, "set")]
            assert pool.map(decorate(below_the_guard), [1]) == [("decorated", (2, "set"))]
            for i in range(20):
                exec(f"def changes(x): return x + {i}")
                exec(f"class Late:\\n    def __call__(self, x): return x - {i}")
                assert pool.map(changes, [0, 1]) == [i, i + 1]
                assert pool.map(Late(), [0]) == [-i]
                late = Late()
                assert pool.apply(call, (late, 1)) == 1 - i and pool.map(call_one, [late, 0]) == [-i, None]
                assert isinstance(pool.apply(same, (late,)), Late) and pool.map(same, [Late]) == [Late]
                assert list(pool.imap(call_one, [late])) == [-i]
            assert type(pool.apply(same, (Known(),))) is Known
            for length in (1000, 20_000, 40_000, 100_000):  # pickle writes what is long in frames of 64 KiB, and long values by themselves
                assert pool.apply(call_last, ([*range(length), late],)) == -19
                assert pool.apply(call_last, ([late, b"x" * length, late],)) == -19
            square = lambda x: x * x
            square.__qualname__ = square.__name__ = "square"
            assert pool.map(square, [3]) == [9]
            print("done")
    """


@pytest.mark.parametrize("method", METHODS)
def test_functions_and_classes_of_main(tmp_path, method):
    assert run_program(tmp_path, PROGRAM, method) == "done\n"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", ["command", "module", "installed"])
def test_functions_of_main_however_it_was_started(tmp_path, method, way):
    text = """
import sys
import brood as mp
def above(x):
    return x + 1
if __name__ == "__main__":
    with mp.get_context(sys.argv[1]).Pool(2) as pool:
        def below(x):
            return above(x) * 2
        print(pool.map(above, [1]), pool.map(below, [1]), pool.map(lambda x: below(x), [1]))
"""
    import programs

    write(tmp_path, "program.py", text)
    arguments = {"command": ["-c", text], "module": ["-m", "program"], "installed": ["-m", "brood", "program.py"]}[way]
    done = programs.run(*arguments, method, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("[2] [4] [4]\n", 0), done.stderr


def test_what_a_child_of_spawn_defines():
    text = """
import os as system, json.decoder
from x import y
A = B = 1
def above(): pass
if A:
    class Conditional: pass
else:
    other: int = 2
if __name__ == "__main__":
    def below(): pass
    above = 3
    C = 1
elif B:
    D = 1
else:
    def child_only(): pass
try:
    def tried(): pass
except Exception as error:
    def handled(): pass
for i in []:
    def looped(): pass
"""
    source = Source("file", ast.parse(text))
    names = "system json y A B above Conditional other D child_only tried handled looped i".split()
    assert [name for name in names if not source.defines(name, None)] == []
    assert [name for name in ("below", "C", "x", "decoder", "os", "pass") if source.defines(name, None)] == []
    assert Source("file", None).defines("anything", None)


def test_a_function_is_known_by_its_place():
    text = """
import functools
def above(): pass
@functools.cache
def decorated(): pass
if __name__ == "__main__":
    def above(): pass
    def below(): pass
def maker():
    global made
    def made(): pass
    return made
made = None
maker()
"""
    source = Source("file", ast.parse(text))
    as_child, as_main, elsewhere = {"__name__": "__mp_main__"}, {"__name__": "__main__"}, {"__name__": "__mp_main__"}
    for namespace, file in ((as_child, "file"), (as_main, "file"), (elsewhere, "<string>")):
        exec(compile(text, file, "exec"), namespace)
    assert source.defines("above", as_child["above"]) and not source.defines("above", as_main["above"])
    assert source.defines("decorated", as_main["decorated"]) and not source.defines("below", as_main["below"])
    assert not source.defines("made", as_main["made"]) and not source.defines("above", elsewhere["above"])


# ---- lambdas elsewhere ----


def test_lambdas_in_arguments(pool):
    offset = 5
    assert pool.apply(call, (lambda x: x + offset, 1)) == 6
    assert pool.starmap(call, [(lambda: 1,), (lambda: offset,)]) == [1, 5]
    assert list(pool.imap(lambda f: f(2), [lambda x: x, lambda x: -x])) == [2, -2]


def test_lambdas_as_initializers():
    for method in METHODS:
        seen = brood.Value("i", 0)
        with brood.get_context(method).Pool(1, lambda value: setattr(value, "value", 7), (seen,)) as pool:
            pool.map(same, [1])
        assert seen.value == 7


# ---- what cannot ----


class Thing:
    """Holds something."""

    def __init__(self, inner):
        self.inner = inner

    def method(self):
        return self.inner


class Slotted:
    __slots__ = ("slot",)


def slotted(value):
    thing = Slotted()
    thing.slot = value
    return thing


class Refusing:
    def __reduce__(self):
        raise RuntimeError("I stay")


LOCK = threading.Lock()


@pytest.mark.parametrize("make, where", [
    (lambda: LOCK, "args[0] (lock)"),
    (lambda: [1, {"deep": (LOCK,)}], "args[0][1]['deep'][0] (lock)"),
    (lambda: Thing(Thing([LOCK])), "args[0].inner.inner[0] (lock)"),
    (lambda: slotted(LOCK), "args[0].slot (lock)"),
    (lambda: Thing(LOCK).method, "args[0].__self__.inner (lock)"),
    (lambda: functools.partial(same, a=LOCK), "args[0].keywords['a'] (lock)"),
    (lambda: lambda: LOCK, "args[0]'s global LOCK (lock)"),
    (lambda: (lambda mine: lambda: mine)(Thing(LOCK)), "args[0]'s variable mine.inner (lock)"),
    (lambda: lambda mine=LOCK: mine, "args[0].__defaults__[0] (lock)"),
    (lambda: {LOCK}, "an element of args[0] (lock)"),
    (lambda: {LOCK: 1}, "a key of args[0] (lock)"),
    (lambda: (i for i in ()), "args[0] (generator)"),
])
def test_what_cannot_travel_is_named_in_the_caller(pool, make, where):
    with pytest.raises(TypeError, match="cannot pickle") as caught:
        pool.apply_async(same, (make(),))
    assert str(caught.value).startswith(where + " cannot travel: ")


def test_it_is_named_in_every_call(pool):
    def fails(call, where):
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value).startswith(where + " (lock) cannot travel: ")

    things = [1, 2, 3, Thing(LOCK)]
    fails(lambda: pool.apply(same, kwds={"x": LOCK}), "kwds['x']")
    fails(lambda: pool.map(same, things), "item 3.inner")
    fails(lambda: pool.map_async(same, things, chunksize=3), "item 3.inner")
    fails(lambda: pool.starmap(same, zip(things)), "item 3[0].inner")
    fails(lambda: list(pool.imap(same, things, 2)), "item 3.inner")
    results = pool.imap(same, [*things, 5])
    assert [next(results) for _ in range(3)] == [1, 2, 3]
    fails(lambda: next(results), "item 3.inner")
    assert list(results) == [5]
    fails(lambda: list(pool.imap_unordered(same, iter(things))), "item 3.inner")
    fails(lambda: pool.apply_async(Thing(LOCK).method), "func.__self__.inner")
    fails(lambda: pool.map(lambda x: LOCK, things[:1]), "func's global LOCK")
    assert pool.map(same, [1]) == [1]


def test_an_objects_own_refusal_gets_a_note(pool):
    with pytest.raises(RuntimeError, match="^I stay") as caught:
        pool.apply_async(same, ([Refusing()],))
    assert caught.value.__notes__ == ["args[0][0] (Refusing) cannot travel"]


def test_what_refuses_itself_is_named_and_not_its_parts(pool):
    with pytest.raises(NotImplementedError) as caught:
        pool.apply(call, ([pool],))
    assert caught.value.__notes__ == ["args[0][0] (Pool) cannot travel"]


def test_open_files_do_not_travel(pool, tmp_path):
    """cloudpickle would read them to their end."""
    with open(tmp_path / "file", "w+") as file, pytest.raises(TypeError, match=r"^item 0 \(TextIOWrapper\) cannot travel"):
        pool.map(same, [file])


def test_what_holds_itself_is_searched_once(pool):
    ring = [LOCK]
    ring.append(ring)
    with pytest.raises(TypeError, match=r"^args\[0\]\[0\] \(lock\)"):
        pool.apply_async(same, (ring,))


@pytest.mark.parametrize("method", METHODS[1:])
def test_an_initializer_that_cannot_travel_raises_when_the_pool_is_made(method, capfd):
    with pytest.raises(TypeError, match=r"^initargs\[0\] \(lock\) cannot travel"):
        brood.get_context(method).Pool(1, same, (LOCK,))
    with pytest.raises(TypeError, match=r"^initializer's global LOCK \(lock\) cannot travel"):
        brood.get_context(method).Pool(1, lambda: LOCK)
    assert capfd.readouterr().err == ""


def test_a_queue_names_it():
    queue = brood.Queue()
    with pytest.raises(TypeError, match=r"^obj\['a'\] \(lock\) cannot travel"):
        queue.put({"a": LOCK})
    with pytest.raises((AttributeError, pickle.PicklingError), match=r"^obj\[0\] \(function\) cannot travel"):
        queue.put([lambda: 1])
    assert queue.empty()


# ---- results ----


class Unreadable:
    """Pickles, but does not unpickle."""

    def __reduce__(self):
        return explode, ()


def explode():
    raise LookupError("boom")


def make_unreadable(x):
    return Unreadable() if x == 2 else x


def test_results_that_do_not_unpickle_fail_their_own_task(pool):
    results = [pool.apply_async(make_unreadable, (x,)) for x in range(5)]
    for x, result in enumerate(results):
        if x != 2:
            assert result.get(WITHIN) == x
    with pytest.raises(LookupError, match="boom") as caught:
        results[2].get(WITHIN)
    assert caught.value.__notes__ == ["raised by unpickling here what the call of a pool's job returned"]
    with pytest.raises(LookupError, match="boom") as caught:
        pool.map(make_unreadable, range(5), chunksize=1)
    assert caught.value.__notes__ == ["raised by unpickling here what item 2 of a pool's job returned"]


def stop(x):
    if x == 1:
        raise StopIteration("x")
    return x


def test_a_tasks_stop_iteration_does_not_pass_for_the_end(pool):
    results = pool.imap(stop, range(3))
    assert next(results) == 0
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        next(results)
    assert isinstance(caught.value.__cause__, StopIteration)
    assert list(results) == [2]

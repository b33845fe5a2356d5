# SPDX-License-Identifier: MIT
"""bench/verdict.py: medians, ratios within a round, and whether a goal is met; and that every question is one that bench/run can ask."""
import pathlib
import sys
import tomllib

import pytest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"
sys.path.append(str(BENCH))

import verdict  # noqa: E402


def samples(better, **subjects):
    """Rounds of one variant, a list of values per subject."""
    return [{"subject": subject, "variant": "v", "round": index, "value": value, "unit": "u", "better": better, "cpu": value * 10}
            for subject, values in subjects.items() for index, value in enumerate(values)]


def judge(goal, taken, variants=("v",)):
    """The one verdict of one goal."""
    (found,) = verdict.judge({"variants": list(variants), "goals": [goal]}, taken)
    return found


@pytest.mark.parametrize(("better", "goal", "median", "status"), [
    ("less", {"to": ["peer"], "at_most": 2.5}, 0.5, "met"),      # costs half
    ("less", {"to": ["peer"], "at_least": 2.0}, 2.0, "met"),     # twice as fast
    ("less", {"to": ["peer"], "at_least": 2.1}, 2.0, "missed"),
    ("more", {"to": ["peer"], "at_least": 0.6}, 0.5, "missed"),  # half the speed
    ("more", {"to": ["peer"], "at_most": 2.0}, 2.0, "met"),      # costs twice as much
    ("less", {"at_most": 5}, 5, "met"),
    ("more", {"at_least": 6}, 5, "missed"),
    ("more", {"field": "cpu", "to": ["peer"], "at_most": 0.5}, 0.5, "met"),  # less of another number is better
])
def test_ratios(better, goal, median, status):
    found = judge(goal, samples(better, brood=[5, 4, 6], peer=[10, 8, 12]))
    assert (found["median"], found["status"]) == (median, status)


def test_ratios_are_taken_within_a_round():
    """A slow round slows both: medians of each alone would say 1."""
    found = judge({"to": ["peer"], "at_most": 2}, samples("less", brood=[2, 30, 4], peer=[1, 15, 2]))
    assert (found["min"], found["median"], found["max"]) == (2, 2, 2)


def test_the_best_of_several_peers_counts():
    taken = samples("less", brood=[4], slow=[40], fast=[8])
    assert judge({"to": ["slow", "fast", "absent"], "at_least": 3}, taken)["best"] == "fast"
    assert judge({"to": ["slow", "fast"], "at_least": 3}, taken)["status"] == "missed"


def test_what_was_not_measured_is_neither_met_nor_missed():
    taken = samples("less", brood=[4])
    assert judge({"to": ["absent"], "at_most": 1}, taken)["status"] == "not measured"
    assert judge({"at_most": 1}, samples("less", peer=[1]))["status"] == "not measured"


def test_nothing_against_nothing():
    assert judge({"to": ["peer"], "at_most": 1}, samples("less", brood=[0], peer=[0]))["median"] == 1
    assert judge({"to": ["peer"], "at_least": 9}, samples("less", brood=[0], peer=[3]))["status"] == "met"


def test_mean_of_variants():
    taken = [{**one, "variant": variant, "value": one["value"] * factor}
             for variant, factor in (("a", 1), ("b", 3)) for one in samples("more", brood=[10], peer=[5])]
    found = judge({"mean": True, "at_least": 15}, taken, ("a", "b"))
    assert (found["median"], found["variant"]) == (20, "mean")
    assert judge({"mean": True, "to": ["peer@b"], "at_least": 1}, taken, ("a", "b"))["median"] == pytest.approx(20 / 15)


def test_summary():
    (row,) = verdict.summarize(samples("less", brood=[3, 1, 2]))
    assert (row["median"], row["min"], row["max"], row["rounds"], row["others"]["cpu"]) == (2, 1, 3, 3, 20)


def test_questions():
    with open(BENCH / "questions.toml", "rb") as file:
        questions = tomllib.load(file)["question"]
    assert len({one["name"] for one in questions}) == len(questions)
    for one in questions:
        assert {"name", "title", "program", "variants", "subjects"} <= set(one)
        for goal in one.get("goals", []):
            assert ("at_most" in goal) != ("at_least" in goal)
            assert set(goal.get("variants", [])) <= set(one["variants"])
            assert {goal.get("of", "brood"), *(name.partition("@")[0] for name in goal.get("to", []))} <= set(one["subjects"])
            assert verdict.in_words(goal)

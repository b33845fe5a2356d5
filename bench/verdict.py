# SPDX-License-Identifier: MIT
"""From samples to medians, ratios and verdicts.

A sample is a dictionary of bench/run with question, subject, variant, round, value, better.  A goal of questions.toml is one of

    of = "brood", to = ["peer", …], at_most = 2.5       it costs at most 2.5 times what the best of these does
    of = "brood", to = ["peer", …], at_least = 10       it is at least 10 times as fast as the best of these
    of = "brood", at_least = 3e6                        the figure itself; at_most likewise

with `variants` (those that it is about; else all), `field` (another number of the samples than "value"; less of it is better), and
`mean = true` (of the variants together, not of each).  "subject@variant" in `to` names one variant whatever the goal's is.
"""
import statistics

MET, MISSED, UNKNOWN = "met", "missed", "not measured"


def spread(values):
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


class Samples:
    """Those of one question, by subject, variant and round."""

    def __init__(self, samples):
        self.samples = samples

    def keys(self):
        """(subject, variant) of each kind, in order of appearance."""
        return list(dict.fromkeys((one["subject"], one["variant"]) for one in self.samples))

    def rounds(self, subject, variant, field="value"):
        """round → the number."""
        return {one["round"]: one[field] for one in self.samples
                if (one["subject"], one["variant"]) == (subject, variant) and one.get(field) is not None}

    def first(self, subject, variant):
        """One of them, for what all have alike."""
        return next(one for one in self.samples if (one["subject"], one["variant"]) == (subject, variant))


def summarize(samples):
    """A row per subject and variant: spread of the value, medians of all else that is a number."""
    of, rows = Samples(samples), []
    for subject, variant in of.keys():
        mine = [one for one in samples if (one["subject"], one["variant"]) == (subject, variant)]
        numbers = {key for one in mine for key, value in one.items() if isinstance(value, (int, float)) and key not in ("round", "value")}
        rows.append({"subject": subject, "variant": variant, "unit": mine[0]["unit"], "better": mine[0]["better"],
                     "rounds": len(mine), **spread([one["value"] for one in mine]),
                     "others": {key: statistics.median(one[key] for one in mine if key in one) for key in sorted(numbers)}})
    return rows


def _mean_of_variants(of, subject, variants, field):
    """round → the mean over the variants, where all were measured."""
    columns = [of.rounds(subject, variant, field) for variant in variants]
    return {index: statistics.fmean(column[index] for column in columns)
            for index in columns[0] if all(index in column for column in columns)}


def _numbers(of, name, variants, field):
    """round → the number of "subject" or "subject@variant"."""
    subject, _, fixed = name.partition("@")
    if fixed:
        return of.rounds(subject, fixed, field)
    return _mean_of_variants(of, subject, variants, field)


def _is_more_better(of, goal, variants):
    if goal.get("field", "value") != "value":
        return False
    return of.first(goal.get("of", "brood"), variants[0])["better"] == "more"


def _is_met(goal, number):
    return number <= goal["at_most"] if "at_most" in goal else number >= goal["at_least"]


def _ratio(over, under):
    """What is divided by nothing is infinite, but for nothing by nothing."""
    if under == 0:
        return 1.0 if over == 0 else float("inf")
    return over / under


def _compared(of, goal, variants):
    """(name of the best of those that the goal compares with, the ratios, a round each), None when something is missing."""
    field, more = goal.get("field", "value"), _is_more_better(of, goal, variants)
    mine = _numbers(of, goal.get("of", "brood"), variants, field)
    theirs = {name: numbers for name in goal["to"] if (numbers := _numbers(of, name, variants, field))}
    if not mine or not theirs:
        return None
    best = (max if more else min)(theirs, key=lambda name: statistics.median(theirs[name].values()))
    rounds = [index for index in mine if index in theirs[best]]
    if ("at_least" in goal) != more:  # the speed of costs, the cost of speeds
        ratios = [_ratio(theirs[best][index], mine[index]) for index in rounds]
    else:
        ratios = [_ratio(mine[index], theirs[best][index]) for index in rounds]
    return (best, ratios) if rounds else None


def _judge(of, goal, variants):
    """One verdict: the goal for one variant, or for the mean of several."""
    name = goal.get("of", "brood")
    verdict = {**goal, "of": name, "variant": variants[0] if len(variants) == 1 else "mean", "status": UNKNOWN}
    if not all(of.rounds(name, variant) for variant in variants):
        return verdict
    if "to" in goal:
        compared = _compared(of, goal, variants)
        if compared is None:
            return verdict
        verdict["best"], numbers = compared
    else:
        numbers = list(_numbers(of, name, variants, goal.get("field", "value")).values())
        if not numbers:
            return verdict
    verdict.update(spread(numbers))
    verdict["status"] = MET if _is_met(goal, verdict["median"]) else MISSED
    return verdict


def judge(question, samples):
    """Every goal of the question, for each of its variants."""
    of, verdicts = Samples(samples), []
    for goal in question.get("goals", []):
        variants = goal.get("variants", question["variants"])
        groups = [variants] if goal.get("mean") else [[variant] for variant in variants]
        verdicts += [_judge(of, goal, group) for group in groups]
    return verdicts


def in_words(verdict):
    """"≤ 2.5 × the cost of cache-line"."""
    limit = f"{verdict.get('at_most', verdict.get('at_least')):g}"
    sign = "≤" if "at_most" in verdict else "≥"
    field = "" if verdict.get("field", "value") == "value" else f", {verdict['field']}"
    if "to" not in verdict:
        return f"{sign} {limit}{field}"
    what = "the cost of" if "at_most" in verdict else "the speed of"
    return f"{sign} {limit} × {what} {verdict.get('best', ' / '.join(verdict['to']))}{field}"

"""Prometheus's text format (0.0.4), read strictly: what is malformed is an error, not skipped."""
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


class Family:
    def __init__(self, name, kind, text):
        self.name, self.type, self.help = name, kind, text
        self.samples = {}  # (name, ((label, value), ...)): value

    def labels(self):
        """Their names, in order, without a histogram's own."""
        return [name for name, _ in next(iter(self.samples))[1] if name != "le"]


def parse(text):
    """{name: Family}, in order. ValueError where Prometheus would refuse the page or could not make sense of it."""
    families = {}
    if not text.endswith("\n"):
        raise ValueError("expected a line end after the last line")
    lines = text[:-1].split("\n")
    while lines:
        family = _header(lines)
        if family.name in families:
            raise ValueError(f"{family.name}: a family twice")
        families[family.name] = family
        while lines and not lines[0].startswith("#"):
            _sample(family, lines.pop(0))
        _check(family)
    return families


def _header(lines):
    named = re.fullmatch(rf"# HELP ({NAME}) (.+)", lines.pop(0))
    typed = re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram)", lines.pop(0))
    if not named or not typed or named[1] != typed[1]:
        raise ValueError("expected a HELP and a TYPE line of one name")
    return Family(named[1], typed[2], named[2])


def _sample(family, line):
    found = SAMPLE.fullmatch(line)
    if not found:
        raise ValueError(f"no sample: {line}")
    name, inside, value = found.groups()
    ends = ("_bucket", "_sum", "_count") if family.type == "histogram" else ("",)
    if name not in [family.name + end for end in ends]:
        raise ValueError(f"{family.name} ({family.type}): a sample of another, {name}")
    labels = tuple(LABEL.findall(inside or ""))
    if "".join(f'{k}="{v}",' for k, v in labels).rstrip(",") != (inside or ""):
        raise ValueError(f"malformed labels: {line}")
    if (name, labels) in family.samples:
        raise ValueError(f"a sample twice: {line}")
    family.samples[name, labels] = float(value)


def _check(family):
    if not family.samples:
        raise ValueError(f"{family.name}: no sample")
    if (family.type == "counter") != family.name.endswith("_total"):
        raise ValueError(f"{family.name}: a {family.type}")
    wanted = family.labels()
    for _, labels in family.samples:
        if [name for name, _ in labels if name != "le"] != wanted:
            raise ValueError(f"{family.name}: other labels than {wanted}: {labels}")
    if family.type == "histogram":
        _check_histograms(family)


def _check_histograms(family):
    of = {}
    for (name, labels), value in family.samples.items():
        rest = tuple(label for label in labels if label[0] != "le")
        one = of.setdefault(rest, {"buckets": []})
        if name.endswith("_bucket"):
            one["buckets"].append((float(dict(labels)["le"]), value))
        else:
            one[name.removeprefix(family.name)] = value
    for labels, one in of.items():
        bounds = [bound for bound, _ in one["buckets"]]
        counts = [count for _, count in one["buckets"]]
        if bounds != sorted(set(bounds)) or bounds[-1] != float("inf") or counts != sorted(counts):
            raise ValueError(f"{family.name}{labels}: buckets that do not ascend")
        if counts[-1] != one["_count"] or (one["_count"] == 0) != (one["_sum"] == 0):
            raise ValueError(f"{family.name}{labels}: count, sum and buckets do not agree")


class Page:
    """One scrape, by what a test asks for."""

    def __init__(self, text):
        self.families = parse(text)
        self.samples = {key: value for family in self.families.values() for key, value in family.samples.items()}

    def __call__(self, name, **labels):
        return self.samples[name, tuple(labels.items())]

#!/usr/bin/env python3
"""Verifies the sample content beside this file. Prints every violation and exits with 1 if there is one."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
problems = []


def need(condition, message):
    if not condition:
        problems.append(message)
    return bool(condition)


def read(path):
    """The file's text, checked to be ordinary printable ASCII in UTF-8."""
    name = path.relative_to(ROOT)
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        need(False, f"{name}: cannot be read as UTF-8: {error}")
        return ""
    strange = sorted({c for c in text if not (c == "\n" or " " <= c <= "~")})
    need(not strange, f"{name}: unexpected characters {strange!r}")
    need(text.endswith("\n"), f"{name}: no newline at the end")
    need(not re.search(r"[ \t]\n", text), f"{name}: trailing spaces")
    return text


def read_json(path):
    try:
        value = json.loads(read(path))
    except json.JSONDecodeError as error:
        need(False, f"{path.relative_to(ROOT)}: not JSON: {error}")
        return {}
    return value if need(isinstance(value, dict), f"{path.relative_to(ROOT)}: not an object") else {}


def words(text):
    return text.split()


def flat(text):
    return " ".join(text.split())


def follows(text, prompt, answer):
    """True if prompt + " " + answer occurs in text at word boundaries."""
    return re.search(r"(?<!\w)" + re.escape(f"{prompt} {answer}") + r"(?![\w-])", text) is not None


def unique(values, what):
    seen = set()
    for value in values:
        need(value.lower() not in seen, f"{what}: twice: {value!r}")
        seen.add(value.lower())


def titled(path):
    """(title, body) of a text file: title line, blank line, paragraphs."""
    text = read(path)
    title, _, rest = text.partition("\n")
    good = title == title.strip() != "" and rest.startswith("\n") and rest[1:2] not in ("", "\n")
    need(good, f"{path.relative_to(ROOT)}: does not begin with a title line and a blank line")
    return title, rest.strip()


def check_source(path):
    name = path.stem
    title, body = titled(path)
    count = len(words(body))
    need(350 <= count <= 550, f"sources/{name}.txt: {count} words, not 350 to 550")
    need(body.count("\n\n") >= 3, f"sources/{name}.txt: fewer than four paragraphs")
    data = read_json(path.with_suffix(".json"))
    where = f"sources/{name}.json"
    need(data.get("source") == name, f"{where}: source is not {name!r}")
    need(data.get("title") == title, f"{where}: title differs from the text's")
    cloze, free = data.get("cloze", []), data.get("free", [])
    need(len(cloze) == 10, f"{where}: {len(cloze)} cloze prompts, not 10")
    need(len(free) == 10, f"{where}: {len(free)} free prompts, not 10")
    text = flat(body)
    verbatim = 0
    for item in cloze:
        prompt, answer = item.get("prompt", ""), item.get("answer", "")
        label = f"{where}: {prompt!r} -> {answer!r}"
        need(prompt == flat(prompt) != "", f"{label}: stray spaces in the prompt")
        need(answer == answer.strip(" .,;:!?") and 1 <= len(words(answer)) <= 4, f"{label}: answer is not 1 to 4 words")
        need(not re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", prompt), f"{label}: prompt gives the answer away")
        if len(words(prompt)) >= 10 and follows(text, prompt, answer):
            verbatim += 1
        else:
            tail = " ".join(words(prompt)[-6:])
            need(len(words(prompt)) >= 6, f"{label}: prompt is shorter than six words")
            need(follows(text, tail, answer), f"{label}: the answer does not follow the last six words in the text")
    need(verbatim >= 8, f"{where}: {verbatim} verbatim prompts of 10 words or more, not at least 8")
    unique([c.get("prompt", "") for c in cloze], where)
    unique([c.get("answer", "") for c in cloze], where)
    for prompt in free:
        need(prompt == flat(prompt), f"{where}: stray spaces in {prompt!r}")
        need(5 <= len(words(prompt)) <= 15, f"{where}: {prompt!r} is not 5 to 15 words")
    unique(free, where)
    return title, text, verbatim, [c.get("answer", "") for c in cloze]


def check_control(name):
    passages = read_json(ROOT / "control" / name).get("passages", [])
    need(len(passages) == 20, f"control/{name}: {len(passages)} passages, not 20")
    for passage in passages:
        title, text = passage.get("title", ""), passage.get("text", "")
        count = len(words(text))
        need(80 <= count <= 120, f"control/{name}: {title!r} has {count} words, not 80 to 120")
        need(text == flat(text), f"control/{name}: {title!r} has stray spaces")
    return passages


def check_wander(texts):
    data = read_json(ROOT / "wander.json")
    passages = data.get("passages", [])
    need(data.get("title"), "wander.json: no title")
    places = [p.get("source") for p in passages]
    need(len({p for p in places if p}) >= 4, "wander.json: fewer than four sources")
    need(places.count(None) == 1 and None in places[1:-1], "wander.json: not exactly one null passage in between")
    need(all(a != b for a, b in zip(places, places[1:])), "wander.json: neighbours from the same source")
    for number, passage in enumerate(passages):
        source, text = passage.get("source"), passage.get("text", "")
        label = f"wander.json: passage {number} ({source})"
        sentences = re.split(r"(?<=[.!?])\s+", text.strip())
        need(40 <= len(words(text)) <= 70, f"{label}: {len(words(text))} words, not 40 to 70")
        need(2 <= len(sentences) <= 4, f"{label}: {len(sentences)} sentences, not 2 to 4")
        need(text == flat(text), f"{label}: stray spaces")
        if source is None:
            continue
        if need(source in texts, f"{label}: unknown source"):
            literal = sum(s in texts[source] for s in sentences)
            need(2 * literal > len(sentences), f"{label}: mostly not taken from its source")
    return len(passages)


def main():
    paths = sorted((ROOT / "sources").glob("*.txt"))
    need(len(paths) >= 8, f"sources: {len(paths)} texts, not at least 8")
    need({p.stem for p in paths} == {p.stem for p in (ROOT / "sources").glob("*.json")}, "sources: .txt and .json do not pair")
    sources = {p.stem: check_source(p) for p in paths if p.with_suffix(".json").exists()}

    control = check_control("development.json") + check_control("test.json")
    unique([p.get("text", "") for p in control], "control")

    essays = []
    total = 0
    for path in sorted((ROOT / "prose").glob("*.txt")):
        need(re.fullmatch(r"\d\d-[a-z0-9-]+\.txt", path.name), f"prose/{path.name}: name is not NN-title.txt")
        title, body = titled(path)
        count = len(words(body))
        need(count >= 500, f"prose/{path.name}: {count} words, not at least 500")
        total += count
        essays.append((title, body))
    need(total >= 10000, f"prose: {total} words, not at least 10,000")

    titles = [s[0] for s in sources.values()] + [p.get("title", "") for p in control] + [e[0] for e in essays]
    unique(titles, "titles")
    need(all(titles), "a title is missing")

    # No invented name may leak into the text on which locality is measured: names are answers with a capital.
    other = flat(" ".join([p.get("text", "") for p in control] + [e[1] for e in essays]))
    for name, (_, text, _, answers) in sources.items():
        for answer in answers:
            if answer[:1].isupper():
                need(not re.search(rf"\b{re.escape(answer)}\b", other), f"{name}: {answer!r} occurs in control or prose")
            for rival, (_, rival_text, _, _) in sources.items():
                shared = rival != name and answer[:1].isupper() and re.search(rf"\b{re.escape(answer)}\b", rival_text)
                need(not shared, f"{name}: {answer!r} occurs in {rival} too")

    # No sentence occurs twice anywhere.
    everything = [s[1] for s in sources.values()] + [p.get("text", "") for p in control] + [flat(e[1]) for e in essays]
    sentences = [s for t in everything for s in re.split(r"(?<=[.!?])\s+", t) if len(words(s)) >= 6]
    unique(sentences, "sentences")

    count = check_wander({name: s[1] for name, s in sources.items()})
    readme = read(ROOT / "README.md")
    need(len(readme.splitlines()) <= 25, "README.md: more than 25 lines")

    if problems:
        print("\n".join(problems), file=sys.stderr)
        print(f"samples: {len(problems)} problem(s)", file=sys.stderr)
        return 1
    verbatim = sum(s[2] for s in sources.values())
    print(f"samples: {len(sources)} sources ({verbatim} of {10 * len(sources)} cloze prompts verbatim), "
          f"{len(control)} control passages, {len(essays)} essays with {total} words, {count} wander passages: all good")
    return 0


if __name__ == "__main__":
    sys.exit(main())

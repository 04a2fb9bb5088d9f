"""Every relative link in a markdown file leads to a file or folder that is there, and to a heading in it."""
import os
import posixpath
import re

from common import main, read, sources

LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]*)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINITION = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$", re.MULTILINE)
SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def without_code(text):
    """Blanks instead of code, so that the line numbers stay."""
    text = re.sub(r"^( {0,3})(```|~~~).*?^ {0,3}\2[^\n]*$", lambda m: "\n" * m.group().count("\n"), text,
                  flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", lambda m: " " * len(m.group()), text)


def anchors(text):
    """GitHub's: the heading in lower case, without punctuation, blanks as '-', repeats numbered."""
    found = set()
    fenced = re.sub(r"^( {0,3})(```|~~~).*?^ {0,3}\2[^\n]*$", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$", fenced, re.MULTILINE):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        name, count = slug, 0
        while name in found:
            count += 1
            name = f"{slug}-{count}"
        found.add(name)
    found.update(re.findall(r"<a\s+(?:id|name)=\"([^\"]+)\"", text))
    return found


def breach(root, path, target, known):
    """What is wrong with a link from `path`, or None."""
    name, _, anchor = target.partition("#")
    place = posixpath.normpath(posixpath.join(posixpath.dirname(path), name)) if name else path
    if place.startswith(".."):
        return "a place inside the project"
    if place not in known and not any(k.startswith(place + "/") for k in known) and place != ".":
        return "a file or folder of the project"
    if anchor and (not place.endswith(".md") or anchor not in anchors(read(root, place))):
        return f"a heading '#{anchor}' in {place}"
    return None


def find_breaches(root):
    known = set(sources(root, ("",)))
    breaches = []
    for path in sorted(p for p in known if p.endswith(".md")):
        text = without_code(read(root, path))
        for match in [*LINK.finditer(text), *DEFINITION.finditer(text)]:
            target = match.group(1)
            if SCHEME.match(target) or target.startswith("//"):
                continue
            expected = breach(root, path, target, known)
            if expected:
                line = text.count("\n", 0, match.start()) + 1
                breaches.append(f"{path}:{line}: link: expected {expected}, found {target or 'nothing'}")
    return breaches


if __name__ == "__main__":
    main(find_breaches, {"absent.md": "[there](gone.md)\n", "docs/heading.md": "# One\n[two](#two)\n",
                         "docs/other.md": "[its](heading.md#three)\n", "outside.md": "see [up](../up.md)\n",
                         "defined.md": "[it][x]\n\n[x]: gone.txt\n", "folder.md": "[f](nowhere/)\n"})

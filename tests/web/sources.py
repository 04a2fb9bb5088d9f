"""Rules about the inspector's sources that need no browser: nothing turns text into markup or code, nothing is
styled in HTML, nothing comes from elsewhere, every file says what it is for."""
import pathlib
import re
import unittest

WEB = pathlib.Path(__file__).resolve().parents[2] / "controller" / "web"
MARKUP = re.compile(r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|setHTML|DOMParser|"
                    r"createContextualFragment|parseFromString|new Function|srcdoc)\b|\beval\(")
OUTSIDE = re.compile(r"(https?:)?//[a-z0-9-]+\.[a-z]{2,}", re.IGNORECASE)
INLINE = re.compile(r"<[^>]*\s(style|on[a-z]+)\s*=|<style|<script(?![^>]*\ssrc=)|javascript:", re.IGNORECASE)
# "kRefused" of lib/dom.js names what it refuses.
NAMES_THEM = {"lib/dom.js": "const kRefused"}


def breaches(name, text):
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if name in NAMES_THEM and line.startswith(NAMES_THEM[name]):
            continue
        for what, rule in (("makes markup or code of text", MARKUP), ("comes from elsewhere", OUTSIDE),
                           ("is inline", INLINE)):
            if rule.search(line) and (rule is not INLINE or name.endswith(".html")):
                found.append(f"{name}:{number}: {what}: {line.strip()}")
    if name.endswith(".js") and not text.startswith("// "):
        found.append(f"{name}: expected its purpose at the top")
    return found


class Sources(unittest.TestCase):
    def test_the_rules_hold(self):
        files = [p for p in WEB.rglob("*") if p.suffix in (".js", ".html", ".css")]
        self.assertGreater(len(files), 10)
        found = [b for p in files for b in breaches(str(p.relative_to(WEB)), p.read_text(encoding="utf-8"))]
        self.assertEqual(found, [])

    def test_a_breach_is_found(self):
        for name, text in (("a.js", "// It\nnode.innerHTML = text;"), ("a.js", "no purpose"),
                           ("a.js", "// It\neval(x)"),
                           ("a.js", "// It\nfetch('https://example.org/x')"),
                           ("a.html", "<b style='color: red'>"), ("a.html", "<script>run()</script>"),
                           ("a.html", "<p onclick='x()'>"),
                           ("a.css", "a { background: url(//cdn.example.org/a.png); }")):
            self.assertNotEqual(breaches(name, text), [], text)


if __name__ == "__main__":
    unittest.main()

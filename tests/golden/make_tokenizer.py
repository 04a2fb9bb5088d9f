#!/usr/bin/env python3
"""Golden ids of the default model's tokenizer: tokenizer.jsonl and tokenizer_digits.jsonl.

    make_tokenizer.py OUT --model GGUF [--seed N] [--text FILE|DIR]

Ids and decoded text are llama.cpp's (no BOS, special tokens recognised). `mix` joins difficult
pieces at random, `text` are slices of real text cut anywhere between two characters; the digits
file has whitespace and letters before numerals, where pre-tokenizers are easily wrong.
"""
import argparse
import json
import os

from llama_cpp import Llama

from golden_set import generators
from make_models import articles

PIECES = [
    " ", "  ", "   ", "\n", "\n\n", " \n", "\n ", "\t", "\t\t", "\r\n", "\u00a0", "\u3000", "a", "the", " the", "Hello", "'s",
    "'ll", "'LL", "can't", "I've", " we'd", "naïve", "Ünïcode", "ß", "ﬁ", "é", "e\u0301", "Ελλάδα", "Привет", "你好", "日本語",
    "العربية", "עברית", "हिन्दी", "ไทย", "한국어", "😀", "👩‍👩‍👧", "🇩🇪", "€", "£", "∑∫", "→", "...", "…", "--", "—", "!?", "<unk>",
    "@-@", "{}", "()", "[0]", "==", "!=", "//", "/*", "*/", "#", "\\n", "\"", "`", "~", "a_b", "snake_case", "CamelCase",
    "http://x.org/?q=1&r=2", "0", "7", "42", "2024", "3.14", "1,000", "1e-9", "0x1F", "v2.0.1", "½", "²", "٣", "Ⅳ", "①",
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "\x01", "\x7f", "\u200b", "\ufeff",
]
NUMERALS = ["0", "7", "42", "1999", "3.5", "½", "²", "٣", "①", "Ⅷ", "१२", "𝟙"]
BEFORE = ["", " ", "  ", "   ", "\n", "\n\n", " \n ", "\t", "x", " x", "x ", "é", "-", "(", "$", "٪", "\u00a0", "第"]


def case(vocabulary, text, kind):
    ids = vocabulary.tokenize(text.encode(), add_bos=False, special=True)
    decoded = vocabulary.detokenize(ids, special=True).decode("utf-8", errors="replace")
    return {"text": text, "ids": ids, "decoded": decoded, "roundtrip": decoded == text, "kind": kind}


def write(path, cases):
    with open(path, "w") as file:
        file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in cases)
    print(f"{os.path.basename(path)}: {len(cases)} cases", flush=True)


def slices(rng, texts, count):
    for _ in range(count):
        text = rng.choice(texts)
        first = rng.randrange(len(text))
        yield text[first:first + rng.randint(1, 300)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--model", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--text", default=os.path.join(os.path.dirname(__file__), "../../samples/prose"))
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    rng, _ = generators(1000 * args.seed + 400)
    vocabulary = Llama(model_path=args.model, vocab_only=True, verbose=False)

    texts = ["", *PIECES]
    cases = [case(vocabulary, text, "crafted") for text in texts]
    cases += [case(vocabulary, "".join(rng.choices(PIECES, k=rng.randint(2, 12))), "mix") for _ in range(100)]
    cases += [case(vocabulary, text, "text") for text in slices(rng, articles(args.text), 120)]
    write(os.path.join(args.out, "tokenizer.jsonl"), cases)

    digits = ["".join(rng.choice(BEFORE) + rng.choice(NUMERALS) for _ in range(rng.randint(1, 5))) for _ in range(60)]
    write(os.path.join(args.out, "tokenizer_digits.jsonl"), [case(vocabulary, text, "digits") for text in digits])


if __name__ == "__main__":
    main()

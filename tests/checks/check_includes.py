"""Who may include whom (docs/architecture.md), and which packages only certain files may see."""
import re

from common import main, read, sources

# Folder -> project folders it may include from. The longest matching prefix decides.
ALLOWED = {
    "shared/base": ["shared/base"],
    "shared/tensor": ["shared/base", "shared/tensor"],
    "shared/files": ["shared/base", "shared/tensor", "shared/files"],
    "shared/memory": ["shared/base", "shared/tensor", "shared/memory"],
    "shared/wire": ["shared/base", "shared/tensor", "shared/memory", "shared/wire"],
    "shared/transport": ["shared/base", "shared/transport", "shared/wire", "shared/memory"],
    "shared/http": ["shared/base", "shared/http"],
    "shared/trace": ["shared/base", "shared/memory", "shared/wire", "shared/trace"],
    "storage": ["shared", "storage"],
    "rl": ["shared", "rl"],
    "controller": ["shared", "storage", "rl", "controller"],
    "generator": ["shared", "generator"],
    "cli": ["shared", "cli"],
}
# Package header -> the only files that may include it.
ONLY = {
    r"rocksdb/": r"storage/rocksdb_\w+\.(cc|h)$|tests/storage/",
    r"torch/": r"rl/\w+_torch\.(cc|h)$",
    r"zmq\.": r"shared/transport/|tests/transport/",
    r"\w+_generated\.h": r"shared/wire/|shared/trace/",
    r"generator/(cpu|cuda)/": r"generator/(backend/open_backend\.cc|cpu/|cuda/)|tests/",
    r"boost/(asio|beast)": r"shared/http/|tests/http/",
    r"prometheus/": r"shared/base/metrics\.cc$",
    r"(dnnl|oneapi)": r"generator/cpu/|tests/",
}


def allowed_for(path):
    prefixes = [p for p in ALLOWED if path.startswith(p + "/")]
    return ALLOWED[max(prefixes, key=len)] if prefixes else None


def find_breaches(root):
    breaches = []
    for path in sources(root, (".cc", ".h", ".cu")):
        allowed = allowed_for(path)
        for included in re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', read(root, path), re.M):
            for package, files in ONLY.items():
                if re.match(package, included) and not re.match(files, path):
                    breaches.append(f"{path}: only {files} may include {included}")
            top = included.split("/")[0]
            if allowed is None or top not in ("shared", "storage", "rl", "controller", "generator", "cli"):
                continue
            if not any(included.startswith(prefix + "/") for prefix in allowed):
                breaches.append(f"{path}: may include from {allowed}, found {included}")
    return breaches


if __name__ == "__main__":
    main(find_breaches, {
        "shared/base/a.cc": '#include "shared/wire/codec.h"\n',
        "generator/model/b.cc": '#include "storage/bank_store.h"\n',
        "controller/c.cc": "#include <rocksdb/db.h>\n",
        "generator/model/d.cc": '#include "generator/cpu/cpu_backend.h"\n',
    })

"""Writes a GGUF again with other block types, through llama.cpp's own quantiser.

    llama_cpp_convert.py IN OUT BF16|Q4_0|Q8_0

Requantised from the dense values of IN, whatever its types; nothing happens where OUT exists.
"""
import ctypes
import os
import sys

import llama_cpp

TYPES = {"BF16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16, "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
         "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0}


def main():
    source, target, kind = sys.argv[1:]
    if os.path.exists(target):
        return
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = TYPES[kind]
    params.allow_requantize = True
    params.nthread = 2
    os.makedirs(os.path.dirname(target), exist_ok=True)
    part = f"{target}.{os.getpid()}.part"
    status = llama_cpp.llama_model_quantize(source.encode(), part.encode(), ctypes.byref(params))
    if status != 0:
        sys.exit(f"llama_model_quantize {kind}: expected 0, found {status}")
    os.rename(part, target)  # whole or not at all


if __name__ == "__main__":
    main()

"""The list of embeddings that TensorBoard's projector reads: `projector_config.pbtxt`."""

import json
import os
import re
import tempfile
from pathlib import Path

_NAME = "projector_config.pbtxt"
_BEGIN = re.compile(r"embeddings\s*:?\s*\{")
# A quoted text, or a brace outside of one.
_TOKEN = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|#[^\n]*|[{}]")


def update_config(log_dir, entry):
    """Put `entry` into the folder's list, in place of one of the same name; return the path."""
    path = Path(log_dir) / _NAME
    old = path.read_text("utf-8") if path.exists() else ""
    blocks, rest = _split(old)
    wanted = re.compile(rf"tensor_name\s*:\s*[\"']{re.escape(entry['tensor_name'])}[\"']")
    kept = [block for block in blocks if not wanted.search(block)]
    parts = [rest.strip(), *kept, _block(entry)]
    replace_file(path, "".join(f"{part}\n" for part in parts if part).encode())
    return path


def replace_file(path, content):
    """Write bytes, or let `content(file)` write; a reader sees the old file or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
        # Temporary files are private; TensorBoard may run as somebody else.
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _split(text):
    """Return the `embeddings { ... }` blocks of a config, and the text around them."""
    blocks, rest, position = [], "", 0
    while begin := _BEGIN.search(text, position):
        depth, end = 1, len(text)
        for token in _TOKEN.finditer(text, begin.end()):
            depth += {"{": 1, "}": -1}.get(token.group(), 0)
            if depth == 0:
                end = token.end()
                break
        rest += text[position : begin.start()]
        blocks.append(text[begin.start() : end])
        position = end
    return blocks, rest + text[position:]


def _block(entry):
    lines = [f"  tensor_name: {json.dumps(entry['tensor_name'])}"]
    lines += [f"  tensor_shape: {size}" for size in entry["tensor_shape"]]
    lines += [f"  tensor_path: {json.dumps(entry['tensor_path'])}"]
    if "metadata_path" in entry:
        lines += [f"  metadata_path: {json.dumps(entry['metadata_path'])}"]
    if "sprite_path" in entry:
        lines += ["  sprite {", f"    image_path: {json.dumps(entry['sprite_path'])}"]
        lines += [f"    single_image_dim: {size}" for size in entry["sprite_size"]]
        lines += ["  }"]
    return "\n".join(["embeddings {", *lines, "}"])

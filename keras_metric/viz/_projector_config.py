"""The list of embeddings that TensorBoard's projector reads: `projector_config.pbtxt`."""

import json
import os
import re
import tempfile
from pathlib import Path

_NAME = "projector_config.pbtxt"
# A quoted text or a comment, which may hold braces of its own; else what opens or closes a block.
_TOKEN = re.compile(
    r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|#[^\n]*|\bembeddings\s*:?\s*\{|[{}]"
)


def update_config(log_dir, entry):
    """Put `entry` into the folder's list, in place of one of the same name; return the path."""
    path = Path(log_dir) / _NAME
    try:
        old = path.read_text("utf-8") if path.exists() else ""
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{str(path)!r} must be a list of embeddings for TensorBoard, in UTF-8. Received: "
            f"{error}. Remove the file."
        ) from None
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
    blocks, rest, depth, begin, end = [], "", 0, None, 0
    for token in _TOKEN.finditer(text):
        if token.group()[-1] == "{" and token.group()[0] in "e{":
            if depth == 0 and token.group() != "{":
                begin = token.start()
            depth += 1
        elif token.group() == "}":
            depth -= 1
            if depth == 0 and begin is not None:
                blocks.append(text[begin : token.end()])
                rest += text[end:begin]
                begin, end = None, token.end()
    return blocks, rest + text[end:]


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

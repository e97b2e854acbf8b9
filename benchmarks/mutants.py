"""Mutation test: do the tests detect small faults, one at a time, in a fixed sample of expressions?

A mutant is one change of an expression: `<` to `<=`, `+` to `-`, 1 to 2, `min` to `max`, a negated
condition. It is killed if a test of its file fails or does not end. A hash of the expression
decides whether it belongs to the sample, so that edits elsewhere do not change the sample.

    python benchmarks/mutants.py                  # the whole sample; hours
    python benchmarks/mutants.py --resume         # continue an interrupted run
    python benchmarks/mutants.py --fraction 0.05  # the first 5 % of the sample
    python benchmarks/mutants.py --only losses/triplet/triplet_loss.py

The result is written to benchmarks/results/mutants.json; `make health` reads it. EXPLAINED below
gives the reason for survivors that do not change the results.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_metric"
RESULT = ROOT / "benchmarks/results/mutants.json"
SAMPLE, LIMIT = 200, 900  # mutants; seconds for one
MARKED = "not slow and not parity and not milvus and not browser"
PATTERNS = (
    "distances.py",
    "evaluation/**/*.py",
    "losses/**/*.py",
    "metrics/*.py",
    "mining/*.py",
    "pairwise/*.py",
)
TESTS = {
    "distances": ("test_distances.py", "losses/test_formulas.py"),
    "evaluation": ("evaluation",),
    "metrics": ("metrics",),
    "mining": ("mining",),
    "pairwise": ("mining", "losses"),
}
# "file:line text": why the mutant and the original give the same results.
EXPLAINED = {
    "mining/triplet_rules.py:pick: 1 - 1e-07 to Add": "the noise itself ends at 1 - 6e-8",
    "mining/pair_rules.py:uniform_histogram: 2 ** 31 - 1 to Add": "changes one sample in "
    "700 million of one bin",
    "evaluation/_distances.py:_widened: (halves, ones) if first else (ones, halves) condition "
    "turned over": "both factors of the product have their columns in the other order",
    "losses/angular_loss.py:backward: 0 to one more": "the matrix is square",
    "evaluation/_counting.py:_count: _MOST_DOUBTS * close.size to Div": "selects between two "
    "methods with the same result",
    "evaluation/_ranks.py:_ranks: self.first <= MOST_COUNTED to <": "selects between two methods "
    "with the same result",
    "evaluation/_ranks.py:_pass_over: last - left to Add": "left is 0, or the class ends the block",
    "pair_draws.py:measure: 1 to one more (2)": "pairs of a block, of one pair each",
    "evaluation/_precomputed.py:__iter__: 1 to one more (7)": "rows of a block, of one item each",
    "losses/listwise_loss.py:with_anchor: 1 to one more (3)": "-2 is no column either; indexes "
    "after the last one become the last one",
    "losses/row_blocks.py:grad: len(gradients) > 1 to >=": "a list of one gradient",
    "losses/triplet_rows.py:step: -1 to plus": "the last axis of a matrix is its axis 1",
    "mining/columns.py:draw_noise: 2221713035 - 2 ** 32 to Add": "equal modulo 2 ** 32",
    "mining/triplet_rules.py:_turn: 2 to one more": "a rotation by another irrational number",
    "distances.py:_elementwise_euclidean: squared > _TINY ** 2 to >=": "a distance of exactly 1e-7",
}

COMPARED = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
REVERSED = {"<=": ast.LtE, "<": ast.Lt, ">=": ast.GtE, ">": ast.Gt, "!=": ast.NotEq, "==": ast.Eq}
CALCULATED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
OPPOSITE = {
    **{"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"},
    **{"argmin": "argmax", "argmax": "argmin", "logical_and": "logical_or", "any": "all"},
    **{"logical_or": "logical_and", "all": "any", "ones_like": "zeros_like"},
}


def mutations(node):
    """Yield the changes of one node as `(description, function that changes it in place)`."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARED:
        other = COMPARED[type(node.ops[0])]
        yield f"to {other}", lambda n: n.ops.__setitem__(0, REVERSED[other]())
    if isinstance(node, ast.BinOp) and type(node.op) in CALCULATED:
        other = CALCULATED[type(node.op)]
        yield f"to {other.__name__}", lambda n: setattr(n, "op", other())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "to plus", lambda n: setattr(n, "op", ast.UAdd())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "to no not", lambda n: setattr(n, "operand", ast.UnaryOp(ast.Not(), n.operand))
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield "to one more", lambda n: setattr(n, "value", n.value + 1)
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield "turned over", lambda n: setattr(n, "value", not n.value)
    if isinstance(node, ast.Attribute) and node.attr in OPPOSITE:
        yield f"to {OPPOSITE[node.attr]}", lambda n: setattr(n, "attr", OPPOSITE[n.attr])
    if isinstance(node, (ast.If, ast.IfExp)):
        yield "condition turned over", lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))


def in_formulas(tree):
    """Yield the nodes of function bodies, without docstrings, messages, signatures and checks."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name in ("get_config", "__init__"):
            continue
        todo = list(function.body)
        while todo:
            node = todo.pop()
            if isinstance(node, (ast.FunctionDef, ast.Raise, ast.JoinedStr)):
                continue
            if isinstance(node, ast.If) and any(isinstance(part, ast.Raise) for part in node.body):
                continue
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called.startswith(("check_", "warnings.", "super")):
                continue
            yield function.name, node
            todo += list(ast.iter_child_nodes(node))


def all_mutants():
    """Yield every mutant as (hash, file, key, number among equal keys)."""
    for path in sorted(path for pattern in PATTERNS for path in PACKAGE.glob(pattern)):
        if path.name == "__init__.py":
            continue
        counts = {}
        for function, node in in_formulas(ast.parse(path.read_text("utf-8"))):
            for what, _ in mutations(node):
                name = str(path.relative_to(PACKAGE))
                text = ast.unparse(node).split("\n")[0][:80]
                key = f"{name}:{function}: {text} {what}"
                number = counts[key] = counts.get(key, -1) + 1
                digest = hashlib.sha256(f"{key} {number}".encode()).hexdigest()
                yield digest, name, key, number


def name_of(key, number):
    """Return the name of a mutant; equal expressions of a function are numbered."""
    return f"{key} ({number + 1})" if number else key


def mutated(name, key, number):
    """Return the source of a file with one mutant, and its line number."""
    tree = ast.parse((PACKAGE / name).read_text("utf-8"))
    count = -1
    for function, node in in_formulas(tree):
        for what, make in mutations(node):
            text = ast.unparse(node).split("\n")[0][:80]
            count += f"{name}:{function}: {text} {what}" == key
            if count == number:
                make(node)
                return ast.unparse(ast.fix_missing_locations(tree)), node.lineno
    raise ValueError(f"The source has no mutant {key}.")


def tests_of(name):
    """Return the arguments of one or more runs of pytest that should detect a mutant of a file."""
    unit = Path(name).parts[0].removesuffix(".py")
    if unit != "losses":
        return [[f"tests/{test}" for test in TESTS[unit]]]
    # For a file without a public loss run the tests of all losses, and those on two devices.
    public = re.findall(r"^@export\nclass (\w+)\(", (PACKAGE / name).read_text("utf-8"), re.M)
    tests = []
    for path in sorted((ROOT / "tests/losses").glob("test_losses*.py")):
        text = path.read_text("utf-8")
        if not public or any(re.search(rf"\b{cls}\b", text) for cls in public):
            tests.append(f"tests/losses/{path.name}")
    if not public:
        return [
            ["tests/losses/test_formulas.py", *tests, "-m", f"{MARKED} and not thorough"],
            ["tests/distributed/test_replicas.py", "-m", "slow"],
        ]
    return [
        ["tests/losses/test_formulas.py", *tests],
        ["tests/test_contract.py", "-k", " or ".join(public)],
    ]


def survives(folder, name, source):
    """Return whether all tests pass with a mutant, or None if they take too long."""
    target = folder / "keras_metric" / name
    original = target.read_text("utf-8")
    target.write_text(source, "utf-8")
    try:
        child = os.fork()
        if child == 0:
            _test(folder, tests_of(name))
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status) == 0
            time.sleep(0.2)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None
    finally:
        target.write_text(original, "utf-8")


def _test(folder, tests):
    """Run the tests of the copy in the child process; exit with 1 if a test fails, else with 0."""
    with open(os.devnull, "w") as silence:
        os.dup2(silence.fileno(), 1)
        os.dup2(silence.fileno(), 2)
    os.chdir(folder)
    sys.path[:0] = [str(folder), str(folder / "tests")]
    # For the child processes of tests.
    os.environ["PYTHONPATH"] = str(folder)
    import pytest

    always = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", MARKED]
    always += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    for some in tests:
        code = pytest.main([*always, *some])
        # A run without tests cannot detect the mutant.
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            os._exit(1)
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fraction", type=float, default=1.0, help="of the sample, 0 to 1")
    parser.add_argument("--only", default="", help="files whose path contains this text")
    parser.add_argument("--resume", action="store_true", help="keep the results of an earlier run")
    parser.add_argument("--list", action="store_true", help="print the sample, run nothing")
    chosen = parser.parse_args()
    sample = sorted(all_mutants())[:SAMPLE]
    sample = sample[: round(SAMPLE * chosen.fraction)]
    sample = [mutant for mutant in sample if chosen.only in mutant[1]]
    if chosen.list:
        print("\n".join(key for _, _, key, _ in sample))
        return
    # Import these before all forks, because they take seconds.
    import keras  # noqa: F401
    import sklearn.cluster  # noqa: F401

    found = {"killed": [], "no end": [], "survived": []}
    if chosen.resume and RESULT.exists():
        before = json.loads(RESULT.read_text("utf-8"))
        names = {name_of(key, number) for _, _, key, number in sample}
        found = {word: [key for key in before[word] if key in names] for word in found}
    decided = {key for keys in found.values() for key in keys}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for part in ("keras_metric", "tests"):
            shutil.copytree(
                ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        for file in ("setup.cfg", "docs", "examples", "README.md", "CHANGELOG.md"):
            (folder / file).symlink_to(ROOT / file)
        tested = set()
        for _, name, key, number in sample:
            title = name_of(key, number)
            if title in decided:
                continue
            # Tests that fail without a mutant would kill every mutant.
            unit, original = Path(name).parts[0], (PACKAGE / name).read_text("utf-8")
            if unit not in tested and not survives(folder, name, original):
                sys.exit(f"The tests of {name} fail without a mutant. Correct them first.")
            tested.add(unit)
            source, line = mutated(name, key, number)
            start = time.monotonic()
            survived = survives(folder, name, source)
            word = {None: "no end", True: "survived", False: "killed"}[survived]
            found[word].append(title)
            print(f"{word:8} {time.monotonic() - start:5.0f} s  line {line}  {title}", flush=True)
            if not chosen.only and chosen.fraction == 1:
                RESULT.write_text(json.dumps({"sample": len(sample), **found}, indent=1) + "\n")
    killed = (len(found["killed"]) + len(found["no end"])) / max(1, len(sample))
    print(f"{killed:.1%} of {len(sample)} mutants killed; {len(found['survived'])} survived")


if __name__ == "__main__":
    main()

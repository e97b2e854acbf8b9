"""Do the tests notice a wrong formula? Small faults, one at a time, in a fixed sample of places.

A mutant is one change of one place: `<` to `<=`, `+` to `-`, 1 to 2, `min` to `max`, a condition
turned over. It is killed if a test of that file fails, or does not end. Which places are taken is
decided by a hash of what stands there, so that an edit elsewhere leaves the sample as it was.

    python benchmarks/mutants.py                  # all of the sample; hours
    python benchmarks/mutants.py --resume         # go on where a run was broken off
    python benchmarks/mutants.py --share 0.05     # the first twentieth of it
    python benchmarks/mutants.py --only losses/triplet_loss.py

The result goes to benchmarks/results/mutants.json; `make health` reads it. A survivor that changes
nothing that anybody could see has its reason in EXPLAINED below.
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
WHERE = (
    "distances.py",
    "pair_draws.py",
    "pairs.py",
    "roc.py",
    "losses/*.py",
    "mining/*.py",
    "evaluation/*.py",
)
TESTS = {
    "distances": ("test_distances", "test_formulas"),
    "pair_draws": ("test_pair_distances", "test_viz"),
    "pairs": ("test_mining", "test_formulas", "test_losses", "test_losses_softmax"),
    "roc": ("test_verification", "test_identification"),
    "mining": ("test_mining", "test_mining_pairs"),
    "evaluation": (
        *("test_retrieval", "test_verification", "test_identification", "test_clustering"),
        *("test_geometry", "test_few_shot", "test_postprocessing", "test_pair_distances"),
        "test_streaming",
    ),
}
# "file:line text": why no test can tell the mutant from the original.
EXPLAINED = {
    "mining/triplet_rules.py:pick: 1 - 1e-07 to Add": "the noise itself ends at 1 - 6e-8",
    "mining/pair_rules.py:uniform_histogram: 2 ** 31 - 1 to Add": "the integers of a bin are the "
    "same but for one bin alone, and there for one draw in 700 million",
    "evaluation/_distances.py:_widened: (halves, ones) if first else (ones, halves) condition "
    "turned over": "both factors of the product get their columns in the other order",
    "losses/angular_loss.py:backward: 0 to one more": "the matrix is square",
    "evaluation/_counting.py:_count: _MOST_DOUBTS * close.size to Div": "decides how numbers are "
    "counted that are the same either way",
    "evaluation/_ranks.py:_ranks: self.first <= MOST_COUNTED to <": "decides how ranks are found "
    "that are the same either way",
    "evaluation/_ranks.py:_pass_over: last - left to Add": "left is 0, or the class ends the block",
    "pair_draws.py:measure: 1 to one more (2)": "pairs of a block, of one pair each",
    "evaluation/_precomputed.py:__iter__: 1 to one more (7)": "rows of a block, of one item each",
    "losses/listwise_loss.py:with_anchor: 1 to one more (3)": "-2 is nobody's column either, and a "
    "place beyond the last one becomes the last one",
    "losses/row_blocks.py:grad: len(gradients) > 1 to >=": "a list of one gradient in place of it",
    "pairwise/triplets_by_rank.py:step: -1 to plus": "the last axis of a matrix is its axis 1",
    "mining/columns.py:draw_noise: 2221713035 - 2 ** 32 to Add": "the same but for multiples of "
    "2 ** 32",
    "mining/triplet_rules.py:_turn: 2 to one more": "a turn by another irrational number",
    "distances.py:_elementwise_euclidean: squared > _TINY ** 2 to >=": "a distance of 1e-7 "
    "to the last digit",
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
    """The changes of one node, each as `(what, function that makes it in place)`."""
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
    """The nodes of function bodies, without docstrings, messages, signatures and checks."""
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


def places():
    """Every mutant as (hash, file, function, number among the function's, description)."""
    for path in sorted(path for where in WHERE for path in PACKAGE.glob(where)):
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


def titled(key, number):
    """A mutant's name: the same text may stand more than once in a function."""
    return f"{key} ({number + 1})" if number else key


def mutated(name, key, number):
    """The source of a file with one of its mutants, and the line."""
    tree = ast.parse((PACKAGE / name).read_text("utf-8"))
    seen = -1
    for function, node in in_formulas(tree):
        for what, make in mutations(node):
            text = ast.unparse(node).split("\n")[0][:80]
            seen += f"{name}:{function}: {text} {what}" == key
            if seen == number:
                make(node)
                return ast.unparse(ast.fix_missing_locations(tree)), node.lineno
    raise ValueError(f"There is no such mutant any more: {key}")


def tests_of(name):
    """Arguments for pytest, run after run: the tests that should notice, the nearest first."""
    unit = Path(name).parts[0].removesuffix(".py")
    if unit != "losses":
        stem = Path(name).stem.strip("_")
        files = sorted(TESTS[unit], key=lambda test: stem.rstrip("s") not in test)
        return [[f"tests/{test}.py" for test in files]]
    # Of a base of several losses no test bears the name: all of them should notice, and those
    # that train on two devices, slow as they are.
    public = re.findall(r"^@export\nclass (\w+)\(", (PACKAGE / name).read_text("utf-8"), re.M)
    tests = []
    for path in sorted((ROOT / "tests").glob("test_losses*.py")):
        text = path.read_text("utf-8")
        if not public or any(re.search(rf"\b{cls}\b", text) for cls in public):
            tests.append(f"tests/{path.name}")
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
    """Whether all tests pass with a mutant; None if it takes too long."""
    target = folder / "keras_metric" / name
    kept = target.read_text("utf-8")
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
        target.write_text(kept, "utf-8")


def _test(folder, tests):
    """In the child: run the tests of the copy; end with 1 if one fails, with 0 if none does."""
    with open(os.devnull, "w") as silence:
        os.dup2(silence.fileno(), 1)
        os.dup2(silence.fileno(), 2)
    os.chdir(folder)
    sys.path[:0] = [str(folder), str(folder / "tests")]
    # Some tests start a process of their own.
    os.environ["PYTHONPATH"] = str(folder)
    import pytest

    always = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", MARKED]
    always += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    for some in tests:
        code = pytest.main([*always, *some])
        # Where no test bears a class's name, none of that run could notice.
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            os._exit(1)
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="part of the sample, 0 to 1")
    parser.add_argument("--only", default="", help="files whose path holds this")
    parser.add_argument("--resume", action="store_true", help="keep what is decided already")
    parser.add_argument("--list", action="store_true", help="print the sample, run nothing")
    chosen = parser.parse_args()
    sample = sorted(places())[:SAMPLE]
    sample = sample[: round(SAMPLE * chosen.share)]
    sample = [place for place in sample if chosen.only in place[1]]
    if chosen.list:
        print("\n".join(key for _, _, key, _ in sample))
        return
    # Once, before all forks: what takes seconds and is the same for every mutant.
    import keras  # noqa: F401
    import sklearn.cluster  # noqa: F401

    found = {"killed": [], "no end": [], "survived": []}
    if chosen.resume and RESULT.exists():
        before = json.loads(RESULT.read_text("utf-8"))
        wanted = {titled(key, number) for _, _, key, number in sample}
        found = {word: [key for key in before[word] if key in wanted] for word in found}
    decided = {key for keys in found.values() for key in keys}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for part in ("keras_metric", "tests"):
            shutil.copytree(
                ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        for file in ("setup.cfg", "docs", "examples", "README.md", "CHANGELOG.md"):
            (folder / file).symlink_to(ROOT / file)
        sound = set()
        for _, name, key, number in sample:
            title = titled(key, number)
            if title in decided:
                continue
            # Tests that fail anyway would kill every mutant.
            unit, whole = Path(name).parts[0], (PACKAGE / name).read_text("utf-8")
            if unit not in sound and not survives(folder, name, whole):
                sys.exit(f"{name}: its tests fail without any mutant: mend them first.")
            sound.add(unit)
            source, line = mutated(name, key, number)
            start = time.monotonic()
            alive = survives(folder, name, source)
            word = {None: "no end", True: "survived", False: "killed"}[alive]
            found[word].append(title)
            print(f"{word:8} {time.monotonic() - start:5.0f} s  line {line}  {title}", flush=True)
            if not chosen.only and chosen.share == 1:
                RESULT.write_text(json.dumps({"sample": len(sample), **found}, indent=1) + "\n")
    share = (len(found["killed"]) + len(found["no end"])) / max(1, len(sample))
    print(f"{share:.1%} of {len(sample)} mutants killed; {len(found['survived'])} survived")


if __name__ == "__main__":
    main()

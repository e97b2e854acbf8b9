"""Mutation testing of the formulas: small faults, one at a time, that the tests should notice.

A mutant is one change of one expression: `<` to `<=`, `+` to `-`, 1 to 2, `min` to `max`, a negated
condition. It is killed if a test of that file fails, or does not end. A hash of the text decides
which expressions are in the sample, so that changes elsewhere leave the sample as it is. The sample
has a mutant of every file.

    python benchmarks/mutants.py                   # the whole sample; hours
    python benchmarks/mutants.py --resume          # only mutants without a result
    python benchmarks/mutants.py --fraction 0.05   # the first twentieth of the sample
    python benchmarks/mutants.py --only triplet_loss.py

Results are collected in benchmarks/results/mutants.json, which `make health` reads. EXPLAINED below
has the reason of each survivor that no test can notice.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_metric"
RESULT = ROOT / "benchmarks/results/mutants.json"
SAMPLE, AT_ONCE = 200, 2  # mutants; processes
# Seconds for one mutant: CPU time, so that the result does not depend on other processes, and
# elapsed time.
CPU_LIMIT, LIMIT = 600, 3600
MARKED = "not slow and not parity and not milvus and not browser"
# Units of the package with formulas, and where their tests are.
TESTS = {
    "distances": ("test_distances.py", "losses/test_formulas.py"),
    "neighbors": ("evaluation", "viz", "callbacks/test_hard_example_mining.py"),
    "pairwise": ("mining", "losses"),
    "mining": ("mining",),
    "losses": ("losses",),
    "evaluation": ("evaluation", "viz/test_viz.py"),
    "metrics": ("metrics",),
}
# "file:function: text and change": why no test can distinguish the mutant from the original.
EXPLAINED = {
    "triplet_rules.py:pick: 1 - 1e-07 to Add": "the noise ends at 1 - 6e-8",
    "pair_rules.py:uniform_histogram: 2 ** 31 - 1 to Add": "the integers of a bin are equal except "
    "for one bin, and there for one sample in 700 million",
    "_distances.py:_widened: (halves, ones) if first else (ones, halves) condition negated": "both "
    "factors of the product have their columns in the other order",
    "angular_loss.py:backward: 0 to one more": "the matrix is square",
    "_counting.py:_count: _MOST_DOUBTS * close.size to Div": "selects between two ways to count "
    "with equal results",
    "_ranks.py:_ranks: self.first <= MOST_COUNTED to <": "selects between two ways to find ranks "
    "with equal results",
    "_ranks.py:_pass_over: last - left to Add": "left is 0, or the class ends the block",
    "_precomputed.py:__iter__: 1 to one more (7)": "the number of rows in a block",
    "listwise_loss.py:with_anchor: 1 to one more (3)": "-2 is no column either, and a position "
    "beyond the last one becomes the last one",
    "blockwise.py:grad: len(gradients) > 1 to >=": "a list of one gradient instead of the gradient",
    "triplets_by_rank.py:step: -1 to plus": "the last axis of a matrix is its axis 1",
    "columns.py:draw_noise: 2221713035 - 2 ** 32 to Add": "equal modulo 2 ** 32",
    "triplet_rules.py:_turn: 2 to one more": "a rotation by another irrational number",
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
    """The changes of one node, each as `(description, function that changes the node)`."""
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
        yield "negated", lambda n: setattr(n, "value", not n.value)
    if isinstance(node, ast.Attribute) and node.attr in OPPOSITE:
        yield f"to {OPPOSITE[node.attr]}", lambda n: setattr(n, "attr", OPPOSITE[n.attr])
    if isinstance(node, (ast.If, ast.IfExp)):
        yield "condition negated", lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))


def in_formulas(tree):
    """The nodes of function bodies without messages, signatures and checks of arguments."""
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


class Mutant(NamedTuple):
    """One change; `number` counts equal changes of one function."""

    digest: str
    path: Path
    key: str
    number: int

    @property
    def title(self):
        return f"{self.key} ({self.number + 1})" if self.number else self.key


def mutants_of(path, tree):
    """Every mutant of a file, with the node and the function that changes it."""
    counts = Counter()
    for function, node in in_formulas(tree):
        text = ast.unparse(node).split("\n")[0][:80]
        for what, change in mutations(node):
            key = f"{path.name}:{function}: {text} {what}"
            digest = hashlib.sha256(f"{key} {counts[key]}".encode()).hexdigest()
            yield Mutant(digest, path, key, counts[key]), node, change
            counts[key] += 1


def unit_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def sample():
    """One mutant of each file, then others, in the order of their hashes."""
    first, others = [], []
    for path in sorted(PACKAGE.rglob("*.py")):
        if unit_of(path) in TESTS:
            tree = ast.parse(path.read_text("utf-8"))
            found = sorted(mutant for mutant, *_ in mutants_of(path, tree))
            first += found[:1]
            others += found[1:]
    return [*sorted(first), *sorted(others)][:SAMPLE]


def mutated(mutant):
    """The source of a file with one mutant, and its line."""
    tree = ast.parse(mutant.path.read_text("utf-8"))
    for other, node, change in mutants_of(mutant.path, tree):
        if other == mutant:
            line = node.lineno
            change(node)
            return ast.unparse(ast.fix_missing_locations(tree)), line
    raise ValueError(f"There is no such mutant: {mutant.title}")


def tests_of(path):
    """Arguments of the runs of pytest that should notice a mutant, the closest tests first."""
    files = [
        file
        for tests in map((ROOT / "tests").joinpath, TESTS[unit_of(path)])
        for file in (sorted(tests.glob("test_*.py")) if tests.is_dir() else [tests])
    ]
    text = path.read_text("utf-8")
    exported = re.findall(r"^@export\nclass (\w+)\(", text, re.M)
    names = exported or re.findall(r"^(?:def|class) ([a-zA-Z]\w+)", text, re.M)

    def mentions(file):
        words = re.findall(r"\w+", file.read_text("utf-8"))
        return sum(words.count(name) for name in [path.stem, *names])

    files.sort(key=mentions, reverse=True)
    if exported:
        files = [file for file in files if mentions(file) or file.name == "test_formulas.py"]
    runs = [[str(file.relative_to(ROOT)) for file in files]]
    if unit_of(path) == "losses" and exported:
        runs.append(["tests/test_contract.py", "-k", " or ".join(exported)])
    elif unit_of(path) == "losses":
        # All losses use it. The thorough tests would take too long; only those of several replicas
        # run some of its branches.
        runs[0] += ["-m", f"{MARKED} and not thorough"]
        runs.append(["tests/distributed/test_replicas.py", "-m", "slow"])
    return runs


def copy_of_the_repository(folder):
    for part in ("keras_metric", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.cfg", "docs", "examples", "README.md", "CHANGELOG.md"):
        (folder / file).symlink_to(ROOT / file)
    for file in ROOT.glob("keras_metric_*.py"):
        (folder / file.name).symlink_to(file)


def outcomes(jobs, folders):
    """Run `(path, source)` jobs at once, one in each folder; yields `(job, outcome, seconds)`.

    The outcome is "survived" if all tests pass with that source, "killed" if one fails, and "no
    end" beyond one of the limits.
    """
    todo, running, free = list(reversed(jobs)), {}, list(folders)
    while todo or running:
        while todo and free:
            job, folder = todo.pop(), free.pop()
            file = folder / job[0].relative_to(ROOT)
            file.write_text(job[1], "utf-8")
            child = os.fork()
            if child == 0:
                _test(folder, tests_of(job[0]))
            running[child] = job, folder, time.monotonic()
        time.sleep(0.2)
        for child, (job, folder, start) in list(running.items()):
            done, status = os.waitpid(child, os.WNOHANG)
            seconds = time.monotonic() - start
            if not done and seconds < LIMIT:
                continue
            if not done:
                os.kill(child, signal.SIGXCPU)
                _, status = os.waitpid(child, 0)
            del running[child]
            shutil.copyfile(job[0], folder / job[0].relative_to(ROOT))
            free.append(folder)
            code = os.waitstatus_to_exitcode(status)
            outcome = {0: "survived", -signal.SIGXCPU: "no end"}.get(code, "killed")
            yield job, outcome, seconds


def _test(folder, runs):
    """In the child: run the tests of the copy; exit with 1 if one fails, with 0 if none does."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT, resource.RLIM_INFINITY))
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
    for arguments in runs:
        code = pytest.main([*always, *arguments])
        # A run that selects no test cannot notice anything.
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            os._exit(1)
    os._exit(0)


def read_results(mutants):
    """`{title: outcome}` of the mutants that have a result."""
    found = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {}
    titles = {mutant.title for mutant in mutants}
    outcomes_found = ("killed", "no end", "survived")
    return {t: word for word in outcomes_found for t in found.get(word, ()) if t in titles}


def write_results(results, mutants):
    lists = {
        word: [mutant.title for mutant in mutants if results.get(mutant.title) == word]
        for word in ("killed", "no end", "survived")
    }
    RESULT.write_text(json.dumps({"sample": len(mutants), **lists}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fraction", type=float, default=1.0, help="of the sample, 0 to 1")
    parser.add_argument("--only", default="", help="files whose path contains this text")
    parser.add_argument("--resume", action="store_true", help="skip mutants with a result")
    parser.add_argument("--list", action="store_true", help="print the sample, run nothing")
    chosen = parser.parse_args()
    mutants = sample()
    results = read_results(mutants)
    selected = [m for m in mutants[: round(SAMPLE * chosen.fraction)] if chosen.only in str(m.path)]
    if chosen.list:
        print("\n".join(f"{results.get(m.title, 'not run'):8} {m.title}" for m in selected))
        return
    todo = [m for m in selected if not (chosen.resume and m.title in results)]
    # Imported before all forks: it takes seconds and is the same for every mutant.
    import keras  # noqa: F401
    import sklearn.cluster  # noqa: F401

    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary, str(number)) for number in range(AT_ONCE)]
        for folder in folders:
            copy_of_the_repository(folder)
        # A test that fails without any mutant would kill every mutant.
        one_of_each_unit = {unit_of(mutant.path): mutant.path for mutant in todo}.values()
        originals = [(path, path.read_text("utf-8")) for path in one_of_each_unit]
        for (path, _), outcome, _ in outcomes(originals, folders):
            if outcome != "survived":
                sys.exit(f"{path}: its tests fail without any mutant: repair them first.")
        jobs = [(mutant.path, *mutated(mutant), mutant) for mutant in todo]
        for (_, _, line, mutant), outcome, seconds in outcomes(jobs, folders):
            results[mutant.title] = outcome
            print(f"{outcome:8} {seconds:5.0f} s  line {line}  {mutant.title}", flush=True)
            write_results(results, mutants)
    counts = Counter(results.get(mutant.title, "not run") for mutant in selected)
    print(f"{len(selected)} mutants: " + ", ".join(f"{n} {word}" for word, n in counts.items()))


if __name__ == "__main__":
    main()

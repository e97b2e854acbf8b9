"""Figures about the quality of the code: `make health`.

    python benchmarks/health.py                # all parts; coverage takes as long as the tests
    python benchmarks/health.py import types api
    python benchmarks/health.py --freeze       # at a release: record the public names

- import: seconds of `import keras_metric` after `import keras`, the median of five processes.
- types: findings of mypy, with the settings in setup.cfg.
- api: public names and signatures that differ from those of the last release.
- coverage: fraction of the branches that `make test`, `make examples` and `make milvus` take, with
  the processes that they start.
- mutants: the last results of `make mutants`.
"""

import argparse
import importlib
import inspect
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
API = ROOT / "benchmarks/results/public_api.json"
MUTANTS = ROOT / "benchmarks/results/mutants.json"
MAX_SECONDS = 0.3
MIN_BRANCHES, MIN_KILLED = 0.95, 0.9

_TIMED = """
import time
import keras
start = time.perf_counter(), time.process_time()
import keras_metric
print(time.perf_counter() - start[0], time.process_time() - start[1])
"""


def run(*command, **settings):
    """The finished process of a command, run in the repository's root."""
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, **settings)


def import_time(pairs=5):
    """Seconds to import the package after Keras: elapsed time, and CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        # An installed package has its bytecode; without it Python would compile every file in every
        # process. The first process writes it and is not counted.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        found = []
        for _ in range(pairs + 1):
            answer = run(sys.executable, "-c", _TIMED, env=environment, check=True)
            found.append([float(word) for word in answer.stdout.split()[-2:]])
    elapsed, cpu = (statistics.median(column) for column in zip(*found[1:]))
    print(
        f"import: {elapsed:.2f} s after Keras, {cpu:.2f} s of CPU time "
        f"(median of {pairs}; at most {MAX_SECONDS})"
    )
    # Elapsed time grows on a busy machine; CPU time does not.
    return cpu <= MAX_SECONDS


def types():
    """Findings of mypy in the package."""
    answer = run(sys.executable, "-m", "mypy")
    print(f"types: {(answer.stdout or answer.stderr).strip().splitlines()[-1]}")
    for line in answer.stdout.splitlines()[:-1]:
        print(f"  {line}")
    return answer.returncode == 0


def public_names():
    """`{name: signature}` of everything public, the methods of classes included."""
    sys.path.insert(0, str(ROOT))
    package = importlib.import_module("keras_metric")
    found = {}
    for unit in sorted({*package.__all__, "models"}):
        module = getattr(package, unit)
        if not inspect.ismodule(module):
            continue
        for name in module.__all__:
            thing = getattr(module, name)
            found[f"{unit}.{name}"] = _signature(thing)
            if inspect.isclass(thing):
                for key, method in vars(thing).items():
                    if inspect.isfunction(method) and not key.startswith("_") and method.__doc__:
                        found[f"{unit}.{name}.{key}"] = _signature(method)
    return found


def _signature(thing):
    # Addresses of objects among the defaults change from run to run.
    return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(thing)))


def api():
    """How the public names differ from those of the last release."""
    before, now = json.loads(API.read_text()), public_names()
    lines = [f"  - {name}" for name in sorted(before["names"].keys() - now.keys())]
    lines += [f"  + {name}{now[name]}" for name in sorted(now.keys() - before["names"].keys())]
    for name in sorted(now.keys() & before["names"].keys()):
        if now[name] != before["names"][name]:
            lines += [f"  - {name}{before['names'][name]}", f"  + {name}{now[name]}"]
    print(f"api: {len(now)} public names; {len(lines)} lines differ from {before['version']}")
    print("\n".join(lines), end="\n" if lines else "")
    return True


def freeze():
    """Record the public names as those of this version."""
    names = public_names()
    version = importlib.import_module("keras_metric.version").__version__
    API.write_text(json.dumps({"version": version, "names": names}, indent=1) + "\n")
    print(f"{API.relative_to(ROOT)}: {len(names)} names of {version}")


def coverage(tests=()):
    """Fraction of the branches that the tests take."""
    marks = "not parity and not thorough and not browser"
    command = [sys.executable, "-m", "coverage"]
    pytest = ["-m", "pytest", "-q", "-n", "2", "-m", marks, *tests]
    run(*command, "erase", check=True)
    answer = run(*command, "run", *pytest, env={**os.environ, "KERAS_BACKEND": "tensorflow"})
    print(f"tests: {answer.stdout.strip().splitlines()[-1] if answer.stdout else answer.stderr}")
    run(*command, "combine", "-q", check=True)
    report = run(*command, "json", "-q", "-o", "-")
    totals = json.loads(report.stdout)["totals"]
    branches = totals["covered_branches"] / max(1, totals["num_branches"])
    lines = totals["covered_lines"] / max(1, totals["num_statements"])
    print(
        f"coverage: {branches:.1%} of {totals['num_branches']:,} branches (at least "
        f"{MIN_BRANCHES:.0%}), {lines:.1%} of the lines"
    )
    return answer.returncode == 0 and branches >= MIN_BRANCHES


def mutants():
    """The last results of `make mutants`."""
    if not MUTANTS.exists():
        print("mutants: not measured; run `make mutants`")
        return False
    from mutants import EXPLAINED

    found = json.loads(MUTANTS.read_text())
    killed = (len(found["killed"]) + len(found["no end"])) / max(1, found["sample"])
    not_run = found["sample"] - sum(len(found[word]) for word in ("killed", "no end", "survived"))
    print(
        f"mutants: {killed:.1%} of {found['sample']} killed (at least {MIN_KILLED:.0%}); "
        f"{not_run} not run"
    )
    for key in found["survived"]:
        print(f"  survived: {key}: {EXPLAINED.get(key, 'NOT EXPLAINED')}")
    return killed >= MIN_KILLED and all(key in EXPLAINED for key in found["survived"])


PARTS = {
    "import": import_time,
    "types": types,
    "api": api,
    "mutants": mutants,
    "coverage": coverage,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--freeze", action="store_true", help="record the public names")
    chosen = parser.parse_args()
    if chosen.freeze:
        freeze()
        return
    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {sorted(unknown)}")
    passed = [PARTS[part]() for part in chosen.parts or PARTS]
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()

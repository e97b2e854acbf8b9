"""The health of the code in a few figures: `make health`.

    python benchmarks/health.py                # all of it; coverage takes as long as the tests
    python benchmarks/health.py import types api
    python benchmarks/health.py --freeze       # at a release: the public names as they are now

- import: seconds of `import keras_metric` after `import keras`, the median of five processes.
- types: what mypy says, by the settings in setup.cfg.
- api: public names and signatures that differ from those of the last release.
- coverage: share of the branches that `make test`, `make examples` and `make milvus` take, with
  the processes that they start.
- mutants: what `make mutants` found last.
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
MOST_SECONDS = 0.3
LEAST_BRANCHES, LEAST_KILLED = 0.95, 0.9

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
    """Seconds of the package beyond Keras; of the clock, and of the processor alone."""
    with tempfile.TemporaryDirectory() as folder:
        # An installed package has its bytecode; where writing it is switched off, Python would
        # compile every file in every process. One process first, which writes it.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        found = []
        for _ in range(pairs + 1):
            answer = run(sys.executable, "-c", _TIMED, env=environment, check=True)
            found.append([float(word) for word in answer.stdout.split()[-2:]])
    clock, processor = (statistics.median(column) for column in zip(*found[1:]))
    print(
        f"import: {clock:.2f} s beyond Keras, {processor:.2f} s of the processor "
        f"(median of {pairs}; at most {MOST_SECONDS})"
    )
    # A busy machine takes longer by the clock; what the package costs is the processor's time.
    return processor <= MOST_SECONDS


def types():
    """What mypy says of the package."""
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
    """Write the public names down as those of this version."""
    names = public_names()
    version = importlib.import_module("keras_metric.version").__version__
    API.write_text(json.dumps({"version": version, "names": names}, indent=1) + "\n")
    print(f"{API.relative_to(ROOT)}: {len(names)} names of {version}")


def coverage(tests=()):
    """Share of the branches that the tests take."""
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
        f"{LEAST_BRANCHES:.0%}), {lines:.1%} of the lines"
    )
    return answer.returncode == 0 and branches >= LEAST_BRANCHES


def mutants():
    """What `make mutants` found last."""
    if not MUTANTS.exists():
        print("mutants: not measured; run `make mutants`")
        return False
    from mutants import EXPLAINED

    found = json.loads(MUTANTS.read_text())
    killed = (len(found["killed"]) + len(found["no end"])) / max(1, found["sample"])
    print(f"mutants: {killed:.1%} of {found['sample']} killed (at least {LEAST_KILLED:.0%})")
    for key in found["survived"]:
        print(f"  survived: {key}: {EXPLAINED.get(key, 'NOT EXPLAINED')}")
    return killed >= LEAST_KILLED and all(key in EXPLAINED for key in found["survived"])


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
    parser.add_argument("--freeze", action="store_true", help="write the public names down")
    chosen = parser.parse_args()
    if chosen.freeze:
        freeze()
        return
    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {sorted(unknown)}")
    well = [PARTS[part]() for part in chosen.parts or PARTS]
    sys.exit(not all(well))


if __name__ == "__main__":
    main()

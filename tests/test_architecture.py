"""Who may import whom, and that TensorFlow stays where it belongs."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "linknet_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
LEAVES = {"types", "config", "variants", "atomic", "command"}
PURE = LEAVES | {"ops", "pixels"}
TASKS = PURE | {"models", "losses"}
STATE = LEAVES | {"parallel", "validation", "data", "metrics", "checkpoints", "writer"}
LATE = {"scene_graph": {"drawing"}}  # a graph draws itself: imported when it is asked to
WITH_TENSORFLOW = ("linknet_jax.data.pipeline", "linknet_jax.data.tfds")

# ops <- models <- tasks, losses <- {train, evaluate, ...} <- main; the values may be imported.
ALLOWED = {
    "types": set(),
    "pixels": set(),
    "atomic": set(),
    "command": set(),
    "torch_file": set(),
    "variants": set(),
    "config": {"variants"},
    "ops": {"types"},
    "models": PURE,
    "losses": PURE,
    "tasks": TASKS,
    "import_weights": LEAVES | {"models", "checkpoints", "torch_file"},
    "start": LEAVES | {"checkpoints", "validation"},
    "feature_cache": LEAVES | {"data", "models", "parallel"},
    "state": LEAVES,
    "parallel": LEAVES,
    "validation": LEAVES,
    "settings": LEAVES | {"validation"},
    "data": PURE,
    "metrics": PURE,
    "checkpoints": PURE,
    "stopwatch": set(),
    "utilisation": set(),
    "profile": set(),
    "writer": PURE | {"utilisation"},
    "scene_graph": LEAVES | {"data"},
    "drawing": LEAVES | {"ops", "scene_graph", "report"},
    "baselines": LEAVES | {"data", "metrics", "ops"},
    "report": LEAVES | {"data", "metrics"},
    "score": LEAVES | {"data", "metrics", "report"},
    "compare": LEAVES | {"metrics"},
    "dump": LEAVES | {"data", "metrics"},
    "pictures": LEAVES | {"data", "parallel", "drawing", "metrics", "scene_graph"},
    "eval_loop": TASKS | STATE | {"tasks", "baselines"},
    "evaluate": TASKS
    | STATE
    | {"tasks", "state", "baselines", "eval_loop", "report", "dump", "pictures", "restore"},
    "restore": TASKS | {"tasks", "state", "checkpoints", "parallel"},
    "strip": LEAVES | {"checkpoints", "parallel", "restore"},
    "queries": LEAVES | {"data"},
    "predictor": TASKS
    | {"data", "eval_loop", "metrics", "parallel", "queries", "restore", "scene_graph", "tasks"},
    "exported": {"pixels"},
    "export": TASKS | {"data", "exported", "parallel", "pixels", "predictor", "restore", "tasks"},
    "checks": TASKS | {"checkpoints", "parallel", "tasks"},
    "predict": LEAVES | {"data", "predictor", "queries", "scene_graph"},
    "demo": LEAVES | {"data", "drawing", "predictor", "scene_graph"},
    "preemption": set(),
    "train_step": TASKS | {"tasks", "state", "parallel"},
    "train": TASKS
    | STATE
    | {"tasks", "state", "start", "feature_cache", "eval_loop", "train_step"}
    | {"preemption", "profile", "stopwatch", "utilisation"},
    "main": TASKS | STATE | {"tasks", "state", "evaluate", "train", "settings", "baselines"},
    "cli": set(),
}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Full names of the modules that a file imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(name):
    """`linknet_jax.data.files` to `data`; "" for the package itself or something foreign."""
    top, _, rest = name.partition(".")
    return rest.partition(".")[0] if top == "linknet_jax" else ""


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_dependency_arrow(path):
    own = part(name_of(path))
    used = {part(name) for name in imports(path)} - {"", "__version__"}
    if not own:
        assert used <= {"predictor"}, "the package itself offers the predictor alone"
        return
    assert own in ALLOWED, f"say in ALLOWED what {own} may import"
    allowed = ALLOWED[own] | LATE.get(own, set()) | {own}
    assert used <= allowed, f"{own} must not import {used - allowed}"


def test_arrow_has_no_cycle():
    done: set[str] = set()
    while ready := {name for name, uses in ALLOWED.items() if uses <= done} - done:
        done |= ready
    assert done == ALLOWED.keys()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_tensorflow_is_imported_in_the_pipeline_only(path):
    foreign = {name.partition(".")[0] for name in imports(path)}
    allowed = name_of(path).startswith(WITH_TENSORFLOW)
    assert allowed or not foreign & {"tensorflow", "tensorflow_datasets", "tf_keras"}


def test_everything_else_imports_without_tensorflow():
    names = [x for x in map(name_of, FILES) if not x.startswith(WITH_TENSORFLOW)]
    program = f"""
import importlib, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tensorflow_datasets"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
for name in {names}:
    importlib.import_module(name)
try:
    importlib.import_module("linknet_jax.data.pipeline")
except ModuleNotFoundError:
    print("blocked")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.strip() == "blocked", done.stderr

"""Ask `algoperf check` of every public optimizer of optax, torch.optim, pytorch_optimizer and
schedulefree.

The optimizers come from the packages themselves: what takes the model's parameters (PyTorch) or
returns a gradient transformation (optax). Each becomes a submission of one function, made from the
names of its arguments alone; those that are for matrices alone get these. `check` trains it on
digits; among its checks is that a run restored from a saved state is bit for bit the one that was
not disturbed.

Rows are appended to `public_optimizers.csv` as they are made, and a row that is there is not made
again. Run from the repository's root, one process at a time, and write the page with `--page`:

    python tests/benchmarks/public_optimizers.py [--page] [name ...]
"""

import argparse
import csv
import importlib
import importlib.metadata
import inspect
import tempfile
import textwrap
import time
from pathlib import Path

from algoperf.experiments.check import processes, verdicts
from algoperf.workload import catalogue

ROWS = Path(__file__).with_suffix(".csv")
PAGE = Path(__file__).parents[2] / "docs" / "optimizers.md"
COLUMNS = ("package", "optimizer", "result", "check", "words", "made_as", "cpu_s")
TORCH_PACKAGES = ("torch.optim", "pytorch_optimizer", "schedulefree")
OPTAX_PACKAGES = ("optax", "optax.contrib")
DISTRIBUTIONS = ("optax", "torch", "pytorch_optimizer", "schedulefree")
RATE = 0.01
BATCH = 8  # submissions a process
# What an argument without a default gets, by its name.
OPTAX_ARGUMENTS = {
    "inner": "optax.sgd(rate)",
    "base_optimizer": "optax.sgd(rate)",
    "optimizer": "optax.sgd(rate)",
    "fast_optimizer": "optax.sgd(rate)",
    "tx": "optax.sgd(rate)",
    "inner_factory": "optax.sgd",
    "adv_optimizer": "optax.chain(optax.contrib.normalize(), optax.sgd(0.05))",
    "args": "optax.sgd(rate)",
    "transforms": "{'all': optax.sgd(rate)}",
    "param_labels": "lambda params: jax.tree.map(lambda _: 'all', params)",
    "should_transform_fn": "lambda step, **_: step % 2 == 0",
    "mask": "lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)",
    "freeze_mask": "params.tree(lambda p: len(p.shape) < 2)",
    "clipping": "0.1",
    "max_delta": "0.1",
    "max_norm": "1.0",
    "threshold": "1.0",
    "decay": "0.9",
    "eta": "0.01",
    "gamma": "0.55",
    "max_consecutive_errors": "3",
    "sync_period": "5",
    "slow_step_size": "0.5",
    "l2_norm_clip": "1.0",
    "noise_multiplier": "1.0",
    "seed": "0",
    "step_size": "-rate",
    "step_size_fn": "lambda step: -rate",
    "max_backtracking_steps": "15",
    "max_linesearch_steps": "15",
    "f": "lambda updates, params=None: jax.tree.map(lambda leaf: -rate * leaf, updates)",
}
WRAPPED = ("inner", "base_optimizer", "optimizer", "fast_optimizer", "tx", "args", "transforms")
# What has one of these brings its own rate.
SCALED = ("step_size", "step_size_fn", "f", "max_learning_rate", *WRAPPED)
TORCH_ARGUMENTS = {
    "params": "params.tensors()",
    "num_iterations": "info.step_hint",
    "num_data": "1024",
}
TORCH_BASES = ("optimizer", "base_optimizer", "base")
MATRICES, OTHERS = (f"params.tensors(lambda p: {no}p.is_matrix)" for no in ("", "not "))
FLAGGED = f"[{{'params': {MATRICES}, 'use_muon': True}}, {{'params': {OTHERS}, 'use_muon': False}}]"
# For matrices alone, so beside another optimizer.
FOR_MATRICES = {
    ("torch.optim", "Muon"),
    ("pytorch_optimizer", "SpectralSphere"),
    ("optax.contrib", "scale_by_muon"),
}


def candidates():
    """Yield (package, name, object) for all public optimizers of the packages."""
    import torch

    for package in TORCH_PACKAGES:
        module = importlib.import_module(package)
        for name, value in sorted(vars(module).items()):
            own = inspect.isclass(value) and value.__module__.startswith(package.split(".")[0])
            is_public = own and not name.startswith("_") and not inspect.isabstract(value)
            steps = is_public and all(hasattr(value, each) for each in ("step", "zero_grad"))
            if steps and value is not torch.optim.Optimizer:
                yield package, name, value
    for package in OPTAX_PACKAGES:
        module = importlib.import_module(package)
        for name, value in sorted(vars(module).items()):
            if name.startswith("_") or inspect.isclass(value) or not callable(value):
                continue
            try:
                returned = str(inspect.signature(value).return_annotation)
            except (TypeError, ValueError):
                continue
            if "GradientTransformation" in returned:
                yield package, name, value


def required(value):
    """The names of the arguments that have no default."""
    return [
        each.name
        for each in inspect.signature(value).parameters.values()
        if each.default is each.empty and each.kind is not each.VAR_KEYWORD
    ]


def torch_call(package, name, value):
    """The call that makes a PyTorch optimizer, and the argument that is none of ours, if any."""
    if (package, name) in FOR_MATRICES:
        other = f"torch.optim.AdamW({OTHERS}, lr=rate)"
        return f"{package}.{name}({MATRICES}, lr=rate), {other}", None
    parameters = inspect.signature(value).parameters
    given = []
    for argument in required(value):
        if argument == "params" and "a `use_muon` flag" in (value.__doc__ or ""):
            given.append(f"params={FLAGGED}")
        elif argument in TORCH_BASES:
            # A class is made by the wrapper, an object wrapped.
            wants_class = "params" in parameters
            base = "torch.optim.SGD" if wants_class else "torch.optim.SGD(params.tensors(), rate)"
            given.append(f"{argument}={base}")
        elif argument in TORCH_ARGUMENTS:
            given.append(f"{argument}={TORCH_ARGUMENTS[argument]}")
        else:
            return None, argument
    if "lr" in parameters:
        given.append("lr=rate")
    return f"{package}.{name}({', '.join(given)})", None


def optax_call(package, name, value):
    """The call that makes a gradient transformation, and the argument that is none of ours."""
    parameters = inspect.signature(value).parameters
    given = []
    for argument in required(value):
        if argument == "learning_rate":
            continue
        if argument not in OPTAX_ARGUMENTS:
            return None, argument
        positional = parameters[argument].kind is parameters[argument].VAR_POSITIONAL
        text = OPTAX_ARGUMENTS[argument]
        given.append(text if positional else f"{argument}={text}")
    if "learning_rate" in parameters:
        given.append("learning_rate=rate")
    call = f"{package}.{name}({', '.join(given)})"
    if (package, name) in FOR_MATRICES:
        call = f"optax.masked({call}, params.tree(lambda p: p.is_matrix))"
    if name == "named_chain":
        call = f"{package}.{name}(('sgd', optax.sgd(rate)))"
    if name.startswith("inject_"):
        call = f"{package}.{name}(optax.sgd)(learning_rate=rate)"
    elif name.startswith("scale_by_") or not {"learning_rate", *SCALED} & set(parameters):
        call = f"optax.chain({call}, optax.scale_by_learning_rate(rate))"
    return call, None


def source_of(package, call):
    """The submission's file."""
    framework = "torch" if package in TORCH_PACKAGES else "jax"
    reads = "rate" in call
    imports = {"torch": ["torch", package], "jax": ["jax", "optax", "optax.contrib"]}[framework]
    lines = [f"import {name}" for name in dict.fromkeys(imports)]
    if reads:
        lines.append("rate = hyperparameters.learning_rate")
    if framework == "torch":
        lines += [f"optimizer = {call}", "if hasattr(optimizer, 'train'):"]
        lines += ["    optimizer.train()", "return optimizer"]
    else:
        lines.append(f"return {call}")
    body = textwrap.indent("\n".join(lines), "    ")
    defaults = {"learning_rate": RATE} if reads else {}
    function = f"def {framework}_optimizer(params, hyperparameters, info):\n{body}\n"
    return f"DEFAULTS = {defaults}\n\n\n{function}"


def result_of(reported):
    """(result, check, words) of the verdicts on one submission."""
    for verdict in reported:
        if verdict.status == verdicts.FAILED:
            return "refused", verdict.check, verdict.reason
    note = next((each.reason for each in reported if each.check == verdicts.MOVES), "")
    return "passed", "", note


def ask(batch, folder, prepared):
    """Yield a row for each (package, name, call) of a batch of one framework."""
    framework = "pytorch" if batch[0][0] in TORCH_PACKAGES else "jax"
    paths = []
    for package, name, call in batch:
        path = folder / f"{package.replace('.', '_')}_{name}.py"
        path.write_text(source_of(package, call), "utf-8")
        paths.append(path)
    requests = [processes.request(path, framework, prepared) for path in paths]
    reported = []
    begun_s = time.process_time() + children_s()
    processes.run(requests, folder, reported.append)
    spent_s = (time.process_time() + children_s() - begun_s) / len(batch)
    each = len(verdicts.OF_A_FRAMEWORK) + len(verdicts.OF_A_WORKLOAD)
    # A process's verdicts come as they are made: one submission after the other.
    for number, (package, name, call) in enumerate(batch):
        result = result_of(reported[each * number : each * (number + 1)])
        yield (package, name, *result, call, f"{spent_s:.1f}")


def children_s():
    """The processor time of the processes that have ended, in seconds."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read():
    """The rows that are there."""
    if not ROWS.exists():
        return []
    with ROWS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def append(rows):
    """Append rows."""
    is_new = not ROWS.exists()
    with ROWS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerows(rows)


def fill(names):
    """Make the rows that are missing, of all optimizers or of those with the given names."""
    done = {(row["package"], row["optimizer"]) for row in read()}
    waiting = {"torch": [], "jax": []}
    for package, name, value in candidates():
        if (package, name) in done or (names and name not in names):
            continue
        framework = "torch" if package in TORCH_PACKAGES else "jax"
        make = torch_call if framework == "torch" else optax_call
        call, argument = make(package, name, value)
        if call is None:
            append([(package, name, "not asked", "", f"needs `{argument}`", "", "")])
        else:
            waiting[framework].append((package, name, call))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepared = [processes.prepare(catalogue.find("digits"), folder)]
        for asked in waiting.values():
            for start in range(0, len(asked), BATCH):
                append(list(ask(asked[start : start + BATCH], folder, prepared)))


def main():
    """Fill the table, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="optimizers; default: all")
    parser.add_argument("--page", action="store_true", help="write docs/optimizers.md")
    arguments = parser.parse_args()
    if arguments.page:
        PAGE.write_text(page(read()), "utf-8")
    else:
        fill(arguments.names)


REASONS = {
    "does not support dense gradients": "it is for sparse gradients",
    "does not require grad": "it needs `backward(create_graph=True)`: a full form",
    "requires CUDA": "it needs CUDA",
    "need to install": "it needs a package that is not installed",
    "no parameter moved": "it is made to move nothing, or steps by a `backward` of its own",
    "no attribute 'fast'": "it wants parameters of its own type, `LookaheadParams`",
    "per_example": "it needs the gradient of each example: a full form",
    "are not finite": "it divides by a moment of the steps before, 0 for silent units",
    "different types at key path": "optax's default takes a bare array alone (see `findings/`)",
    "process group": "it needs `torch.distributed` with several processes",
}


def why(words):
    """Our reason for a refusal, where its words leave it open."""
    return next((reason for part, reason in REASONS.items() if part in words), "")


def page(rows):
    """The page that shows the rows."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in DISTRIBUTIONS)
    packages = (*OPTAX_PACKAGES, *TORCH_PACKAGES)
    results = ("passed", "refused", "not asked")
    lines = [
        "# Public optimizers that were tried",
        "",
        "`algoperf check` on `digits` (one seed, a CPU) of every public optimizer of "
        f"{versions}: what takes the model's parameters, and what returns a gradient "
        "transformation. Each was a submission of one function, made from the names of its "
        "arguments; `scale_by_...` and other parts were chained with a learning rate, wrappers "
        "were given plain descent. A row `passed` means that every check passed, so that among "
        "others a run restored after six steps went on bit for bit as the one that was not "
        "disturbed. `python tests/benchmarks/public_optimizers.py` makes the table, "
        "`tests/benchmarks/public_optimizers.csv` holds it with the call of each, and `--page` "
        "writes this page. No row ended in a traceback.",
        "",
        f"| package | {' | '.join(results)} |",
        "|---|---|---|---|",
    ]
    for package in packages:
        counts = [
            sum((row["package"], row["result"]) == (package, result) for row in rows)
            for result in results
        ]
        lines.append(f"| {package} | {' | '.join(map(str, counts))} |")
    lines += ["", "## Refused", "", "| optimizer | check | its words | why |", "|---|---|---|---|"]
    for row in rows:
        if row["result"] == "refused":
            words = row["words"].replace("|", "\\|")
            name = f"{row['package']}.{row['optimizer']}"
            lines.append(f"| {name} | `{row['check']}` | {words} | {why(words)} |")
    lines += ["", "## Not asked", "", "They need an argument that the contract does not have.", ""]
    lines += [
        f"- {row['package']}.{row['optimizer']}: {row['words']}"
        for row in rows
        if row["result"] == "not asked"
    ]
    lines += ["", "## Passed", ""]
    for package in packages:
        names = [
            row["optimizer"]
            for row in rows
            if (row["package"], row["result"]) == (package, "passed")
        ]
        lines += [*textwrap.wrap(f"**{package}**: {', '.join(names)}.", 120), ""]
    notes = [row for row in rows if row["result"] == "passed" and row["words"]]
    lines += ["With a remark:", ""] if notes else []
    lines += [f"- {row['package']}.{row['optimizer']}: {row['words']}" for row in notes]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()

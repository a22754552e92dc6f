"""Whether a trial's clock agrees with a stopwatch outside of it.

    python tests/benchmarks/clock_agreement.py --workload ag_news --framework jax,pytorch

The submission writes a byte to a pipe as the first batch of a stretch is asked for, and another as
an evaluation is prepared, once its device has finished all steps. This process, which is neither
trainer nor referee, stamps the bytes with its own monotonic clock as they arrive. The sum of the
stretches is compared with the `submission_s` that the run recorded, without what was charged for
the initialisation. Printed for each framework and kind of referee: both, and their difference; the
exit code is 1 where one is over `LIMIT`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 0.01
STAMPS = """
import pathlib

pipe = (pathlib.Path(__file__).parent / "pipe").open("wb", buffering=0)
rests = True


def data_selection(input_queue):
    global rests
    if rests:
        pipe.write(b"b")
        rests = False
    return next(input_queue)


def prepare_for_eval(current_param_container, model_state, optimizer_state):
    global rests
    wait(current_param_container)
    pipe.write(b"e")
    rests = True
    return optimizer_state, current_param_container, model_state
"""
JAX = """
import jax

wait = jax.block_until_ready
"""
PYTORCH = """
import torch

from algoperf import spec


def wait(model):
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def init_optimizer_state(model_params):
    return torch.optim.AdamW(model_params.parameters(), lr=1e-3)


def update_params(workload, current_param_container, batch, model_state, optimizer_state, rng,
                  global_step):
    optimizer_state.zero_grad()
    logits, _ = workload.model_fn(
        current_param_container, batch, model_state, spec.ForwardPassMode.TRAIN, rng, True)
    loss = workload.loss_fn(batch["targets"], logits, batch.get("weights"))
    (loss["summed"] / loss["n_valid_examples"]).backward()
    workload.metrics_logger.append_scalar_metrics({"loss": loss["summed"].detach()}, global_step)
    optimizer_state.step()
    return optimizer_state, current_param_container, model_state
"""


def stopwatch(pipe: Path, stamps: list[tuple[str, float]]) -> None:
    """Note when each byte arrives, until the submission ends."""
    with pipe.open("rb", buffering=0) as stream:
        while byte := stream.read(1):
            stamps.append((byte.decode(), time.monotonic()))


def elapsed_s(stamps: list[tuple[str, float]]) -> float:
    """Return the sum of the stretches, each from its 'b' to its 'e'."""
    kinds = "".join(kind for kind, _ in stamps)
    assert kinds == "be" * (len(kinds) // 2), kinds
    times_s = [time_s for _, time_s in stamps]
    return sum(times_s[1::2]) - sum(times_s[::2])


def check(framework: str, referee: str, arguments: argparse.Namespace) -> bool:
    """Run a trial, and compare; return whether the two clocks agree."""
    source = {
        "jax": (ROOT / "submissions/template_full.py").read_text() + JAX,
        "pytorch": PYTORCH,
    }[framework]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "stamped.py").write_text(source + STAMPS)
        os.mkfifo(folder / "pipe")
        stamps: list[tuple[str, float]] = []
        watch = threading.Thread(target=stopwatch, args=(folder / "pipe", stamps), daemon=True)
        watch.start()
        words = ["--workload", arguments.workload, "--framework", framework, "--referee", referee]
        words += ["--submission", str(folder / "stamped.py"), "--out", str(folder / "runs")]
        words += ["--max-steps", str(arguments.steps)]
        words += ["--eval-every-steps", str(arguments.every)]
        command = [sys.executable, "-P", "-m", "algoperf", "run", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        watch.join()
        (path,) = folder.glob("runs/*/*/study_0/*/trial_1/result.json")
        result = json.loads(path.read_text())
    clock_s = result["ledger"]["submission_s"] - result["ledger"]["charged_s"]
    outside_s = elapsed_s(stamps)
    difference = clock_s / outside_s - 1
    print(
        f"{arguments.workload} {framework}, referee {referee}: ledger {clock_s:.3f} s, stopwatch "
        f"{outside_s:.3f} s in {len(stamps) // 2} stretches, {100 * difference:+.2f} %, flags "
        f"{result['flags']}",
        flush=True,
    )
    return abs(difference) <= LIMIT


def main() -> int:
    """Measure and report."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("--workload", default="ag_news")
    parser.add_argument("--framework", default="jax,pytorch", help="names, with commas")
    parser.add_argument("--referee", default="process,inline", help="names, with commas")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=20, help="steps between two evaluations")
    arguments = parser.parse_args()
    agree = [
        check(framework, referee, arguments)
        for framework in arguments.framework.split(",")
        for referee in arguments.referee.split(",")
    ]
    return 0 if all(agree) else 1


if __name__ == "__main__":
    sys.exit(main())

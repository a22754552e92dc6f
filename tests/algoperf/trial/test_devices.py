"""Trials on several devices: they train what one device trains, and fail in words."""

import csv
import json

import numpy as np
import pytest
import torch
from several_devices import STEPS, apart, assert_alike, of_one_device, run, train_together
from torch import nn

import reference_algorithms
from algoperf import backends
from algoperf.backends import torch_batch_norm
from algoperf.backends.ranks import ALONE
from algoperf.errors import UserError
from algoperf.run_folder import run_log
from algoperf.run_folder.checkpoint import Checkpoints
from algoperf.study import run_plan
from algoperf.study.request import RunRequest
from algoperf.trial import loop
from algoperf.trial.preservation import Together
from workloads.parts.speech_torch import MaskedBatchNorm

NAMES = ("digits", "imagenet_resnet")  # A dense model, and one with batch norm.


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_two_devices_train_what_one_trains(framework, tmp_path):
    one, two = of_one_device(framework, NAMES), train_together(tmp_path, framework, 2, NAMES)
    for name in NAMES:
        assert len(one[name]["losses"]) == STEPS
        assert_alike(one[name], two[name], 1e-5)


SHARDS = ("optimizer", "parameters")


@pytest.mark.parametrize("shard", SHARDS)
def test_what_is_divided_trains_the_same(shard, tmp_path):
    one = of_one_device("pytorch", NAMES)
    two = train_together(tmp_path, "pytorch", 2, NAMES, shard=shard)
    for name in NAMES:
        assert_alike(one[name], two[name], 1e-5)


# The dense model, batch norm, a model that writes texts, speech and graphs; and one that has a
# parameter without axes.
KINDS = (*NAMES, "xsum", "librispeech_deepspeech", "ogbg")
DIVIDED_KINDS = ("xsum", "ogbg", "finewebedu_lm")
ALL_KINDS = {"jax": KINDS, "pytorch": (*KINDS, "finewebedu_lm")}


by_hand = pytest.mark.exhaustive  # CI has one of each kind.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "devices"),
    [
        ("pytorch", 2),
        pytest.param("pytorch", 4, marks=by_hand),
        pytest.param("jax", 2, marks=by_hand),
        pytest.param("jax", 4, marks=by_hand),
    ],
)
def test_devices_train_what_one_trains(framework, devices, tmp_path):
    one = of_one_device(framework, ALL_KINDS[framework])
    several = train_together(tmp_path, framework, devices, KINDS)
    for name in KINDS:
        assert_alike(one[name], several[name], 1e-5)


@pytest.mark.exhaustive
def test_what_is_divided_trains_the_same_of_every_kind(tmp_path):
    """What writes texts and graphs beside the kinds above, and a model with a parameter without
    axes, which is not divided.
    """
    one = of_one_device("pytorch", ALL_KINDS["pytorch"])
    for shard in SHARDS:
        two = train_together(tmp_path, "pytorch", 2, DIVIDED_KINDS, shard=shard)
        for name in DIVIDED_KINDS:
            assert_alike(one[name], two[name], 1e-5)


ALGORITHMS = tuple(name for name in reference_algorithms.names() if name != "nesterov")


@pytest.mark.slow
@pytest.mark.parametrize("framework", [pytest.param("jax", marks=by_hand), "pytorch"])
def test_every_reference_algorithm_trains_the_same_on_two_devices(framework, tmp_path):
    one = of_one_device(framework, ("digits",), ALGORITHMS)
    two = train_together(tmp_path, framework, 2, ("digits",), ALGORITHMS)
    for key, arrays in one.items():
        losses = two[key].pop("losses"), arrays.pop("losses")
        if key != "sam-digits":  # What a full form logs is what rank 0 logs.
            np.testing.assert_allclose(*losses, rtol=1e-4, err_msg=key)
        # The eigenvectors that SOAP turns gradients by make more of rounding.
        assert apart(arrays, two[key]) <= (1e-3 if key == "soap-digits" else 1e-4), key


@pytest.mark.exhaustive
def test_what_is_divided_goes_with_micro_batches_and_techniques(tmp_path):
    """Gradients are added up over parts; activations are computed anew from parameters that are put
    together again; what is frozen is not divided.
    """
    settings = "+accumulate=2+checkpoint_activations=true"
    names = (f"finewebedu_lm{settings}", f"imagenet_resnet{settings}", "ag_news_lora")
    one = train_together(tmp_path, "pytorch", 1, names)
    for shard in SHARDS:
        two = train_together(tmp_path, "pytorch", 2, names, shard=shard)
        for name in names:
            assert_alike(one[name], two[name], 1e-5)


# Those that do not train so, and say it: one that looks over all parameters, those that take the
# whole of a matrix, and the full form, whose own step divides what it wants to.
REFUSED = {
    "optimizer": {"prodigy"},
    "parameters": {"adafactor", "prodigy", "psgd_kron", "soap"},
}


@pytest.mark.slow
@pytest.mark.parametrize("shard", SHARDS)
def test_every_reference_algorithm_trains_the_same_on_what_is_divided(shard, tmp_path):
    names = [name for name in ALGORITHMS if name != "sam"]
    one = of_one_device("pytorch", ("digits",), ALGORITHMS)
    two = train_together(tmp_path, "pytorch", 2, ("digits",), names, shard=shard)
    refused = {key for key, arrays in two.items() if "refused" in arrays}
    assert {key.removesuffix("-digits") for key in refused} == REFUSED[shard]
    for key in two.keys() - refused:
        losses = one[key].pop("losses"), two[key].pop("losses")
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4, err_msg=key)
        # The eigenvectors that SOAP turns gradients by make more of rounding.
        assert apart(one[key], two[key]) <= (1e-3 if key == "soap-digits" else 1e-4), key


SPECTRAL = """
import torch

DEFAULTS = {"learning_rate": 3e-3, "grad_clip": 1.0}


class Spectral(torch.optim.Optimizer):
    def __init__(self, params, info):
        super().__init__(params, {"lr": 1.0})
        self.info = info

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for each in group["params"]:
                gradient = WHOLE
                if gradient.ndim == 2:
                    gradient = gradient / torch.linalg.matrix_norm(gradient, 2)
                each.add_(DIVIDED, alpha=-group["lr"])


def torch_optimizer(params, hyperparameters, info):
    optimizer = Spectral(params.tensors(), info)
    rate = hyperparameters.learning_rate
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate)
"""


@pytest.mark.slow
def test_whole_matrices_are_asked_for_and_given_back_divided(tmp_path):
    """By the largest singular value of a gradient, which only the whole matrix has; what takes that
    of its part is refused.
    """
    asking, taking = tmp_path / "asking.py", tmp_path / "taking.py"
    whole, divided = "self.info.whole(each.grad)", "self.info.divided(gradient, each)"
    asking.write_text(SPECTRAL.replace("WHOLE", whole).replace("DIVIDED", divided))
    part = "getattr(each.grad, 'to_local', lambda: each.grad)()"
    of_part = (
        "gradient if type(each) is torch.nn.Parameter else "
        "type(each).from_local(gradient, each.device_mesh, each.placements)"
    )
    taking.write_text(SPECTRAL.replace("WHOLE", part).replace("DIVIDED", of_part))
    both = (str(asking), str(taking))
    one = train_together(tmp_path, "pytorch", 1, ("digits",), both)
    two = train_together(tmp_path, "pytorch", 2, ("digits",), both, shard="parameters")
    assert_alike(one["asking-digits"], two["asking-digits"], 1e-5)
    assert "it needs whole ones (info.whole)" in str(two["taking-digits"]["refused"])


@pytest.mark.slow
def test_a_full_form_divides_by_the_weights_of_all_devices(tmp_path):
    """Of xsum, whose rows have tokens that do not count."""
    trained = [
        train_together(tmp_path, "pytorch", devices, ("xsum",), ("sam",))["sam-xsum"]
        for devices in (1, 2)
    ]
    for arrays in trained:
        arrays.pop("losses")
    assert apart(*trained) <= 1e-4


# What two processes ask of each other, in one process, by hand.


class Half:
    """One of two processes; the other one gives `theirs`."""

    count = 2

    def __init__(self, rank, theirs):
        self.rank, self.theirs = rank, list(theirs)
        self.log = []

    def largest(self, value):
        self.log.append(value)
        return max(value, self.theirs.pop(0))

    def wait(self):
        self.log.append("wait")


def test_alone_nobody_is_asked():
    assert (ALONE.rank, ALONE.count) == (0, 1)
    assert ALONE.largest(3) == 3
    assert ALONE.from_first("x") == "x"
    assert ALONE.gathered("x") == ["x"]


def test_one_device_of_pytorch_has_no_group():
    """So that it trains as without the option, with no step that is asked about."""
    before = torch.distributed.is_initialized()
    assert backends.join("pytorch", 0, 1, "") is ALONE
    assert torch.distributed.is_initialized() is before


def test_the_largest_of_what_follows_is_an_evaluation_before_a_save():
    assert loop.STEP < loop.SAVE < loop.EVALUATE < loop.END


def batch_norm_of_halves(layer, inputs, *more):
    """Return what a layer gives for two halves of its rows, each in a process of its own, by sums
    that are known before.
    """

    halves = [[each[: len(each) // 2] for each in (inputs, *more)]]
    halves += [[each[len(each) // 2 :] for each in (inputs, *more)]]
    # Sums of one half need those of the other, whose later ones need the earlier: three rounds.
    known = [[], []]
    for _ in range(4):
        fresh = [[], []]
        outputs = []
        state = {name: value.clone() for name, value in layer.state_dict().items()}
        for rank in (0, 1):
            layer.load_state_dict(state)

            def total(value, own=fresh[rank], others=known[1 - rank]):
                number = len(own)
                own.append(value.detach())
                return value + (others[number] if number < len(others) else 0)

            torch_batch_norm.share(layer, total)
            outputs.append(layer(*halves[rank]))
        after = {name: value.clone() for name, value in layer.state_dict().items()}
        layer.load_state_dict(state)
        known = fresh
    return torch.cat(outputs), after


def test_batch_norm_of_two_halves_is_that_of_the_whole():
    torch.manual_seed(0)
    inputs = torch.randn(8, 3, 5) * 2 + 7
    whole = nn.BatchNorm1d(3)
    expected = whole(inputs)
    outputs, after = batch_norm_of_halves(nn.BatchNorm1d(3), inputs)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(after[name], whole.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_masked_batch_norm_of_two_halves_is_that_of_the_whole():
    torch.manual_seed(0)
    inputs, mask = torch.randn(8, 5, 3) + 4, (torch.rand(8, 5) > 0.3).float()
    whole = MaskedBatchNorm(3)
    expected = whole(inputs, mask)
    outputs, after = batch_norm_of_halves(MaskedBatchNorm(3), inputs, mask)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after["running_var"], whole.running_var, rtol=1e-5, atol=1e-6)


def test_a_batch_norm_that_cannot_be_shared_is_named():
    class Own(nn.BatchNorm1d):
        def forward(self, inputs):
            return super().forward(inputs)

    with pytest.raises(UserError, match="batch norm '0' has a forward of its own and no `total`"):
        torch_batch_norm.share(nn.Sequential(Own(3)), lambda value: value)


def test_rank_0_saves_after_the_others():
    class Saved:
        def write(self, step, arrays, document):
            ranks.log.append("written")
            return 1

    class Log:
        def sizes(self):
            return {}

    class Trained:
        state = loop.State(params={}, model_state={}, optimizer_state={}, step=3)

        def position(self):
            return {}

    for rank, expected in ((0, ["wait", "written"]), (1, ["written", "wait"])):
        ranks = Half(rank, [])
        keeper = Together(ranks, Saved(), Log(), None, 300.0, lambda: False, print)
        keeper.save(Trained())
        assert ranks.log == expected


def test_a_checkpoint_counts_that_every_process_has(tmp_path):
    first, second = (Checkpoints(tmp_path, rank, 2) for rank in (0, 1))
    arrays = {"w": np.arange(3.0)}
    for step in (5, 9):
        first.write(step, arrays, {"step": step})
    assert list(first.read()) == []
    second.write(5, arrays, {"step": 5})
    assert [document for _, document in first.read()] == [{"step": 5}]
    second.write(9, arrays, {"step": 9})
    newest = sorted((tmp_path / "checkpoints_rank_1").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    assert [document for _, document in first.read()] == [{"step": 5}]
    first.clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"referee": "inline"}, "--devices: what several train is judged in another process"),
        ({"compile": True}, "--devices: --compile is for one device"),
        (
            {"submission": "sam", "shard": "parameters"},
            "--shard parameters is done by the library's own step, in the optimizer form only",
        ),
        (
            {"devices": None, "shard": "optimizer"},
            "--shard optimizer divides it among devices: say of how many",
        ),
        ({"shard": "all"}, "shard"),
    ],
)
def test_what_does_not_go_with_several_devices(changes, message, tmp_path):
    given = {"submission": "nadamw", "framework": "pytorch", "devices": 2, **changes}
    with pytest.raises(UserError, match=message):
        run_plan.make(RunRequest("digits", out=tmp_path, **given))


def test_what_is_divided_is_part_of_the_configuration(tmp_path):
    """So that a trial goes on as it began, and runs are pooled with their like."""
    settings = [
        run_plan.make(
            RunRequest("digits", "nadamw", framework="pytorch", devices=2, out=tmp_path, shard=each)
        ).trial.settings()
        for each in ("none", *SHARDS)
    ]
    assert [each.get("shard") for each in settings] == [None, *SHARDS]
    assert "shard" in run_log.POOLED


# Whole runs.

BAD = """
import os, signal, torch

DEFAULTS = {"learning_rate": 1e-3}


def torch_optimizer(params, hyperparameters, info):
    optimizer = torch.optim.AdamW(params.tensors(), lr=hyperparameters.learning_rate)
    step, steps = optimizer.step, []
    is_model = max(each.numel() for each in params.tensors()) > 1000  # and no stand-in

    def stepped():
        steps.append(0)
        if len(steps) == 5 and os.environ["RANK"] == "1" and is_model:
            BODY
        return step()

    optimizer.step = stepped
    return optimizer
"""


def result(tmp_path):
    (file,) = (tmp_path / "runs").glob("*/*/study_0/*/trial_1/result.json")
    return json.loads(file.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ('raise ValueError("broken here")', "rank 1: ValueError: broken here"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "rank 1: the trial's process was ended by SIGKI"),
        ("os._exit(3)", "rank 1: the trial's process ended with exit code 3 and no result"),
    ],
)
def test_a_process_that_ends_ends_the_trial_by_its_own_cause(body, cause, tmp_path):
    submission = tmp_path / "bad.py"
    submission.write_text(BAD.replace("BODY", body))
    run(tmp_path, submission, "--max-steps", "10")
    ended = result(tmp_path)
    assert ended["status"] == "failed"
    assert ended["error"]["cause"].startswith(cause)


UNEVEN = """
import os, time, torch

DEFAULTS = {"learning_rate": 1e-3}
held = []


def torch_optimizer(params, hyperparameters, info):
    if info.rank == 1:
        held.append(torch.ones(50_000_000))  # 200 MB

    def wait(*_):
        if info.rank == 1:
            time.sleep(0.2)
            began_s = time.process_time()
            while time.process_time() < began_s + 0.1:
                pass

    optimizer = torch.optim.AdamW(params.tensors(), lr=hyperparameters.learning_rate)
    optimizer.register_step_post_hook(wait)
    return optimizer
"""


@pytest.mark.slow
def test_what_each_process_used_is_reported(tmp_path):
    (tmp_path / "uneven.py").write_text(UNEVEN)
    shown = run(tmp_path, tmp_path / "uneven.py", "--max-steps", "10").stdout
    used = result(tmp_path)["resources"]
    first, second = used["processes"]
    assert (first["rank"], second["rank"]) == (0, 1)
    assert second["cpu_s"] > first["cpu_s"] + 0.5  # 1.0 s of ten steps
    assert second["peak_process_bytes"] > first["peak_process_bytes"] + 150e6
    assert used["peak_process_bytes"] == second["peak_process_bytes"]
    # The first one waits for the second, which sleeps.
    assert first["agreement_s"] > second["agreement_s"] + 1.5  # ten times 0.3 s
    assert 0 < first["gradients_s"] < 1
    (line,) = [line for line in shown.splitlines() if "2 processes: " in line]
    assert line.endswith(" s (least: rank 1)")


@pytest.mark.slow
def test_gradients_that_are_not_added_up_are_flagged(tmp_path):
    submission = tmp_path / "bad.py"
    body = "[each.grad.mul_(2) for each in params.tensors()]"
    submission.write_text(BAD.replace("BODY", body))
    run(tmp_path, submission, "--max-steps", "10")
    flags = result(tmp_path)["flags"]
    assert flags == ["the devices trained different parameters: their gradients were not added up"]


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["none", *SHARDS])
def test_a_trial_goes_on_bit_for_bit_and_on_as_many_devices(shard, tmp_path):
    def metrics():
        (file,) = (tmp_path / "runs").glob("*/*/study_0/*/trial_1/eval_measurements.csv")
        return [
            {name: value for name, value in row.items() if "/" in name or name == "global_step"}
            for row in csv.DictReader(file.read_text().splitlines())
        ]

    submission = tmp_path / "stops.py"
    body = 'os.path.exists(MARK) or (open(MARK, "w").close(), os.kill(os.getppid(), 0))'
    text = BAD.replace("BODY", body.replace("os.kill(os.getppid(), 0)", "raise_signal()"))
    text = text.replace("DEFAULTS", f"MARK = {str(tmp_path / 'mark')!r}\nDEFAULTS", 1)
    known = None if shard == "none" else shard
    text = text.replace(
        "    step, steps =", f"    assert info.shard == {known!r}\n    step, steps ="
    )
    text += "\n\ndef raise_signal():\n    signal.raise_signal(signal.SIGTERM)\n"
    submission.write_text(text)
    words = (submission, "--max-steps", "12", "--shard", shard)
    stopped = run(tmp_path, *words)
    assert stopped.returncode == 75, stopped.stderr
    refused = run(tmp_path, *words, "--shard", "none", "--devices", "1")
    assert "devices=2, now 1" in refused.stderr or "devices" in refused.stderr
    went_on = run(tmp_path, *words)
    assert went_on.returncode == 0, went_on.stderr
    assert "goes on from step" in went_on.stdout + went_on.stderr
    first = metrics()
    (tmp_path / "runs").rename(tmp_path / "before")
    assert run(tmp_path, *words).returncode == 0
    assert metrics() == first
    assert first[-1]["global_step"] == "12"
    (file,) = (tmp_path / "runs").glob("*/*/study_0/*/trial_1/flags_0.json")
    pool = json.loads(file.read_text())["pool"]
    assert pool.get("shard") == known
    # What the processes have trained in all is the same, bit for bit, as its checksum says.
    checksums = [
        json.loads(each.read_text())["parameters_crc32"]
        for folder in ("before", "runs")
        for each in (tmp_path / folder).glob("*/*/study_0/*/trial_1/result.json")
    ]
    assert len(checksums) == 2
    assert checksums[0] == checksums[1]


@pytest.mark.slow
def test_the_referee_gets_what_the_devices_have_in_parts(tmp_path):
    """Also an average that the owners of an optimizer's state have parts of."""
    losses = []
    for words in (("--devices", "1"), *(("--shard", shard) for shard in SHARDS)):
        ended = run(tmp_path, "schedule_free_adamw", "--max-steps", "10", *words, "--overwrite")
        assert ended.returncode == 0, ended.stderr
        assert result(tmp_path)["flags"] == []
        (file,) = (tmp_path / "runs").glob("*/*/study_0/*/trial_1/eval_measurements.csv")
        rows = csv.DictReader(file.read_text().splitlines())
        losses.append([float(row["validation/loss"]) for row in rows])
    assert len(losses[0]) >= 3
    for several in losses[1:]:
        np.testing.assert_allclose(several, losses[0], rtol=1e-4)

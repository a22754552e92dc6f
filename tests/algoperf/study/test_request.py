"""What a run is asked: the request is the command's arguments, and back."""

import dataclasses
import io
import sys
from pathlib import Path

import pytest

from algoperf.cli import run_arguments
from algoperf.errors import UserError
from algoperf.study.request import RunRequest

LEAST = {"workload": "digits", "submission": "nadamw"}
OTHER = {  # a value of each field that is not its default
    "framework": "jax",
    "scale": "full",
    "data": "a folder",
    "skip_bad_rows": True,
    "rouge_tokenizer": "unicode",
    "drop_duplicates": True,
    "balance": True,
    "validation_seed": "text:a text for tests, known to all",
    "pretrained": "weights",
    "save_model": Path("model"),
    "tuning_ruleset": "external",
    "search_space": "space.json",
    "trials": 3,
    "exchange_every_steps": 25,
    "exchange_share": 0.5,
    "studies": 2,
    "trial_range": "1:2",
    "study_range": "1:1",
    "seed": 7,
    "batch_size": 16,
    "compile": True,
    "precision": "bf16",
    "accumulate": 2,
    "checkpoint_activations": True,
    "offload": True,
    "max_steps": 40,
    "eval_every_steps": 20,
    "checkpoint_every_s": 12.5,
    "checkpoints": False,
    "keep_going": True,
    "retry_failed": True,
    "until": "end",
    "experiment": "mine",
    "out": Path("elsewhere"),
    "carbon": True,
    "carbon_country": "DEU",
    "wandb": True,
    "suite": "suite.json",
    "threads": 2,
    "hardware_class": "hardware_class.json",
    "devices": 2,
    "processes": 2,
    "stop_outrun": True,
    "stop_late": True,
    "shard": "optimizer",
    "change_devices": True,
    "referee": "inline",
    "overwrite": True,
    "rerun_contended": True,
    "name": "variant-2",
    "save_best": Path("best.py"),
}


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    """What standard input holds, where a request asks for it by its words."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("a text for tests, known to all\n"))


def parsed(parser, words):
    return run_arguments.request(parser.parse_args(["run", *words]))


def test_the_options_of_the_command_are_the_fields(parser):
    assert {field.name for field in dataclasses.fields(RunRequest)} == {*LEAST, *OTHER}
    words = ["--workload", "digits", "--submission", "nadamw"]
    assert parsed(parser, words) == RunRequest(**LEAST)  # the same defaults
    assert RunRequest(**LEAST).words() == [*words, "--seed", "0"]


@pytest.mark.parametrize("name", OTHER)
def test_the_words_of_a_request_ask_for_it(parser, name):
    request = RunRequest(**LEAST, **{name: OTHER[name]})
    assert request != RunRequest(**LEAST)
    assert parsed(parser, request.words()) == request


def test_all_words_together(parser):
    request = RunRequest(**LEAST, **OTHER)
    words = request.words()
    assert parsed(parser, words) == request
    flags = words.index("--workload")
    assert words[:flags] == [
        *("--skip-bad-rows", "--drop-duplicates", "--balance", "--compile"),
        *("--checkpoint-activations", "--offload", "--no-checkpoint", "--keep-going"),
        "--retry-failed",
        *("--carbon", "--wandb", "--change-devices", "--overwrite", "--stop-outrun"),
        *("--stop-late", "--rerun-contended"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workload": ""}, "workload is '', expected a text"),
        ({"workload": None}, "workload is None, expected a text"),
        ({"seed": -1}, "seed is -1, expected a whole number of at least 0"),
        ({"seed": True}, "seed is True, expected a whole number of at least 0"),
        ({"seed": None}, "seed is None, expected a whole number of at least 0"),
        ({"trials": 0}, "trials is 0, expected a whole number of at least 1"),
        ({"studies": 1.0}, "studies is 1.0, expected a whole number of at least 1"),
        ({"max_steps": 0}, "max_steps is 0, expected a whole number of at least 1"),
        ({"checkpoint_every_s": 0}, "checkpoint_every_s is 0, expected a number of seconds"),
        ({"checkpoint_every_s": float("inf")}, "checkpoint_every_s is inf, expected a number"),
        ({"precision": "bf61"}, "unknown precision 'bf61'; did you mean bf16? (one of: float32,"),
        ({"until": "never"}, "unknown until 'never'"),
        ({"tuning_ruleset": "none"}, "unknown tuning_ruleset 'none' (one of: external, self, pop"),
        ({"exchange_every_steps": 0}, "exchange_every_steps is 0, expected a whole number of at"),
        ({"exchange_share": 0.51}, "exchange_share is 0.51, expected a number from 0 to 0.5"),
        ({"exchange_share": True}, "exchange_share is True, expected a number from 0 to 0.5"),
        ({"out": "runs"}, "out is 'runs', expected a path"),
    ],
)
def test_a_value_that_cannot_be(changes, message):
    with pytest.raises(UserError) as raised:
        RunRequest(**LEAST | changes)
    assert str(raised.value).startswith(message)

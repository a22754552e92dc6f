"""Decoding speed: our generation in both frameworks against transformers' `generate`.

    OMP_NUM_THREADS=1 taskset -c 1 python tests/benchmarks/decode_speed.py --size mini --beams 1

All decode the same random sources with the same random weights, in one process, in alternating
order; the end token's embedding is 0, so that no row ends before the limit. Printed are tokens (of
all rows) a second, the median over the rounds, and the median of the ratios to transformers with
its cache; "no cache" runs the decoder over all tokens anew for each. JAX compiles before the first
round. The exit code is 1 where, with the cache, one of ours is slower than transformers.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

SIZES = {
    "mini": {
        "vocab_size": 4096,
        "positions": 128,
        "width": 128,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "heads": 4,
        "feed_forward": 512,
    },
    "base": {
        "vocab_size": 50_265,
        "positions": 1024,
        "width": 768,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "heads": 12,
        "feed_forward": 3072,
    },
    "wmt": {  # BART's layers in the sizes of AlgoPerf's wmt
        "vocab_size": 32_000,
        "positions": 256,
        "width": 1024,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "heads": 16,
        "feed_forward": 1024,
    },
}
BASELINE = "transformers, cache"
Writer = Callable[[], list[list[int]]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is decoded, and how."""

    model: dict[str, int]
    source_BS: np.ndarray
    new_tokens: int
    beams: int


def random_sources(vocab_size: int, batch_size: int, length: int) -> np.ndarray:
    """Rows of random tokens of different lengths, padded."""
    rng = np.random.default_rng(0)
    source_BS = rng.integers(4, vocab_size, (batch_size, length), np.int32)
    lengths_B = rng.integers(length // 2, length + 1, batch_size)
    lengths_B[0] = length
    source_BS[np.arange(length) >= lengths_B[:, None]] = 1
    return source_BS


def transformers_writers(setting: Setting, folder: str) -> dict[str, Writer]:
    """The reference, with and without its cache; saves the weights into the folder."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration
    from transformers.utils import logging

    model = setting.model
    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=model["vocab_size"],
        max_position_embeddings=model["positions"],
        d_model=model["width"],
        encoder_layers=model["encoder_layers"],
        decoder_layers=model["decoder_layers"],
        encoder_attention_heads=model["heads"],
        decoder_attention_heads=model["heads"],
        encoder_ffn_dim=model["feed_forward"],
        decoder_ffn_dim=model["feed_forward"],
        forced_eos_token_id=None,
    )
    reference = BartForConditionalGeneration(config).eval()
    with torch.no_grad():
        reference.model.shared.weight[2] = 0  # the end token's logit is 0, and never the largest
    reference.save_pretrained(folder)
    source_BS = torch.from_numpy(setting.source_BS).long()

    def writer(use_cache: bool) -> Writer:
        def write() -> list[list[int]]:
            out_BT = reference.generate(
                source_BS,
                attention_mask=(source_BS != 1).long(),
                max_new_tokens=setting.new_tokens,
                num_beams=setting.beams,
                do_sample=False,
                use_cache=use_cache,
            )
            return [_until_end(row_T) for row_T in out_BT[:, 1:].tolist()]

        return write

    return {BASELINE: writer(True), "transformers, no cache": writer(False)}


def _until_end(row: list[int]) -> list[int]:
    return row[: row.index(2) + 1] if 2 in row else [token for token in row if token != 1]


def our_writers(setting: Setting, folder: str) -> dict[str, Writer]:
    """Ours, from the weights in the folder."""
    import jax
    import torch
    from flax import traverse_util

    from algoperf.backends import generation, jax_decoding, torch_backend, torch_decoding
    from algoperf.workload import parameters, pretrained
    from workloads.parts import bart_jax, bart_torch

    values = pretrained.load(("bart",), folder, setting.model)
    params = jax.device_put(traverse_util.unflatten_dict(values, sep="/"))
    module = bart_torch.build(**setting.model)
    module.load_state_dict(
        {
            name: torch.tensor(parameters.to_torch(neutral, values[neutral]))
            for name, neutral in torch_backend.neutral_names(module).items()
        }
    )
    settings = generation.GenerationSettings(setting.new_tokens, setting.beams)
    flax_model = bart_jax.build(**setting.model)

    def writer(decoder: generation.Decoder) -> Writer:
        return lambda: generation.generate(decoder, setting.source_BS, settings).sequences

    writers = {}
    for cached, name in ((True, "cache"), (False, "no cache")):
        writers[f"jax, {name}"] = writer(jax_decoding.JaxDecoder(flax_model, params, cached=cached))
        writers[f"pytorch, {name}"] = writer(torch_decoding.TorchDecoder(module, cached=cached))
    return writers


def measure(
    writers: dict[str, Writer], rounds: int, now: Callable[[], float]
) -> dict[str, list[float]]:
    """Tokens a second of every writer in every round, in alternating order."""
    speeds: dict[str, list[float]] = {name: [] for name in writers}
    order = list(writers)
    for turn in range(rounds):
        for name in order if turn % 2 else reversed(order):
            started_at_s = now()
            written = writers[name]()
            elapsed_s = now() - started_at_s
            speeds[name].append(sum(map(len, written)) / elapsed_s)
    return speeds


def report(speeds: dict[str, list[float]], agree: dict[str, int], rows: int) -> bool:
    """Print a line each; return whether ours with the cache are as fast as transformers."""
    within = True
    baseline = np.array(speeds[BASELINE])
    for name, values in speeds.items():
        ratio = float(np.median(np.array(values) / baseline))
        print(
            f"{name:24s} {np.median(values):10.0f} tokens/s  x {ratio:6.2f}   "
            f"rows as transformers': {agree[name]} of {rows}"
        )
        within &= ratio >= 1 or not name.endswith(", cache")
    return within


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="mini")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--source-length", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--cpu-time", action="store_true", help="this process's time alone, for a busy machine"
    )
    parser.add_argument("--cached-only", action="store_true", help="leave the slow ones out")
    return parser.parse_args()


def main() -> int:
    """Measure and report."""
    arguments = parse()
    now = time.process_time if arguments.cpu_time else time.perf_counter
    model = SIZES[arguments.size]
    source_BS = random_sources(model["vocab_size"], arguments.batch_size, arguments.source_length)
    setting = Setting(model, source_BS, arguments.new_tokens, arguments.beams)
    with tempfile.TemporaryDirectory() as folder:
        writers = transformers_writers(setting, folder) | our_writers(setting, folder)
    if arguments.cached_only:
        writers = {name: write for name, write in writers.items() if name.endswith(", cache")}
    first = {name: write() for name, write in writers.items()}
    agree = {
        name: sum(ours == theirs for ours, theirs in zip(rows, first[BASELINE], strict=True))
        for name, rows in first.items()
    }
    print(
        f"{arguments.size}: batch {arguments.batch_size}, source {arguments.source_length}, "
        f"{arguments.new_tokens} new tokens, {arguments.beams} beams, "
        f"{len(os.sched_getaffinity(0))} cores used, load {os.getloadavg()[0]:.1f}"
    )
    within = report(measure(writers, arguments.rounds, now), agree, arguments.batch_size)
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())

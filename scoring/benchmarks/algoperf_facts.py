"""Constants of the AlgoPerf benchmark by version: targets, budgets and numbers of studies.

Source: the benchmark's documentation and the constants of its scoring code
(github.com/mlcommons/algorithmic-efficiency, github.com/mlcommons/submissions_algorithms).
"""

from collections.abc import Mapping

# Lower is better for these metrics. The published target files do not say which these are.
LOWER_IS_BETTER = frozenset({"loss", "ppl", "wer", "wer_as_published"})

# The budgets of the external tuning ruleset are in seconds of submission time, by version and base
# workload. A variant has the budget of its base workload.
BUDGETS_S: Mapping[str, Mapping[str, float]] = {
    "0.5": {
        "criteo1tb": 7_703,
        "fastmri": 8_859,
        "imagenet_resnet": 63_008,
        "imagenet_vit": 77_520,
        "librispeech_conformer": 61_068,
        "librispeech_deepspeech": 55_506,
        "ogbg": 18_477,
        "wmt": 48_151,
    },
    "0.6": {
        "criteo1tb": 7_703,
        "fastmri": 4_430,
        "imagenet_resnet": 66_159,
        "imagenet_vit": 69_768,
        "librispeech_conformer": 58_015,
        "librispeech_deepspeech": 44_405,
        "ogbg": 12_011,
        "wmt": 43_336,
    },
    "2026": {
        "criteo1tb": 8_915,
        "fastmri": 2_745,
        "finewebedu_lm": 31_967,
        "imagenet_resnet": 49_918,
        "imagenet_vit": 64_292,
        "librispeech_conformer": 43_680,
        "librispeech_deepspeech": 36_949,
        "ogbg": 11_303,
        "wmt": 16_114,
    },
}

# A self-tuning submission has the budget above times this factor.
SELF_TUNING_FACTOR: Mapping[str, float] = {"0.5": 3.0, "0.6": 1.5, "2026": 1.5}

STUDIES: Mapping[str, int] = {"0.5": 5, "0.6": 3, "2026": 3}

# Trials of a study under the external tuning ruleset; under the self-tuning ruleset it is one.
TRIALS: Mapping[str, int] = {"0.5": 5, "0.6": 5, "2026": 5}

# Each base workload has a metric and a validation target, which are the same in all versions.
BASE_TARGETS: Mapping[str, tuple[str, float]] = {
    "criteo1tb": ("loss", 0.123735),
    "fastmri": ("ssim", 0.723653),
    "imagenet_resnet": ("accuracy", 0.77431),
    "imagenet_vit": ("accuracy", 0.77309),
    "librispeech_conformer": ("wer", 0.085884),
    "librispeech_deepspeech": ("wer", 0.119936),
    "ogbg": ("mean_average_precision", 0.28098),
    "wmt": ("bleu", 30.8491),
    "finewebedu_lm": ("ppl", 22.2995),
}

# Version 0.5 sampled these held-out variants, which have validation targets of their own. Later
# versions have no held-out variants.
HELD_OUT: Mapping[str, Mapping[str, float]] = {
    "0.5": {
        "criteo1tb_embed_init": 0.129657,
        "fastmri_tanh": 0.71784,
        "imagenet_resnet_large_bn_init": 0.76526,
        "librispeech_conformer_layernorm": 0.09731,
        "ogbg_model_size": 0.269446,
        "wmt_glu_tanh": 29.5779,
    },
    "0.6": {},
    "2026": {},
}

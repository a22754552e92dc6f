"""The norms that a convolutional model chooses between, in neither framework.

'batch' is batch norm; 'layer' normalises each row over height, width and channels together, and
'group' over height, width and each group of neighbouring channels (Wu and He 2018). All have a
scale and a bias for each channel.
"""

KINDS = ("batch", "layer", "group")
GROUPS, LEAST_CHANNELS = 32, 2
EPSILON = 1e-5


def name(kind: str, position: str) -> str:
    """Return the name of a norm's module, as '1' becomes 'batch_norm_1' or 'norm_1'.

    It says what the parameters are (`algoperf.workload.parameters`).
    """
    return f"{'batch_norm' if kind == 'batch' else 'norm'}_{position}"


def group_count(kind: str, channels: int) -> int:
    """Return how many groups a norm over channels has: 32, or fewer where that would leave less
    than two channels in each; one for layer norm.
    """
    return 1 if kind == "layer" else min(GROUPS, channels // LEAST_CHANNELS)

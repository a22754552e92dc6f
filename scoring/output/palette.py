"""Colours and dashes of submissions, the same in every plot and on the page.

Okabe and Ito's colours (Color Universal Design, 2008) are safe for colour-blind readers; dashes
differ as well, so that a print without colour can be read.
"""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# On a dark ground the colours are lighter, and black becomes a light grey.
DARK_COLOURS = ("#3FA9E6", "#E8743B", "#2FBF94", "#DE9BC3", "#8CCBF2", "#F2B84B", "#D0D0D0")
# Each tuple holds the lengths of dashes and gaps in points; () is a solid line.
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 1.5), (1.5, 1), (6, 1.5, 1.5, 1.5))
GREY = "#666666"


def colour(index: int, *, dark: bool = False) -> str:
    """Return the colour of a submission as '#rrggbb'.

    Args:
        index: The submission's row on the leaderboard, from 0 for the best. Colours repeat after
            len(COLOURS) submissions.
        dark: Whether the background is dark.
    """
    return (DARK_COLOURS if dark else COLOURS)[index % len(COLOURS)]


def dashes(index: int, *, rounds_only: bool = False) -> tuple[float, ...]:
    """Return the dashes of a submission's line.

    Args:
        index: The submission's row on the leaderboard, from 0 for the best.
        rounds_only: Whether dashes change only when the colours repeat; otherwise they change with
            every submission.

    Returns:
        The lengths of dashes and gaps in points; () is a solid line.
    """
    return DASHES[(index // len(COLOURS) if rounds_only else index) % len(DASHES)]

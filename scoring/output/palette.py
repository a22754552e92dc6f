"""Colours and dashes of submissions, the same in every plot and on the page.

Okabe and Ito's colours (Color Universal Design, 2008), safe for colour-blind readers; dashes differ
as well, so that a print without colour can be read.
"""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# On a dark ground: the darkest blue lightened, black as a light grey.
DARK_COLOURS = ("#3FA9E6", "#E8743B", "#2FBF94", "#DE9BC3", "#8CCBF2", "#F2B84B", "#D0D0D0")
# Lengths of dashes and gaps in points; () is a solid line.
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 1.5), (1.5, 1), (6, 1.5, 1.5, 1.5))
GREY = "#666666"


def colour(index: int, *, dark: bool = False) -> str:
    """The colour of submission number `index`, best first."""
    return (DARK_COLOURS if dark else COLOURS)[index % len(COLOURS)]


def dashes(index: int, *, rounds_only: bool = False) -> tuple[float, ...]:
    """The dashes of submission number `index`; `rounds_only`: they begin when colours repeat."""
    return DASHES[(index // len(COLOURS) if rounds_only else index) % len(DASHES)]

"""Rows of several sentences, kept apart: which token of a row sees which, in either framework.

A sentence of a packed row ends with the end token, and the n-th sentence of a source row belongs to
the n-th of its target row. So the tokens alone say where sentences begin, and a row may be trained
on packed or a sentence at a time. The decoder starts with the end token, so that the token before a
sentence is the same wherever it stands.

Shapes: B rows, S source tokens, T target tokens.
"""

from typing import Any, NamedTuple

from algoperf.data.tokenizers import END_ID

Tokens = Any  # an array of either framework


class Packed(NamedTuple):
    """How the tokens of rows lie.

    Attributes:
        source_BS: The position of each source token in its sentence, from 0.
        target_BT: The position of each target token.
        visible: True where a token sees another: source tokens each other, (B, S, S), target tokens
            those of the source, (B, T, S), and target tokens those before them, (B, T, T).
    """

    source_BS: Tokens
    target_BT: Tokens
    visible: tuple[Tokens, Tokens, Tokens]


def arrange(source_BS: Tokens, target_BT: Tokens) -> Packed:
    """Return which token sees which, and where in its sentence each is.

    The padding after the last sentence counts as one more, so that nothing sees it but itself.

    Args:
        source_BS: Token ids of the sources.
        target_BT: Token ids of the targets.
    """
    of_source_BS, of_target_BT = _sentences(source_BS), _sentences(target_BT)
    own_BSS = _equal(of_source_BS, of_source_BS)
    causal_BTT = _equal(of_target_BT, of_target_BT) & _earlier(target_BT)
    return Packed(
        source_BS=(own_BSS & _earlier(source_BS)).sum(-1) - 1,
        target_BT=causal_BTT.sum(-1) - 1,
        visible=(own_BSS, _equal(of_target_BT, of_source_BS), causal_BTT),
    )


def _sentences(tokens_BT: Tokens) -> Tokens:
    """The number of the sentence of each token, from 0."""
    ends_BT = tokens_BT == END_ID
    return ends_BT.cumsum(1) - ends_BT * 1


def _equal(queries_BQ: Tokens, keys_BT: Tokens) -> Tokens:
    return queries_BQ[:, :, None] == keys_BT[:, None, :]


def _earlier(tokens_BT: Tokens) -> Tokens:
    """True where a token stands before another, or is it, (B, T, T)."""
    count_BT = (tokens_BT == tokens_BT).cumsum(1)  # the only way to count that both frameworks have
    return count_BT[:, :, None] >= count_BT[:, None, :]

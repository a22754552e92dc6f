"""The facts of `algoperf.data.report.facts` as tables for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from algoperf.data.report import duplicates

FIGURES = ("mean", "median", "p95")


def heading(facts: Mapping[str, Any]) -> list[str]:
    """What the facts are of, and what they leave out; a line each."""
    where = facts["data"] if facts["path"] is None else f"{facts['data']} {facts['path']}"
    lines = [
        f"{facts['workload']} at {facts['scale']}, data: {where}, "
        f"fingerprint {facts['fingerprint']}"
    ]
    if "validation_commitment" in facts:
        lines.append(
            "validation and test rows are drawn by a secret; its commitment is "
            f"{facts['validation_commitment']}"
        )
    if not facts["lengths"]:
        fields = ", ".join(f"{name} {field}" for name, field in facts["fields"].items())
        lines.append(f"a row: {fields}")
    for split, looked_at in facts["looked_at"].items():
        if looked_at < facts["rows"][split]:
            lines.append(f"{split}: beside their number, of the first {looked_at:,} rows")
    for split, texts in facts["texts"].items():
        if texts != facts["looked_at"][split]:
            lines.append(f"{split}: {texts:,} texts in {facts['looked_at'][split]:,} rows")
    for split, reasons in facts["bad_rows"].items():
        left_out = ", ".join(f"{count} x {reason}" for reason, count in reasons.items())
        lines.append(f"left out of {split}: {left_out}")
    for split, count in facts["held_out"].items():
        lines.append(f"{split}: {count:,} rows held out of train, since the data has no such split")
    return lines


def tables(facts: Mapping[str, Any]) -> list[Table]:
    """Rows and lengths, duplicates, and labels where there are any."""
    tables_shown = [_lengths(facts), _duplicates(facts)]
    return [*tables_shown, _labels(facts)] if "labels" in facts else tables_shown


def notes(facts: Mapping[str, Any]) -> list[str]:
    """What the figures mean, below the tables."""
    lines = []
    if facts["lengths"]:
        seen = "before cutting" if _has_uncut(facts) else "as the model gets them, after cutting"
        lines.append(
            f"words: between spaces; tokens: {seen}; empty: no letter or digit; unreadable: "
            "replacement or control characters"
        )
        lines.append(
            "duplicates, of texts: exact, equal but for case, punctuation and spaces, or similar "
            f"({facts['similar']['measure']} at least {facts['similar']['threshold']:g}); within a "
            "split a text counts if an earlier one is the same, between two splits one of the "
            "second if the first has it"
        )
    if "contradictions" in facts:
        lines.append(f"rows whose input occurs with another label too: {facts['contradictions']:,}")
    return [*lines, *facts["remarks"]]


def _table(title: str, first: str, columns: list[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _has_uncut(facts: Mapping[str, Any]) -> bool:
    fields = facts["lengths"].values()
    return all(each["tokens_uncut"] for splits in fields for each in splits.values())


def _lengths(facts: Mapping[str, Any]) -> Table:
    if not facts["lengths"]:
        table = _table("rows", "split", ["rows"])
        for split, count in facts["rows"].items():
            table.add_row(split, f"{count:,}")
        return table
    columns = ["texts", "words: mean", "median", "95 %", "tokens: mean", "median", "95 %"]
    table = _table("lengths", "split", [*columns, "cut", "empty", "unreadable"])
    for field, splits in facts["lengths"].items():
        for split, each in splits.items():
            words = each["words"]
            tokens = each["tokens_uncut" if _has_uncut(facts) else "tokens"] or {}
            cut = "" if each["cut"] is None else f"{each['cut']:,} ({each['cut_share']:.1%})"
            table.add_row(
                f"{split} {field}" if len(facts["lengths"]) > 1 else split,
                f"{facts['texts'][split]:,}",
                *(f"{words[figure]:.1f}" for figure in FIGURES),
                *(f"{tokens[figure]:.1f}" if tokens else "" for figure in FIGURES),
                cut,
                f"{each['empty']:,}",
                f"{each['unreadable']:,}",
            )
    return table


def _duplicates(facts: Mapping[str, Any]) -> Table:
    levels = duplicates.LEVELS if facts["lengths"] else duplicates.LEVELS[:1]
    table = _table("duplicates", "texts of" if facts["lengths"] else "rows of", [*levels, "share"])
    for field, kinds in facts["duplicates"].items():
        named = f" {field}" if len(facts["duplicates"]) > 1 else ""
        for kind, places in kinds.items():
            for split, counts in places.items():
                first, _, second = split.rpartition("/")
                most = max(counts.values()) / max(facts["texts"][second], 1)
                table.add_row(
                    f"{second}{named} in {first}" if kind == "across" else f"{second}{named}",
                    *(f"{counts[level]:,}" if level in counts else "" for level in levels),
                    f"{most:.2%}",
                )
    return table


def _labels(facts: Mapping[str, Any]) -> Table:
    splits = facts["labels"]
    has_words = all("words" in each for each in splits.values())
    columns = [
        f"{split}{part}" for split in splits for part in ("", " %", " words")[: 2 + has_words]
    ]
    table = _table("labels", "label", columns)
    names = sorted({name for each in splits.values() for name in each["rows"]}, key=int)
    for name in names:
        cells = []
        for split, each in splits.items():
            count = each["rows"].get(name, 0)
            cells += [f"{count:,}", f"{count / max(facts['looked_at'][split], 1):.1%}"]
            if has_words:
                cells.append(f"{each['words'][name]['mean']:.1f}" if count else "")
        table.add_row(name, *cells)
    rest = [""] * (1 + has_words)
    ratios = [[f"{each['imbalance']:.2f}", *rest] for each in splits.values()]
    table.add_section()
    table.add_row("largest / smallest", *(cell for each in ratios for cell in each))
    if has_words:
        shares = [["", "", f"{each['length_bias']:.1%}"] for each in splits.values()]
        table.add_row("length told by label", *(cell for each in shares for cell in each))
    return table

#!/usr/bin/env python3
"""The table and the plot of the README, from bench/results/fine_tune.csv.

usage: bench/figures.py            writes docs/fine_tune.svg and the part of README.md between its two marks
       bench/figures.py --check    fails when either is not what the results say
"""
import csv
import pathlib
import sys
from xml.sax.saxutils import escape

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results/fine_tune.csv"
PLOT = ROOT / "docs/fine_tune.svg"
README = ROOT / "README.md"
BEGIN, END = "<!-- bench/figures.py -->", "<!-- /bench/figures.py -->"
NAMES = {"graft": "Graft", "hf_peft": "HF PEFT"}
COLOURS = {"graft": "#2b7a4b", "hf_peft": "#8a8a8a"}


def name_of(program):
    limit = program.removeprefix("graft_")
    return NAMES.get(program) or f"Graft in {limit}"


def read():
    with open(RESULTS, newline="") as file:
        return list(csv.DictReader(file))


def table(rows):
    lines = ["| rows a step | program | tokens/s | peak memory, MiB | first loss |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['rows_per_step']} | {name_of(row['program'])} | {float(row['tokens_per_s']):.0f} "
            f"| {int(row['peak_rss_mib']):,} | {float(row['loss_first']):.4f} |"
        )
    first = rows[0]
    lines += [
        "",
        f"{first['model']}, LoRA r 16 on all linear layers, Alpaca rows cut at 512 tokens, f32; {first['threads']} threads of "
        f"{first['machine'].strip()} ({first['flags'].strip()}). Real tokens are counted, mapped weights count as memory.",
    ]
    return "\n".join(lines)


def bars(rows, key, title, top):
    """One group of bars: a label, a bar and its number a row."""
    most = max(float(row[key]) for row in rows)
    parts = [f'<text x="8" y="{top + 14}" font-weight="bold">{escape(title)}</text>']
    for i, row in enumerate(rows):
        y = top + 24 + 20 * i
        value = float(row[key])
        width = max(1.0, 300 * value / most)
        label = f"{name_of(row['program'])}, {row['rows_per_step']} a step"
        colour = COLOURS.get(row["program"], COLOURS["graft"])
        parts.append(f'<text x="8" y="{y + 12}">{escape(label)}</text>')
        parts.append(f'<rect x="150" y="{y}" width="{width:.1f}" height="15" fill="{colour}"/>')
        parts.append(f'<text x="{156 + width:.1f}" y="{y + 12}">{value:,.0f}</text>')
    return parts, top + 24 + 20 * len(rows) + 12


def plot(rows):
    speed, below = bars(rows, "tokens_per_s", "tokens a second", 0)
    memory, height = bars(rows, "peak_rss_mib", "peak memory, MiB", below)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="540" height="{height}" font-family="sans-serif" font-size="12" '
        'fill="#555">'
    )
    return "\n".join([head, *speed, *memory, "</svg>", ""])


def readme(rows):
    text = README.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        sys.exit(f"{README}: expected one {BEGIN} and behind it one {END}")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    image = "![tokens a second and peak memory](docs/fine_tune.svg)"
    return f"{before}{BEGIN}\n{table(rows)}\n\n{image}\n{END}{after}"


def main():
    rows = read()
    if not rows:
        sys.exit(f"{RESULTS}: no results")
    wanted = {PLOT: plot(rows), README: readme(rows)}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if sys.argv[1:] == ["--check"]:
        sys.exit("\n".join(f"{path}: write it anew with bench/figures.py" for path in stale) or 0)
    if sys.argv[1:]:
        sys.exit(__doc__)
    for path in stale:
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()
